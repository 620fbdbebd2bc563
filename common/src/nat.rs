//! FullNAT rewriting of a packet in place: both addresses, both ports, the hop limit, and the checksums over them.

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use crate::flow::{Endpoint, Protocol};
use crate::packet::checksum::Change;
use crate::packet::ethernet::{self, EthernetHeader};
use crate::packet::ipv4::Ipv4Header;
use crate::packet::ipv6::Ipv6Header;
use crate::packet::tcp::TcpHeader;
use crate::packet::udp::UdpHeader;
use crate::packet::{Family, MacAddress, ParsedFlow};

/// Why a packet was not rewritten. Nothing was changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RewriteError {
    /// The TTL or hop limit is used up.
    #[error("the TTL or hop limit is used up")]
    HopLimit,
    /// A new endpoint is not of the packet's address family.
    #[error("a new endpoint is not of the packet's address family")]
    FamilyMismatch,
    /// The frame is not the one that was parsed.
    #[error("the frame is not the one that was parsed")]
    NotAsParsed,
}

/// Gives a frame new endpoints and sends it one hop on.
///
/// `parsed` is what the parser said of this very frame. Checksums are carried over the change (RFC 1624), never computed
/// again: a packet that came damaged leaves damaged, and its receiver notices.
///
/// # Errors
/// The frame is as it was.
#[inline]
pub fn rewrite(
    frame: &mut [u8],
    parsed: &ParsedFlow,
    new_source: Endpoint,
    new_destination: Endpoint,
    source_mac: MacAddress,
    next_hop_mac: MacAddress,
) -> Result<(), RewriteError> {
    let headers = Headers::of(frame, parsed)?;
    let family_is_v4 = parsed.family == Family::V4;
    if new_source.address.is_v4() != family_is_v4 || new_destination.address.is_v4() != family_is_v4 {
        return Err(RewriteError::FamilyMismatch);
    }
    let Headers { ethernet, ip, transport } = headers;
    let change = match ip {
        IpHeader::V4(header) => rewrite_ipv4(header, new_source, new_destination)?,
        IpHeader::V6(header) => rewrite_ipv6(header, new_source, new_destination)?,
    };
    rewrite_transport(transport, change, new_source.port, new_destination.port);
    ethernet.source = source_mac;
    ethernet.destination = next_hop_mac;
    Ok(())
}

/// The headers of a frame, where the parser found them.
struct Headers<'a> {
    ethernet: &'a mut EthernetHeader,
    ip: IpHeader<'a>,
    transport: TransportHeader<'a>,
}

enum IpHeader<'a> {
    V4(&'a mut Ipv4Header),
    V6(&'a mut Ipv6Header),
}

enum TransportHeader<'a> {
    Tcp(&'a mut TcpHeader),
    Udp(&'a mut UdpHeader),
}

impl<'a> Headers<'a> {
    #[inline]
    fn of(frame: &'a mut [u8], parsed: &ParsedFlow) -> Result<Headers<'a>, RewriteError> {
        Headers::find(frame, parsed).ok_or(RewriteError::NotAsParsed)
    }

    #[inline]
    fn find(frame: &'a mut [u8], parsed: &ParsedFlow) -> Option<Headers<'a>> {
        let l3_offset = usize::from(parsed.l3_offset);
        if l3_offset != ethernet::HEADER_LEN {
            return None;
        }
        let ip_len = usize::from(parsed.l4_offset).checked_sub(l3_offset)?;
        let (ethernet, packet) = EthernetHeader::mut_from_prefix(frame).ok()?;
        let (ip, segment) = packet.split_at_mut_checked(ip_len)?;
        let ip = match parsed.family {
            Family::V4 => IpHeader::V4(Ipv4Header::mut_from_prefix(ip).ok()?.0),
            Family::V6 => IpHeader::V6(Ipv6Header::mut_from_prefix(ip).ok()?.0),
        };
        let transport = match parsed.key.protocol {
            Protocol::Tcp => TransportHeader::Tcp(TcpHeader::mut_from_prefix(segment).ok()?.0),
            Protocol::Udp => TransportHeader::Udp(UdpHeader::mut_from_prefix(segment).ok()?.0),
        };
        Some(Headers { ethernet, ip, transport })
    }
}

/// Rewrites an IPv4 header and returns the change of its addresses, for the transport's pseudo header.
#[inline]
fn rewrite_ipv4(
    header: &mut Ipv4Header,
    source: Endpoint,
    destination: Endpoint,
) -> Result<Change, RewriteError> {
    if header.ttl <= 1 {
        return Err(RewriteError::HopLimit);
    }
    let [.., s0, s1, s2, s3] = source.address.0;
    let [.., d0, d1, d2, d3] = destination.address.0;
    let (source, destination) = ([s0, s1, s2, s3], [d0, d1, d2, d3]);
    let addresses =
        Change::new().double_word(header.source, source).double_word(header.destination, destination);
    let old_ttl_word = header.ttl_word();
    header.ttl -= 1;
    header.source = source;
    header.destination = destination;
    let all = addresses.word(old_ttl_word, header.ttl_word());
    header.checksum = U16::new(all.apply(header.checksum.get()));
    Ok(addresses)
}

/// Rewrites an IPv6 header and returns the change of its addresses, for the transport's pseudo header.
#[inline]
fn rewrite_ipv6(
    header: &mut Ipv6Header,
    source: Endpoint,
    destination: Endpoint,
) -> Result<Change, RewriteError> {
    if header.hop_limit <= 1 {
        return Err(RewriteError::HopLimit);
    }
    let (source, destination) = (source.address.0, destination.address.0);
    let addresses = Change::new()
        .quad_double_word(header.source, source)
        .quad_double_word(header.destination, destination);
    header.hop_limit -= 1;
    header.source = source;
    header.destination = destination;
    Ok(addresses)
}

#[inline]
fn rewrite_transport(header: TransportHeader, addresses: Change, source_port: u16, destination_port: u16) {
    match header {
        TransportHeader::Tcp(tcp) => {
            let change = addresses
                .word(tcp.source_port.get(), source_port)
                .word(tcp.destination_port.get(), destination_port);
            tcp.source_port = U16::new(source_port);
            tcp.destination_port = U16::new(destination_port);
            tcp.checksum = U16::new(change.apply(tcp.checksum.get()));
        }
        TransportHeader::Udp(udp) => {
            let change = addresses
                .word(udp.source_port.get(), source_port)
                .word(udp.destination_port.get(), destination_port);
            udp.source_port = U16::new(source_port);
            udp.destination_port = U16::new(destination_port);
            udp.checksum = U16::new(change.apply_udp(udp.checksum.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, any_endpoint, any_sample, cases, mutated};
    use crate::packet::{Parsed, parse};

    const OUR_MAC: MacAddress = [2, 0xba, 0x70, 0, 0, 1];
    const NEXT_HOP: MacAddress = [2, 0, 0, 0, 0, 9];

    fn flow(frame: &[u8]) -> ParsedFlow {
        match parse(frame) {
            Parsed::Transport(flow) => flow,
            other => panic!("{other:?}"),
        }
    }

    fn rewrite_to(frame: &mut [u8], source: Endpoint, destination: Endpoint) -> Result<(), RewriteError> {
        let parsed = flow(frame);
        rewrite(frame, &parsed, source, destination, OUR_MAC, NEXT_HOP)
    }

    /// A valid packet with two more endpoints of its family.
    fn any_case() -> impl Strategy<Value = (Sample, Endpoint, Endpoint)> {
        any_sample().prop_flat_map(|sample| {
            let family = sample.family();
            (Just(sample), any_endpoint(family), any_endpoint(family))
        })
    }

    #[test]
    fn frame_goes_from_us_to_the_next_hop() {
        let mut frame = Sample::tcp_v4().frame();
        let new = Sample::udp_v4().key;
        rewrite_to(&mut frame, new.source, new.destination).unwrap();
        assert_eq!(frame[..6], NEXT_HOP);
        assert_eq!(frame[6..12], OUR_MAC);
    }

    #[test]
    fn used_up_hop_limit_is_refused_untouched() {
        for sample in [Sample::tcp_v4(), Sample::udp_v6()] {
            for hop_limit in [0, 1] {
                let frame = Sample { hop_limit, ..sample.clone() }.frame();
                let mut copy = frame.clone();
                let refused = rewrite_to(&mut copy, sample.key.destination, sample.key.source);
                assert_eq!((refused, copy), (Err(RewriteError::HopLimit), frame));
            }
        }
    }

    #[test]
    fn endpoint_of_the_other_family_is_refused_untouched() {
        let (v4, v6) = (Sample::tcp_v4(), Sample::tcp_v6());
        let mut frame = v4.frame();
        let refused = rewrite_to(&mut frame, v4.key.source, v6.key.destination);
        assert_eq!((refused, &frame), (Err(RewriteError::FamilyMismatch), &v4.frame()));
        let mut frame = v6.frame();
        let refused = rewrite_to(&mut frame, v4.key.source, v6.key.destination);
        assert_eq!((refused, &frame), (Err(RewriteError::FamilyMismatch), &v6.frame()));
    }

    #[test]
    fn packet_without_a_link_layer_header_is_refused() {
        let sample = Sample::tcp_v4();
        let mut packet = sample.frame()[14..].to_vec();
        let Parsed::Transport(parsed) = crate::packet::parse_packet(&packet) else { panic!() };
        let key = sample.key;
        let refused = rewrite(&mut packet, &parsed, key.source, key.destination, OUR_MAC, NEXT_HOP);
        assert_eq!(refused, Err(RewriteError::NotAsParsed));
    }

    #[test]
    fn damaged_packet_stays_damaged() {
        let mut frame = Sample::tcp_v4().frame();
        *frame.last_mut().unwrap() ^= 1;
        let new = Sample::udp_v4().key;
        rewrite_to(&mut frame, new.source, new.destination).unwrap();
        let undamaged =
            Sample { key: crate::flow::FlowKey { protocol: Protocol::Tcp, ..new }, ..Sample::tcp_v4() };
        let checksum = 14 + 20 + 16;
        assert_eq!(frame[checksum..checksum + 2], undamaged.frame()[checksum..checksum + 2]);
    }

    proptest! {
        #![proptest_config(cases(2048))]

        /// The expected packet is written afresh, with checksums computed in full.
        #[test]
        fn rewritten_packet_is_the_packet_written_with_the_new_endpoints((sample, source, destination) in any_case()) {
            let mut frame = sample.frame();
            rewrite_to(&mut frame, source, destination).unwrap();
            let mut expected = sample.clone();
            expected.key.source = source;
            expected.key.destination = destination;
            expected.hop_limit -= 1;
            prop_assert_eq!(&frame[12..], &expected.frame()[12..]);
        }

        #[test]
        fn rewriting_back_gives_the_packet_that_came_two_hops_on((sample, source, destination) in any_case()) {
            let sample = Sample { hop_limit: sample.hop_limit.max(3), ..sample };
            let mut frame = sample.frame();
            rewrite_to(&mut frame, source, destination).unwrap();
            rewrite_to(&mut frame, sample.key.source, sample.key.destination).unwrap();
            let expected = Sample { hop_limit: sample.hop_limit - 2, ..sample };
            prop_assert_eq!(&frame[12..], &expected.frame()[12..]);
        }

        #[test]
        fn rewrite_of_a_frame_that_was_not_parsed_never_panics(
            mut frame in mutated(),
            (sample, source, destination) in any_case(),
            offsets in any::<(u16, u16)>(),
        ) {
            let parsed = flow(&sample.frame());
            let _ = rewrite(&mut frame, &parsed, source, destination, OUR_MAC, NEXT_HOP);
            let strange = ParsedFlow { l4_offset: offsets.0, payload_offset: offsets.1, ..parsed };
            let _ = rewrite(&mut frame, &strange, source, destination, OUR_MAC, NEXT_HOP);
            if let Parsed::Transport(parsed) = parse(&frame) {
                let _ = rewrite(&mut frame, &parsed, source, destination, OUR_MAC, NEXT_HOP);
            }
        }
    }
}
