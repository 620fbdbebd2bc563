//! UDP datagrams that Baton sends and receives itself: written into a frame, opened and verified.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::checksum::{Sum, nonzero};
use super::ethernet::{self, EthernetHeader, MacAddress};
use super::ipv4::{self, Ipv4Header};
use super::ipv6::{self, Ipv6Header};
use super::udp::{self, UdpHeader};
use super::{Family, Malformed, Parsed, ParsedFlow, parse, parse_packet};
use crate::flow::{Endpoint, Protocol};

/// TTL or hop limit of what Baton sends itself.
pub const HOP_LIMIT: u8 = 64;

/// Why a datagram could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// One endpoint is IPv4, the other IPv6.
    #[error("source and destination are of different address families")]
    FamilyMismatch,
    /// Headers and payload do not fit the frame.
    #[error("headers and payload take {needed} bytes, the frame has {available}")]
    TooLong {
        /// Bytes of headers and payload.
        needed: usize,
        /// Bytes of the frame.
        available: usize,
    },
}

/// Why a packet is no datagram that may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not UDP at all.
    #[error("not a UDP packet")]
    NotUdp,
    /// A fragment of a packet.
    #[error("a fragment of a packet")]
    Fragment,
    /// Its headers are wrong.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The UDP length is not what the IP header leaves for it.
    #[error("the UDP length is not the IP payload's")]
    Length,
    /// The UDP checksum is wrong or missing.
    #[error("the UDP checksum is wrong or missing")]
    Checksum,
}

/// Where a datagram goes and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPath {
    /// Link-layer source.
    pub source_mac: MacAddress,
    /// Link-layer destination: the next hop.
    pub next_hop_mac: MacAddress,
    /// Source address and port.
    pub source: Endpoint,
    /// Destination address and port, of the same family.
    pub destination: Endpoint,
}

/// Bytes before the payload in a frame of this family: 42 or 62.
pub const fn payload_offset(family: Family) -> usize {
    let ip = match family {
        Family::V4 => ipv4::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    };
    ethernet::HEADER_LEN + ip + udp::HEADER_LEN
}

impl UdpPath {
    /// The family of the addresses; the source decides.
    #[inline]
    pub fn family(&self) -> Family {
        if self.source.address.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// Writes a whole frame around a copy of `payload` and returns the frame's length.
    ///
    /// # Errors
    /// Nothing is written.
    #[inline]
    pub fn write(&self, frame: &mut [u8], payload: &[u8]) -> Result<usize, WriteError> {
        let needed = self.frame_len(frame, payload.len())?;
        frame[payload_offset(self.family())..needed].copy_from_slice(payload);
        self.seal(frame, payload.len())
    }

    /// Writes the headers in front of a payload that stands at [`payload_offset`] already, and returns the frame's
    /// length.
    ///
    /// # Errors
    /// Nothing is written.
    #[inline]
    pub fn seal(&self, frame: &mut [u8], payload_len: usize) -> Result<usize, WriteError> {
        let frame_len = self.frame_len(frame, payload_len)?;
        let udp_len = udp::HEADER_LEN + payload_len;
        let (ethernet, packet) = frame[..frame_len].split_at_mut(ethernet::HEADER_LEN);
        let (ip, segment) = packet.split_at_mut(frame_len - ethernet::HEADER_LEN - udp_len);
        let ether_type = match self.family() {
            Family::V4 => {
                ip.copy_from_slice(self.ipv4_header(udp_len).as_bytes());
                U16::new(ethernet::TYPE_IPV4)
            }
            Family::V6 => {
                ip.copy_from_slice(self.ipv6_header(udp_len).as_bytes());
                U16::new(ethernet::TYPE_IPV6)
            }
        };
        let header = EthernetHeader { destination: self.next_hop_mac, source: self.source_mac, ether_type };
        ethernet.copy_from_slice(header.as_bytes());
        let header = self.udp_header(segment);
        segment[..udp::HEADER_LEN].copy_from_slice(header.as_bytes());
        Ok(frame_len)
    }

    /// The length of the frame, once it is found to fit.
    fn frame_len(&self, frame: &[u8], payload_len: usize) -> Result<usize, WriteError> {
        if self.source.address.is_v4() != self.destination.address.is_v4() {
            return Err(WriteError::FamilyMismatch);
        }
        let needed = payload_offset(self.family()).saturating_add(payload_len);
        let longest = ethernet::HEADER_LEN + usize::from(u16::MAX);
        let available = frame.len().min(longest);
        if needed > available {
            return Err(WriteError::TooLong { needed, available });
        }
        Ok(needed)
    }

    fn ipv4_header(&self, udp_len: usize) -> Ipv4Header {
        let [.., s0, s1, s2, s3] = self.source.address.0;
        let [.., d0, d1, d2, d3] = self.destination.address.0;
        let mut header = Ipv4Header {
            version_and_length: 0x45,
            traffic_class: 0,
            total_length: U16::new((ipv4::HEADER_LEN + udp_len) as u16),
            // A packet that cannot be fragmented needs no identification (RFC 6864, section 4.1).
            identification: U16::ZERO,
            flags_and_offset: U16::new(ipv4::DONT_FRAGMENT),
            ttl: HOP_LIMIT,
            protocol: Protocol::Udp as u8,
            checksum: U16::ZERO,
            source: [s0, s1, s2, s3],
            destination: [d0, d1, d2, d3],
        };
        header.checksum = U16::new(Sum::new().bytes(header.as_bytes()).checksum());
        header
    }

    fn ipv6_header(&self, udp_len: usize) -> Ipv6Header {
        Ipv6Header {
            version_class_flow: U32::new(6 << 28),
            payload_length: U16::new(udp_len as u16),
            next_header: Protocol::Udp as u8,
            hop_limit: HOP_LIMIT,
            source: self.source.address.0,
            destination: self.destination.address.0,
        }
    }

    /// The UDP header of `segment`, whose payload stands in place and whose header is yet to be written.
    fn udp_header(&self, segment: &[u8]) -> UdpHeader {
        let mut header = UdpHeader {
            source_port: U16::new(self.source.port),
            destination_port: U16::new(self.destination.port),
            length: U16::new(segment.len() as u16),
            checksum: U16::ZERO,
        };
        let (source, destination) = (self.source.address, self.destination.address);
        let sum = Sum::new()
            .pseudo_header(self.family(), source, destination, Protocol::Udp as u8, segment.len() as u32)
            .bytes(header.as_bytes())
            .bytes(&segment[udp::HEADER_LEN..]);
        header.checksum = U16::new(nonzero(sum.checksum()));
        header
    }
}

/// A UDP datagram whose lengths and checksums are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpDatagram<'a> {
    /// Source address and port.
    pub source: Endpoint,
    /// Destination address and port.
    pub destination: Endpoint,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Opens the datagram in an Ethernet frame.
///
/// # Errors
/// What is wrong first. A datagram without a checksum is not believed: Baton always sends one.
#[inline]
pub fn open_udp_frame(frame: &[u8]) -> Result<UdpDatagram<'_>, OpenError> {
    open(frame, parse(frame))
}

/// Opens the datagram in an IP packet without a link-layer header.
///
/// # Errors
/// As [`open_udp_frame`].
#[inline]
pub fn open_udp_packet(packet: &[u8]) -> Result<UdpDatagram<'_>, OpenError> {
    open(packet, parse_packet(packet))
}

fn open(bytes: &[u8], parsed: Parsed) -> Result<UdpDatagram<'_>, OpenError> {
    let flow = match parsed {
        Parsed::Transport(flow) if flow.key.protocol == Protocol::Udp => flow,
        Parsed::Transport(_) | Parsed::OtherIp(_) | Parsed::NonIp(_) => return Err(OpenError::NotUdp),
        Parsed::Fragment(_) => return Err(OpenError::Fragment),
        Parsed::Malformed(reason) => return Err(OpenError::Malformed(reason)),
    };
    let payload = verified_payload(bytes, &flow)?;
    Ok(UdpDatagram { source: flow.key.source, destination: flow.key.destination, payload })
}

fn verified_payload<'a>(bytes: &'a [u8], flow: &ParsedFlow) -> Result<&'a [u8], OpenError> {
    let segment = bytes.get(usize::from(flow.l4_offset)..flow.end()).ok_or(OpenError::Length)?;
    let (header, payload) = UdpHeader::ref_from_prefix(segment).map_err(|_| OpenError::Length)?;
    if usize::from(header.length.get()) != segment.len() {
        return Err(OpenError::Length);
    }
    let (source, destination) = (flow.key.source.address, flow.key.destination.address);
    let sum = Sum::new()
        .pseudo_header(flow.family, source, destination, Protocol::Udp as u8, segment.len() as u32)
        .bytes(segment);
    if header.checksum.get() == 0 || sum.checksum() != 0 {
        return Err(OpenError::Checksum);
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::{Sample, any_endpoint, any_family, cases, mutated};

    fn path(sample: &Sample) -> UdpPath {
        let (source, destination) = (sample.key.source, sample.key.destination);
        UdpPath { source_mac: [2; 6], next_hop_mac: [4; 6], source, destination }
    }

    #[test]
    fn written_datagram_is_opened_again() {
        for sample in [Sample::udp_v4(), Sample::udp_v6()] {
            let mut frame = [0xee; 200];
            let len = path(&sample).write(&mut frame, b"hello").unwrap();
            assert_eq!(len, payload_offset(sample.family()) + 5);
            let (source, destination) = (sample.key.source, sample.key.destination);
            let expected = UdpDatagram { source, destination, payload: b"hello" };
            assert_eq!(open_udp_frame(&frame[..len]), Ok(expected));
            assert_eq!(open_udp_packet(&frame[14..len]), Ok(expected));
            assert_eq!(open_udp_frame(&frame), Ok(expected), "padding after the packet does not count");
        }
    }

    #[test]
    fn written_frame_carries_both_link_layer_addresses() {
        let mut frame = [0; 100];
        path(&Sample::udp_v4()).write(&mut frame, b"").unwrap();
        assert_eq!(frame[..14], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 8, 0]);
    }

    #[test]
    fn payload_already_in_place_is_sealed() {
        let sample = Sample::udp_v6();
        let (mut copied, mut sealed) = ([0; 100], [0; 100]);
        let len = path(&sample).write(&mut copied, b"payload").unwrap();
        sealed[62..69].copy_from_slice(b"payload");
        assert_eq!(path(&sample).seal(&mut sealed, 7), Ok(len));
        assert_eq!(sealed, copied);
    }

    #[test]
    fn datagram_that_does_not_fit_is_refused_untouched() {
        let mut frame = [0; 46];
        let refused = path(&Sample::udp_v4()).write(&mut frame, b"hello");
        assert_eq!(refused, Err(WriteError::TooLong { needed: 47, available: 46 }));
        assert_eq!(frame, [0; 46]);
        let mut long = vec![0; 70_000];
        let refused = path(&Sample::udp_v4()).seal(&mut long, 66_000);
        assert!(matches!(refused, Err(WriteError::TooLong { .. })));
        assert!(matches!(path(&Sample::udp_v4()).seal(&mut [], usize::MAX), Err(WriteError::TooLong { .. })));
    }

    #[test]
    fn endpoints_of_two_families_are_refused() {
        let mixed = UdpPath { destination: Sample::udp_v6().key.destination, ..path(&Sample::udp_v4()) };
        assert_eq!(mixed.write(&mut [0; 100], b""), Err(WriteError::FamilyMismatch));
    }

    #[test]
    fn checksum_that_comes_out_as_zero_is_sent_as_ones_and_never_left_out() {
        for sample in [Sample::udp_v4(), Sample::udp_v6()] {
            let checksum_at = payload_offset(sample.family()) - 2;
            let mut frame = [0; 100];
            let len = path(&sample).write(&mut frame, &[0, 0]).unwrap();
            // A payload that is the checksum of the rest makes the sum all ones.
            let payload = [frame[checksum_at], frame[checksum_at + 1]];
            path(&sample).write(&mut frame, &payload).unwrap();
            assert_eq!(frame[checksum_at..checksum_at + 2], [0xff, 0xff]);
            assert!(open_udp_frame(&frame[..len]).is_ok());
            frame[checksum_at..checksum_at + 2].fill(0);
            assert!(open_udp_frame(&frame[..len]).is_err());
        }
    }

    #[test]
    fn open_refuses_what_is_not_a_verified_datagram() {
        let mut frame = Sample::udp_v4().frame();
        *frame.last_mut().unwrap() ^= 1;
        assert_eq!(open_udp_frame(&frame), Err(OpenError::Checksum));
        let unprotected = Sample { no_checksum: true, ..Sample::udp_v4() };
        assert_eq!(open_udp_frame(&unprotected.frame()), Err(OpenError::Checksum));
        assert_eq!(open_udp_frame(&Sample::tcp_v4().frame()), Err(OpenError::NotUdp));
        let mut shorter = Sample::udp_v4().frame();
        shorter[39] -= 1;
        assert_eq!(open_udp_frame(&shorter), Err(OpenError::Length));
        let mut fragment = Sample::udp_v4().frame();
        fragment[20] = 0x20;
        Sample::seal_ipv4_header(&mut fragment);
        assert_eq!(open_udp_frame(&fragment), Err(OpenError::Fragment));
        assert_eq!(open_udp_frame(&[0; 5]), Err(OpenError::Malformed(Malformed::EthernetTruncated)));
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn any_payload_arrives_whole(
            (source, destination) in any_family().prop_flat_map(|f| (any_endpoint(f), any_endpoint(f))),
            payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let path = UdpPath { source_mac: [2; 6], next_hop_mac: [4; 6], source, destination };
            let mut frame = [0; 1600];
            let len = path.write(&mut frame, &payload).unwrap();
            prop_assert_eq!(open_udp_frame(&frame[..len]), Ok(UdpDatagram { source, destination, payload: &payload }));
        }

        #[test]
        fn one_changed_bit_is_noticed(bit in 0..(40usize * 8)) {
            let sample = Sample { payload: vec![0x5a; 20], ..Sample::udp_v4() };
            let mut frame = [0; 100];
            let len = path(&sample).write(&mut frame, &sample.payload).unwrap();
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open_udp_frame(&frame[..len]).is_err());
        }

        #[test]
        fn damaged_datagrams_are_taken_calmly(frame in mutated()) {
            let _ = open_udp_frame(&frame);
            let _ = open_udp_packet(&frame);
        }
    }
}
