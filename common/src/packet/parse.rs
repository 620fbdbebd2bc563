//! The parser: a frame in, what it is out.

use super::ethernet::{self, EthernetHeader};
use super::ipv4::Ipv4Header;
use super::ipv6::{self, Chain, Ipv6Header};
use super::tcp::{TcpFlags, TcpHeader};
use super::udp::{self, UdpHeader};
use super::{Family, Malformed};
use crate::flow::{Address, Endpoint, FlowKey, Protocol};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole TCP or UDP packet.
    Transport(ParsedFlow),
    /// A fragment of an IP packet; its ports are unknown, even those of the first one.
    Fragment(Fragment),
    /// A whole IP packet of another protocol, or one that cannot be followed to its transport header.
    OtherIp(OtherIp),
    /// Not IP: the Ethernet type, host byte order. A VLAN tag shows as [`ethernet::TYPE_VLAN`].
    NonIp(u16),
    /// Not what it says it is.
    Malformed(Malformed),
}

/// A TCP or UDP packet: where its headers are and what they say.
///
/// Offsets are bytes from the start of the slice that was parsed. They are right for that slice only; whoever uses them
/// on another gets an error, never a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedFlow {
    /// The five-tuple as it stands in the packet.
    pub key: FlowKey,
    /// IPv4 or IPv6.
    pub family: Family,
    /// Offset of the IP header.
    pub l3_offset: u16,
    /// Offset of the TCP or UDP header.
    pub l4_offset: u16,
    /// Offset of what TCP or UDP carry.
    pub payload_offset: u16,
    /// Bytes of the IP packet, its header included. The slice may be longer (Ethernet padding).
    pub total_len: u32,
    /// TTL or hop limit as received.
    pub hop_limit: u8,
    /// The TCP flags; none for UDP.
    pub tcp_flags: TcpFlags,
}

impl ParsedFlow {
    /// Whether a client's packet of this kind may start a session: a TCP SYN or any UDP packet.
    #[inline]
    pub fn opens(&self) -> bool {
        self.key.protocol == Protocol::Udp || self.tcp_flags.opens()
    }

    /// Offset of the first byte after the IP packet.
    #[inline]
    pub fn end(&self) -> usize {
        usize::from(self.l3_offset) + self.total_len as usize
    }
}

/// A fragment of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

/// An IP packet that is neither TCP nor UDP: ICMP, OSPF, GRE, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherIp {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// IANA's protocol number.
    pub protocol: u8,
}

/// Parses an Ethernet frame. It may be longer than the IP packet in it.
#[inline]
pub fn parse(frame: &[u8]) -> Parsed {
    let Some(ethernet) = EthernetHeader::of(frame) else {
        return Parsed::Malformed(Malformed::EthernetTruncated);
    };
    let packet = &frame[ethernet::HEADER_LEN..];
    let parsed = match ethernet.ether_type.get() {
        ethernet::TYPE_IPV4 => parse_v4(packet, ethernet::HEADER_LEN),
        ethernet::TYPE_IPV6 => parse_v6(packet, ethernet::HEADER_LEN),
        other => return Parsed::NonIp(other),
    };
    parsed.unwrap_or_else(Parsed::Malformed)
}

/// Parses an IP packet without a link-layer header; its first four bits tell the version. Never gives
/// [`Parsed::NonIp`].
#[inline]
pub fn parse_packet(packet: &[u8]) -> Parsed {
    let parsed = match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet, 0),
        Some(6) => parse_v6(packet, 0),
        Some(_) => Err(Malformed::IpVersion),
        None => Err(Malformed::IpTruncated),
    };
    parsed.unwrap_or_else(Parsed::Malformed)
}

/// Parses an IPv4 packet that starts at `l3_offset` of the slice that the caller knows.
#[inline]
fn parse_v4(packet: &[u8], l3_offset: usize) -> Result<Parsed, Malformed> {
    let header = Ipv4Header::check(packet)?;
    let (source, destination) = (Address::v4(header.source), Address::v4(header.destination));
    if header.is_fragment() {
        return Ok(Parsed::Fragment(Fragment { source, destination }));
    }
    let total_len = usize::from(header.total_length.get());
    let ip = Ip {
        family: Family::V4,
        source,
        destination,
        protocol: header.protocol,
        hop_limit: header.ttl,
        l3_offset,
        header_len: header.header_len(),
    };
    parse_transport(&packet[..total_len], &ip)
}

/// Parses an IPv6 packet that starts at `l3_offset` of the slice that the caller knows.
#[inline]
fn parse_v6(packet: &[u8], l3_offset: usize) -> Result<Parsed, Malformed> {
    let header = Ipv6Header::check(packet)?;
    let (source, destination) = (Address::v6(header.source), Address::v6(header.destination));
    let total_len = ipv6::HEADER_LEN + usize::from(header.payload_length.get());
    let packet = &packet[..total_len];
    let (protocol, offset) = match ipv6::follow_chain(header.next_header, &packet[ipv6::HEADER_LEN..])? {
        Chain::Fragment => return Ok(Parsed::Fragment(Fragment { source, destination })),
        Chain::Upper { protocol, offset } => (protocol, offset),
    };
    let ip = Ip {
        family: Family::V6,
        source,
        destination,
        protocol,
        hop_limit: header.hop_limit,
        l3_offset,
        header_len: ipv6::HEADER_LEN + offset,
    };
    parse_transport(packet, &ip)
}

/// What the IP headers have told.
struct Ip {
    family: Family,
    source: Address,
    destination: Address,
    protocol: u8,
    hop_limit: u8,
    l3_offset: usize,
    /// With options and extension headers.
    header_len: usize,
}

/// Parses the transport header of `packet`, which ends where its IP header says.
#[inline]
fn parse_transport(packet: &[u8], ip: &Ip) -> Result<Parsed, Malformed> {
    let Some(protocol) = Protocol::from_number(ip.protocol) else {
        let other = OtherIp { source: ip.source, destination: ip.destination, protocol: ip.protocol };
        return Ok(Parsed::OtherIp(other));
    };
    let segment = packet.get(ip.header_len..).ok_or(Malformed::TransportTruncated)?;
    let (source_port, destination_port, header_len, tcp_flags) = match protocol {
        Protocol::Tcp => {
            let tcp = TcpHeader::check(segment)?;
            (tcp.source_port, tcp.destination_port, tcp.header_len(), TcpFlags(tcp.flags))
        }
        Protocol::Udp => {
            let udp = UdpHeader::check(segment, ip.family)?;
            (udp.source_port, udp.destination_port, udp::HEADER_LEN, TcpFlags::NONE)
        }
    };
    let l4_offset = ip.l3_offset + ip.header_len;
    // The longest chain of extension headers and the longest TCP header end below 2^16.
    const _: () = assert!(
        ethernet::HEADER_LEN + ipv6::HEADER_LEN + ipv6::EXTENSION_HEADERS_MAX * 2048 + 60
            <= u16::MAX as usize
    );
    Ok(Parsed::Transport(ParsedFlow {
        key: FlowKey {
            source: Endpoint { address: ip.source, port: source_port.get() },
            destination: Endpoint { address: ip.destination, port: destination_port.get() },
            protocol,
        },
        family: ip.family,
        l3_offset: ip.l3_offset as u16,
        l4_offset: l4_offset as u16,
        payload_offset: (l4_offset + header_len) as u16,
        total_len: packet.len() as u32,
        hop_limit: ip.hop_limit,
        tcp_flags,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, any_sample, cases, mutated};

    fn flow(frame: &[u8]) -> ParsedFlow {
        match parse(frame) {
            Parsed::Transport(flow) => flow,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tcp_over_ipv4_is_read() {
        let sample = Sample { tcp_flags: TcpFlags::SYN, ..Sample::tcp_v4() };
        let flow = flow(&sample.frame());
        assert_eq!(flow.key, sample.key);
        assert_eq!((flow.l3_offset, flow.l4_offset, flow.payload_offset), (14, 34, 54));
        assert_eq!(flow.total_len as usize, 40 + sample.payload.len());
        assert_eq!((flow.hop_limit, flow.tcp_flags), (sample.hop_limit, TcpFlags::SYN));
        assert!(flow.opens());
    }

    #[test]
    fn udp_over_ipv6_is_read() {
        let sample = Sample::udp_v6();
        let flow = flow(&sample.frame());
        assert_eq!(flow.key, sample.key);
        assert_eq!((flow.l3_offset, flow.l4_offset, flow.payload_offset), (14, 54, 62));
        assert_eq!(flow.tcp_flags, TcpFlags::NONE);
        assert!(flow.opens());
    }

    #[test]
    fn ipv4_options_are_stepped_over() {
        let sample = Sample { ip_extra: 12, ..Sample::tcp_v4() };
        assert_eq!(flow(&sample.frame()).l4_offset, 46);
        assert_eq!(flow(&sample.frame()).key, sample.key);
    }

    #[test]
    fn ipv6_extension_headers_are_stepped_over() {
        let sample = Sample { ip_extra: 24, ..Sample::udp_v6() };
        assert_eq!(flow(&sample.frame()).l4_offset, 78);
        assert_eq!(flow(&sample.frame()).key, sample.key);
    }

    #[test]
    fn padding_after_the_packet_does_not_count() {
        let sample = Sample { payload: vec![], ..Sample::udp_v4() };
        let mut frame = sample.frame();
        frame.resize(60, 0xee);
        assert_eq!(flow(&frame).end(), 42);
    }

    #[test]
    fn packet_without_a_link_layer_header_is_read_too() {
        let sample = Sample::tcp_v4();
        let Parsed::Transport(flow) = parse_packet(&sample.frame()[14..]) else { panic!() };
        assert_eq!((flow.key, flow.l3_offset, flow.l4_offset), (sample.key, 0, 20));
        assert_eq!(parse_packet(&[]), Parsed::Malformed(Malformed::IpTruncated));
        assert_eq!(parse_packet(&[0x50; 60]), Parsed::Malformed(Malformed::IpVersion));
    }

    #[test]
    fn arp_and_vlan_tags_are_not_ip() {
        for ether_type in [ethernet::TYPE_ARP, ethernet::TYPE_VLAN] {
            let mut frame = Sample::tcp_v4().frame();
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            assert_eq!(parse(&frame), Parsed::NonIp(ether_type));
        }
    }

    #[test]
    fn icmp_is_other_ip() {
        let sample = Sample::udp_v4();
        let mut frame = sample.frame();
        frame[23] = 1;
        Sample::seal_ipv4_header(&mut frame);
        let (source, destination) = (sample.key.source.address, sample.key.destination.address);
        assert_eq!(parse(&frame), Parsed::OtherIp(OtherIp { source, destination, protocol: 1 }));
    }

    #[test]
    fn every_ipv4_fragment_is_a_fragment() {
        let sample = Sample::udp_v4();
        for flags_and_offset in [0x2000u16, 0x2001, 0x0001] {
            let mut frame = sample.frame();
            frame[20..22].copy_from_slice(&flags_and_offset.to_be_bytes());
            Sample::seal_ipv4_header(&mut frame);
            let (source, destination) = (sample.key.source.address, sample.key.destination.address);
            assert_eq!(parse(&frame), Parsed::Fragment(Fragment { source, destination }));
        }
    }

    #[test]
    fn ipv6_fragment_header_makes_a_fragment() {
        let mut frame = Sample::udp_v6().frame();
        frame[20] = 44;
        assert!(matches!(parse(&frame), Parsed::Fragment(_)));
    }

    #[test]
    fn malformed_headers_are_named() {
        use Malformed::*;
        type Damage = fn(&mut Vec<u8>);
        let table: [(Sample, Damage, Malformed); 14] = [
            (Sample::tcp_v4(), |f| f.truncate(13), EthernetTruncated),
            (Sample::tcp_v4(), |f| f.truncate(33), IpTruncated),
            (Sample::tcp_v6(), |f| f.truncate(53), IpTruncated),
            (Sample::tcp_v4(), |f| f[14] = 0x65, IpVersion),
            (Sample::tcp_v6(), |f| f[14] = 0x40, IpVersion),
            (Sample::tcp_v4(), |f| f[14] = 0x44, IpHeaderLength),
            (Sample::tcp_v4(), |f| f[16..18].fill(0), IpHeaderLength),
            (Sample::tcp_v4(), |f| f[16] = 0xff, IpLength),
            (Sample::tcp_v6(), |f| f[18] = 0xff, IpLength),
            (Sample::tcp_v4(), |f| f[24] ^= 1, IpChecksum),
            (Sample::tcp_v6(), |f| f[22..38].copy_from_slice(&Address::v4([1, 2, 3, 4]).0), MappedAddress),
            (Sample::tcp_v6(), |f| f[66] = 0x40, TcpHeaderLength),
            (Sample::udp_v6(), |f| f[58..60].fill(0), UdpLength),
            (Sample::udp_v6(), |f| f[60..62].fill(0), UdpChecksumMissing),
        ];
        for (sample, damage, expected) in table {
            let mut frame = sample.frame();
            damage(&mut frame);
            assert_eq!(parse(&frame), Parsed::Malformed(expected), "{expected:?}");
        }
    }

    proptest! {
        #![proptest_config(cases(1024))]

        #[test]
        fn any_valid_packet_is_read_as_it_was_written(sample in any_sample()) {
            let Parsed::Transport(flow) = parse(&sample.frame()) else { panic!("{sample:?}") };
            prop_assert_eq!(flow.key, sample.key);
            prop_assert_eq!(flow.hop_limit, sample.hop_limit);
            prop_assert_eq!(flow.tcp_flags, sample.tcp_flags);
            prop_assert_eq!(&sample.frame()[flow.payload_offset.into()..flow.end()], &sample.payload[..]);
        }

        #[test]
        fn no_part_of_a_packet_is_read_as_the_whole(sample in any_sample(), cut in any::<prop::sample::Index>()) {
            let frame = sample.frame();
            let parsed = parse(&frame[..cut.index(frame.len())]);
            prop_assert!(matches!(parsed, Parsed::Malformed(_)), "{parsed:?}");
        }

        #[test]
        fn damaged_packets_and_noise_are_taken_calmly(frame in mutated(), noise in any::<Vec<u8>>()) {
            for bytes in [&frame, &noise] {
                for parsed in [parse(bytes), parse_packet(bytes)] {
                    if let Parsed::Transport(flow) = parsed {
                        prop_assert!(usize::from(flow.payload_offset) <= flow.end() && flow.end() <= bytes.len());
                    }
                }
            }
        }
    }
}
