//! How many sessions a datagram holds.

use super::*;

const DOCUMENT: &str = include_str!("../../../../../docs/wire-format.md");

/// What encryption adds to a datagram: key number and nonce before it, the tag behind it.
const SEALED: usize = 24 + 16;

const SERVICES: u64 = 8;
const SERVERS: u64 = 32;
const LOCALS: u64 = 4;

/// Numbers without a pattern (SplitMix64; Steele, Lea and Flood, 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How the addresses of a cluster were chosen.
#[derive(Clone, Copy, Debug)]
enum Addresses {
    /// IPv4.
    V4,
    /// IPv6, with hosts counted from 1.
    V6,
    /// IPv6, with hosts that have 64 bits without a pattern (RFC 7217), each kind in so many subnets.
    V6Opaque { subnets: u64 },
}

impl Addresses {
    fn of(self, net: u8, number: u64) -> Address {
        match self {
            Addresses::V4 => Address::v4([10, net, (number >> 8) as u8, number as u8 + 1]),
            Addresses::V6 => {
                let mut octets = [0; 16];
                (octets[0], octets[3]) = (0xfd, net);
                octets[8..].copy_from_slice(&(number + 1).to_be_bytes());
                Address::v6(octets)
            }
            Addresses::V6Opaque { subnets } => {
                let mut octets = [0; 16];
                (octets[0], octets[3], octets[7]) = (0xfd, net, (number % subnets) as u8);
                octets[8..].copy_from_slice(&mix(number << 8 | u64::from(net)).to_be_bytes());
                Address::v6(octets)
            }
        }
    }

    /// A client from anywhere.
    fn client(self, number: u64) -> Endpoint {
        let (high, low) = (mix(number), mix(!number));
        let address = match self {
            Addresses::V4 => {
                let [a, b, c, d, ..] = high.to_be_bytes();
                Address::v4([a % 223 + 1, b, c, d])
            }
            _ => {
                let mut octets = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
                octets[0] = 0x20;
                Address::v6(octets)
            }
        };
        Endpoint { address, port: low as u16 }
    }

    /// A session of one of 32 real servers, which belong to 8 services; `order` says which.
    fn session(self, number: u64, order: fn(u64) -> u64) -> Reported {
        let server = order(number) % SERVERS;
        let endpoint = |net, host, port| Endpoint { address: self.of(net, host), port };
        let service = server % SERVICES;
        reported(
            [
                self.client(number),
                endpoint(9, service, 443),
                endpoint(4, mix(number) % LOCALS, 1024 + (mix(number) >> 50) as u16),
                endpoint(3, server, 8443),
            ],
            0,
        )
    }
}

/// How many sessions a datagram takes, on average over many.
fn sessions_per_datagram(addresses: Addresses, bytes_max: usize, order: fn(u64) -> u64) -> (u32, f64) {
    const DATAGRAMS: u32 = 50;
    let mut batch = BatchWriter::new(bytes_max);
    let (mut fewest, mut all, mut number) = (u32::MAX, 0, 0);
    for _ in 0..DATAGRAMS {
        while batch.push(&Body::Upsert(addresses.session(number, order))).is_ok() {
            number += 1;
        }
        assert!(batch.datagram(&header()).len() <= bytes_max);
        fewest = fewest.min(batch.records());
        all += batch.records();
        batch.clear();
    }
    (fewest, f64::from(all) / f64::from(DATAGRAMS))
}

const ONE_SUBNET: Addresses = Addresses::V6Opaque { subnets: 1 };
const TWO_SUBNETS: Addresses = Addresses::V6Opaque { subnets: 2 };

/// One server after the other: every datagram names all of them, and each is in another subnet than the one before.
fn in_turn(number: u64) -> u64 {
    number
}

#[test]
fn a_datagram_of_mtu_1500_holds_60_sessions_of_ipv4_or_36_of_ipv6() {
    let cases = [
        (Addresses::V4, mix as fn(u64) -> u64, 60),
        (Addresses::V4, in_turn, 60),
        (Addresses::V6, mix, 36),
        (Addresses::V6, in_turn, 36),
        (ONE_SUBNET, mix, 36),
        (ONE_SUBNET, in_turn, 36),
        (TWO_SUBNETS, mix, 36),
    ];
    for (addresses, order, least) in cases {
        for sync_ipv6 in [false, true] {
            let bytes_max = payload_bytes_max(1500, sync_ipv6, SEALED);
            let (fewest, _) = sessions_per_datagram(addresses, bytes_max, order);
            assert!(fewest >= least, "{fewest} sessions, {addresses:?}, sync over IPv6: {sync_ipv6}");
        }
    }
}

#[test]
fn larger_datagrams_hold_more_in_proportion() {
    for (addresses, least) in [(Addresses::V4, 60), (Addresses::V6, 36), (TWO_SUBNETS, 36)] {
        for (mtu, proportion) in [(8000, 8000.0 / 1500.0), (9000, 6.0)] {
            let bytes_max = payload_bytes_max(mtu, true, SEALED);
            let (_, average) = sessions_per_datagram(addresses, bytes_max, mix);
            assert!(average >= f64::from(least) * proportion, "{average} sessions, {addresses:?}, MTU {mtu}");
        }
    }
}

#[test]
fn the_document_states_how_many_sessions_a_datagram_holds() {
    for (addresses, name) in [
        (Addresses::V4, "IPv4"),
        (Addresses::V6, "IPv6, hosts counted"),
        (ONE_SUBNET, "IPv6, opaque hosts"),
        (TWO_SUBNETS, "IPv6, opaque hosts in two subnets"),
    ] {
        for mtu in [1500, 8000] {
            let bytes_max = payload_bytes_max(mtu, true, SEALED);
            let (fewest, average) = sessions_per_datagram(addresses, bytes_max, mix);
            let bytes = bytes_max as f64 / average;
            let row = format!("| {mtu} | {name} | {average:.1} | {fewest} | {bytes:.1} |");
            assert!(DOCUMENT.contains(&row), "docs/wire-format.md lacks: {row}");
        }
    }
}

#[test]
fn the_document_states_the_size_of_every_item() {
    assert!(DOCUMENT.contains(&format!("| at least {DATAGRAM_BYTES_MIN} |")));
    for kind in RecordType::ALL {
        let (number, bytes) = (*kind as u8, kind.item_bytes());
        let bytes = if bytes == 0 { "varies".to_string() } else { bytes.to_string() };
        let found = DOCUMENT.lines().filter(|line| line.starts_with(&format!("| {number} |")));
        let found: Vec<&str> = found.collect();
        assert_eq!(found.len(), 1, "one row for {kind:?}");
        assert!(found[0].contains(&format!("| {bytes} |")), "{kind:?} has {bytes} bytes: {}", found[0]);
    }
}
