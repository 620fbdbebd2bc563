//! Packets for the tests, written byte by byte and without the code under test.

use proptest::prelude::*;
use proptest::sample::Index;

use super::{Family, TcpFlags};
use crate::flow::{Address, Endpoint, FlowKey, Protocol};

/// A property test's configuration: this many cases, and no file written when one fails.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { cases: count, failure_persistence: None, ..ProptestConfig::default() }
}

/// A valid packet to be written.
#[derive(Clone, Debug)]
pub struct Sample {
    pub key: FlowKey,
    pub hop_limit: u8,
    /// Bytes of IPv4 options (a multiple of 4, at most 40) or IPv6 destination options (a multiple of 8).
    pub ip_extra: usize,
    pub tcp_flags: TcpFlags,
    /// UDP over IPv4 without a checksum.
    pub no_checksum: bool,
    pub payload: Vec<u8>,
}

impl Sample {
    pub fn new(source: &str, destination: &str, protocol: Protocol) -> Sample {
        let endpoint = |text: &str| Endpoint::from(text.parse::<std::net::SocketAddr>().unwrap());
        let tcp_flags = if protocol == Protocol::Tcp { TcpFlags::ACK } else { TcpFlags::NONE };
        Sample {
            key: FlowKey { source: endpoint(source), destination: endpoint(destination), protocol },
            hop_limit: 64,
            ip_extra: 0,
            tcp_flags,
            no_checksum: false,
            payload: b"GET / HTTP/1.1\r\n\r\nx".to_vec(),
        }
    }

    pub fn tcp_v4() -> Sample {
        Sample::new("10.1.1.2:40000", "10.9.0.1:80", Protocol::Tcp)
    }

    pub fn udp_v4() -> Sample {
        Sample::new("10.1.1.2:40000", "10.9.0.1:53", Protocol::Udp)
    }

    pub fn tcp_v6() -> Sample {
        Sample::new("[fd00:1:1::2]:40000", "[fd00:9::1]:80", Protocol::Tcp)
    }

    pub fn udp_v6() -> Sample {
        Sample::new("[fd00:1:1::2]:40000", "[fd00:9::1]:53", Protocol::Udp)
    }

    pub fn family(&self) -> Family {
        if self.key.source.address.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The packet as an Ethernet frame.
    pub fn frame(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match self.family() {
            Family::V4 => {
                frame.extend([0x08, 0x00, 0x45 + (self.ip_extra / 4) as u8, 0]);
                frame.extend(((20 + self.ip_extra + segment.len()) as u16).to_be_bytes());
                frame.extend([0x12, 0x34, 0x40, 0, self.hop_limit, self.key.protocol as u8, 0, 0]);
                frame.extend(&self.key.source.address.0[12..]);
                frame.extend(&self.key.destination.address.0[12..]);
                frame.extend(std::iter::repeat_n(1, self.ip_extra)); // no-operation options
                Sample::seal_ipv4_header(&mut frame);
            }
            Family::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 0x01, 0x02, 0x03]);
                frame.extend(((self.ip_extra + segment.len()) as u16).to_be_bytes());
                frame.extend([if self.ip_extra > 0 { 60 } else { self.key.protocol as u8 }, self.hop_limit]);
                frame.extend(self.key.source.address.0);
                frame.extend(self.key.destination.address.0);
                if self.ip_extra > 0 {
                    frame.extend([self.key.protocol as u8, (self.ip_extra / 8 - 1) as u8]);
                    frame.extend(std::iter::repeat_n(0, self.ip_extra - 2)); // Pad1 options
                }
            }
        }
        frame.extend(segment);
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut segment = Vec::new();
        segment.extend(self.key.source.port.to_be_bytes());
        segment.extend(self.key.destination.port.to_be_bytes());
        let checksum_at = match self.key.protocol {
            Protocol::Tcp => {
                segment.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x50, self.tcp_flags.0]);
                segment.extend([0xff, 0xff, 0, 0, 0, 0]);
                16
            }
            Protocol::Udp => {
                segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                segment.extend([0, 0]);
                6
            }
        };
        segment.extend(&self.payload);
        if !self.no_checksum {
            let checksum = transport_checksum(&self.key, &segment);
            segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        segment
    }

    /// Computes the IPv4 header checksum of a frame afresh.
    pub fn seal_ipv4_header(frame: &mut [u8]) {
        let end = 14 + usize::from(frame[14] & 0x0f) * 4;
        frame[24..26].fill(0);
        let checksum = checksum(&frame[14..end]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// RFC 1071's checksum, word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The TCP or UDP checksum of a segment whose checksum field is zero, as it is sent.
pub fn transport_checksum(key: &FlowKey, segment: &[u8]) -> u16 {
    let skip = if key.source.address.is_v4() { 12 } else { 0 };
    let mut bytes = [&key.source.address.0[skip..], &key.destination.address.0[skip..]].concat();
    bytes.extend((segment.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, key.protocol as u8]);
    bytes.extend(segment);
    match checksum(&bytes) {
        0 if key.protocol == Protocol::Udp => 0xffff,
        sum => sum,
    }
}

/// Any endpoint of a family.
pub fn any_endpoint(family: Family) -> impl Strategy<Value = Endpoint> {
    (any::<[u8; 16]>(), any::<u16>()).prop_map(move |(bytes, port)| {
        let address = match family {
            Family::V4 => Address::v4([bytes[0], bytes[1], bytes[2], bytes[3]]),
            Family::V6 => Address::v6([&[0xfd], &bytes[1..]].concat().try_into().unwrap()),
        };
        Endpoint { address, port }
    })
}

/// IPv4 or IPv6.
pub fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

/// Any valid packet with a hop limit above 1.
pub fn any_sample() -> impl Strategy<Value = Sample> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (any_family(), protocol)
        .prop_flat_map(|(family, protocol)| {
            (
                any_endpoint(family),
                any_endpoint(family),
                Just((family, protocol)),
                2..=255u8,
                0..=3usize,
                any::<(u8, bool)>(),
                proptest::collection::vec(any::<u8>(), 0..100),
            )
        })
        .prop_map(
            |(source, destination, (family, protocol), hop_limit, extra, (flags, no_checksum), payload)| {
                Sample {
                    key: FlowKey { source, destination, protocol },
                    hop_limit,
                    ip_extra: extra * if family == Family::V4 { 4 } else { 8 },
                    tcp_flags: TcpFlags(if protocol == Protocol::Tcp { flags } else { 0 }),
                    no_checksum: no_checksum && family == Family::V4 && protocol == Protocol::Udp,
                    payload,
                }
            },
        )
}

/// A packet that was valid before some bytes of its headers changed, its end was cut off, or bytes were added. The IPv4
/// header checksum is put right again half of the time, so that the rest of the parser is reached.
pub fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (any_sample(), changes, any::<Option<Index>>(), 0..8usize, any::<bool>()).prop_map(
        |(sample, changes, cut, added, seal)| {
            let mut frame = sample.frame();
            for (index, value) in changes {
                let headers = frame.len().min(90);
                frame[index.index(headers)] = value;
            }
            if seal && frame[14] >> 4 == 4 && frame.len() >= 14 + usize::from(frame[14] & 0x0f) * 4 {
                Sample::seal_ipv4_header(&mut frame);
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len() + 1));
            }
            frame.resize(frame.len() + added, 0xee);
            frame
        },
    )
}
