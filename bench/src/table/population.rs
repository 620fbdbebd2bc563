//! The sessions of the benchmark: each follows from its number alone, so that they need not lie anywhere.

use baton_common::flow::{Address, Endpoint, FlowKey, Protocol};
use baton_common::id::{Generation, NodeId};
use baton_common::session::{Session, SessionState};
use baton_common::time::Millis;
use serde::{Deserialize, Serialize};

/// Most sessions of a population: as many numbers again are of sessions that no table has.
pub const SESSIONS_MAX: u32 = 1 << 25;

/// Fewest sessions: the writer beside a reader needs some to work on.
pub const SESSIONS_MIN: u32 = 1 << 13;

/// The address family of all addresses of a population.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// Which of a session's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Client to virtual address.
    Client,
    /// Real server to local address.
    Server,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Server];
}

/// Sessions 0 to `sessions - 1`: 8 virtual addresses, 32 local ones, 64 real servers, clients from everywhere; one in eight
/// is UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Population {
    /// The address family.
    pub family: Family,
    /// How many there are.
    pub sessions: u32,
    /// Another seed gives other sessions.
    pub seed: u32,
}

impl Population {
    /// Session `number` as it is inserted.
    #[inline]
    pub fn session(&self, number: u32) -> Session {
        let (client, server) = (self.key(number, Side::Client), self.key(number, Side::Server));
        Session {
            protocol: client.protocol,
            client: client.source,
            vip: client.destination,
            local: server.destination,
            server: server.source,
            owner: NodeId(1 + (number & 3) as u16),
            generation: Generation(1 + (number >> 2 & 3)),
            state: match client.protocol {
                Protocol::Tcp => SessionState::TcpEstablished,
                Protocol::Udp => SessionState::UdpTwoWay,
            },
            last_seen: Millis(1_000_000 + u64::from(number & 0xffff)),
            last_sent: Millis(1_000_000),
        }
    }

    /// A key of session `number`, which may be below [`SESSIONS_MAX`].
    #[inline]
    pub fn key(&self, number: u32, side: Side) -> FlowKey {
        let protocol = if number.is_multiple_of(8) { Protocol::Udp } else { Protocol::Tcp };
        let (source, destination) = match side {
            Side::Client => {
                let client = mix(number ^ self.seed);
                let port = 1024 + (mix(client) >> 16) as u16 % 64_000;
                (
                    Endpoint { address: self.client(client), port },
                    Endpoint { address: self.ours(0, client & 7), port: 443 },
                )
            }
            Side::Server => {
                let [server, local, port] = self.places(number);
                (
                    Endpoint { address: self.ours(1, server), port: 8080 },
                    Endpoint { address: self.ours(2, local), port: 1024 + port as u16 },
                )
            }
        };
        FlowKey { source, destination, protocol }
    }

    /// A key that no session of the population has.
    #[inline]
    pub fn absent_key(&self, number: u32, side: Side) -> FlowKey {
        self.key(SESSIONS_MAX + number, side)
    }

    /// Real server, local address and port of a session: no two sessions have all three the same.
    #[inline]
    fn places(&self, number: u32) -> [u32; 3] {
        const MASK: u32 = (1 << 26) - 1;
        // Each step can be undone, so the whole is a permutation of 26 bits.
        let mut place = (number ^ self.seed) & MASK;
        place = place.wrapping_mul(0x2c1b_3c6d) & MASK;
        place ^= place >> 13;
        place = place.wrapping_mul(0x297a_2d39) & MASK;
        place ^= place >> 13;
        [place & 63, place >> 6 & 31, place >> 11]
    }

    #[inline]
    fn client(&self, number: u32) -> Address {
        match self.family {
            Family::V4 => Address::v4(number.to_be_bytes()),
            Family::V6 => {
                let network = 0x2a00_0000_u64 << 32 | u64::from(mix(number) >> 12) << 12;
                let host = u64::from(mix(!number)) << 32 | u64::from(number);
                Address::v6((u128::from(network) << 64 | u128::from(host)).to_be_bytes())
            }
        }
    }

    /// One of the cluster's own addresses: virtual, real server's or local.
    #[inline]
    fn ours(&self, kind: u32, number: u32) -> Address {
        match self.family {
            Family::V4 => Address::v4((0x0a00_0001 + (kind << 16) + number).to_be_bytes()),
            Family::V6 => {
                let address = 0x2001_0db8_u128 << 96 | u128::from(kind) << 64 | u128::from(number + 1);
                Address::v6(address.to_be_bytes())
            }
        }
    }
}

/// A permutation of 32 bits without a pattern (Wellons, "hash prospector": lowbias32).
#[inline]
pub fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

/// A permutation of 64 bits without a pattern (Steele and others: splitmix64).
#[inline]
pub fn mix64(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Random numbers below a bound, with repetitions: which session is asked for next.
#[derive(Clone, Debug)]
pub struct Draws {
    below: u32,
    count: u64,
}

impl Draws {
    /// Numbers below `below`, which depend on nothing but `seed`.
    pub fn new(below: u32, seed: u32) -> Draws {
        Draws { below, count: u64::from(seed) << 32 }
    }

    /// The next one.
    #[inline]
    pub fn next(&mut self) -> u32 {
        self.count += 1;
        (((mix64(self.count) >> 32) * u64::from(self.below)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const COUNT: u32 = 100_000;

    fn population(family: Family) -> Population {
        Population { family, sessions: COUNT, seed: 7 }
    }

    #[test]
    fn no_key_comes_twice() {
        for family in Family::ALL {
            let population = population(family);
            let mut keys = HashSet::new();
            for number in 0..COUNT {
                for side in Side::BOTH {
                    assert!(keys.insert(population.key(number, side)));
                    assert!(keys.insert(population.absent_key(number, side)));
                }
            }
        }
    }

    #[test]
    fn a_session_has_the_keys_that_are_looked_for() {
        for family in Family::ALL {
            let population = population(family);
            for number in [0, 1, 17, COUNT - 1] {
                let session = population.session(number);
                assert_eq!(session.client_key(), population.key(number, Side::Client));
                assert_eq!(session.server_key(), population.key(number, Side::Server));
                assert_eq!(session.client.address.is_v4(), family == Family::V4);
            }
        }
    }

    #[test]
    fn the_places_of_the_largest_population_are_a_permutation() {
        // A permutation is onto: every port that is given out is below 2^15, and steps that can be undone lose nothing.
        let population = population(Family::V4);
        for number in [0, SESSIONS_MAX - 1, SESSIONS_MAX, 2 * SESSIONS_MAX - 1] {
            let [server, local, port] = population.places(number);
            assert!(server < 64 && local < 32 && port < 1 << 15);
        }
    }

    #[test]
    fn draws_cover_the_whole_range_evenly() {
        let mut draws = Draws::new(10, 3);
        let mut counts = [0; 10];
        for _ in 0..10_000 {
            counts[draws.next() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
