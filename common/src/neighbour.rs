//! Neighbours and routes: which link-layer address a packet to an IP address is sent to.
//!
//! [`Neighbours`] is an immutable snapshot of what the kernel knows of one interface. The thread that mirrors the kernel
//! builds a new one whenever something changed and swaps it in; workers read it through a [`NeighbourReader`] each,
//! without a lock, an allocation or a system call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};
use prefix_trie::PrefixMap;

use crate::flow::{Address, address_words};

/// The snapshot that is valid now, shared between the thread that mirrors the kernel and the workers.
pub type SharedNeighbours = Arc<ArcSwap<Neighbours>>;

/// What is to be done with a packet to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Send it to this link-layer address.
    Reachable {
        /// The next hop's link-layer address.
        mac: [u8; 6],
    },
    /// The next hop is known, its link-layer address is not: ask for it.
    Unresolved {
        /// Whom to ask for.
        next_hop: Address,
    },
    /// No route leads there.
    NoRoute,
}

/// The addresses that a route covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address of the prefix; it says which family the prefix belongs to.
    pub address: Address,
    /// Leading bits that count, 0..=32 for IPv4, 0..=128 for IPv6.
    pub length: u8,
}

/// Where a route sends its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Straight to the destination: it is on the link.
    OnLink,
    /// To this router. It may be of the other address family (RFC 8950).
    Gateway(Address),
}

/// One of a route's next hops and its share of the destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightedHop {
    /// Where to.
    pub hop: NextHop,
    /// Share, in proportion to the other hops' weights; 0 counts as 1.
    pub weight: u16,
}

/// A route as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations.
    pub prefix: Prefix,
    /// Among routes to the same prefix the lowest metric is used; those of equal metric share the destinations.
    pub metric: u32,
    /// Where packets go to. Empty: the route discards them (blackhole, unreachable, prohibit).
    pub hops: Vec<WeightedHop>,
}

/// An immutable snapshot of the routes through one interface and of the link-layer addresses known there.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Tells snapshots apart; 0 only for the empty default.
    epoch: u64,
    v4: PrefixMap<(u32, u8), Hops>,
    v6: PrefixMap<(u128, u8), Hops>,
    macs: HashMap<Address, [u8; 6]>,
}

/// The hops of the routes chosen for one prefix.
#[derive(Clone, Debug, Default)]
struct Hops {
    /// `None` before the first route.
    metric: Option<u32>,
    hops: Vec<WeightedHop>,
    weight_total: u64,
}

impl Neighbours {
    /// Builds a snapshot. Link-layer addresses stand under the address of the neighbour itself.
    pub fn new(routes: &[Route], macs: impl IntoIterator<Item = (Address, [u8; 6])>) -> Neighbours {
        static EPOCH: AtomicU64 = AtomicU64::new(1);
        let mut neighbours = Neighbours {
            epoch: EPOCH.fetch_add(1, Ordering::Relaxed),
            macs: macs.into_iter().collect(),
            ..Neighbours::default()
        };
        for route in routes {
            neighbours.add_route(route);
        }
        neighbours
    }

    /// Makes this the first snapshot of a shared cell.
    pub fn into_shared(self) -> SharedNeighbours {
        Arc::new(ArcSwap::from_pointee(self))
    }

    fn add_route(&mut self, route: &Route) {
        let Prefix { address, length } = route.prefix;
        match address.to_v4() {
            Some(octets) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                self.v4.entry((u32::from_be_bytes(octets) & mask, length)).or_default().merge(route);
            }
            None => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                self.v6.entry((u128::from_be_bytes(address.0) & mask, length)).or_default().merge(route);
            }
        }
    }

    /// The neighbour that packets to `destination` are sent to: the destination itself if it is on the link.
    ///
    /// Of several hops of equal metric, the destination's hash decides, so a destination keeps its hop.
    #[inline]
    pub fn next_hop(&self, destination: Address) -> Option<Address> {
        let hops = match destination.to_v4() {
            Some(octets) => self.v4.get_lpm(&(u32::from_be_bytes(octets), 32)).map(|(_, hops)| hops),
            None => self.v6.get_lpm(&(u128::from_be_bytes(destination.0), 128)).map(|(_, hops)| hops),
        };
        match hops?.choose(destination)? {
            NextHop::OnLink => Some(destination),
            NextHop::Gateway(gateway) => Some(gateway),
        }
    }

    /// The link-layer address of a neighbour on the link.
    #[inline]
    pub fn mac(&self, neighbour: Address) -> Option<[u8; 6]> {
        self.macs.get(&neighbour).copied()
    }

    /// What is to be done with a packet to `destination`.
    #[inline]
    pub fn resolve(&self, destination: Address) -> Resolution {
        let Some(next_hop) = self.next_hop(destination) else { return Resolution::NoRoute };
        match self.mac(next_hop) {
            Some(mac) => Resolution::Reachable { mac },
            None => Resolution::Unresolved { next_hop },
        }
    }
}

impl Hops {
    /// Takes in one more route to this prefix.
    fn merge(&mut self, route: &Route) {
        match self.metric {
            Some(metric) if metric < route.metric => return,
            Some(metric) if metric == route.metric => {}
            _ => *self = Hops { metric: Some(route.metric), ..Hops::default() },
        }
        self.hops.extend(&route.hops);
        self.weight_total = self.hops.iter().map(|hop| u64::from(hop.weight.max(1))).sum();
    }

    fn choose(&self, destination: Address) -> Option<NextHop> {
        if let [only] = self.hops[..] {
            return Some(only.hop);
        }
        // The high half of the mixed hash, scaled to the sum of the weights.
        let mut point = ((mix(destination) >> 32) * self.weight_total) >> 32;
        for hop in &self.hops {
            let weight = u64::from(hop.weight.max(1));
            if point < weight {
                return Some(hop.hop);
            }
            point -= weight;
        }
        None
    }
}

/// Spreads an address over 64 bits. It chooses cache slots and paths only, so nobody gains by steering it.
#[inline]
fn mix(address: Address) -> u64 {
    let [high, low] = address_words(address);
    let product = u128::from(high ^ 0x9e37_79b9_7f4a_7c15) * u128::from(low ^ 0xe703_7ed1_a0b4_28db);
    let folded = (product as u64) ^ (product >> 64) as u64;
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

const CACHE_SLOTS: usize = 256;

/// A worker's view of the shared snapshot, with the last destinations' answers at hand.
///
/// The cache is direct-mapped, 256 entries. An answer counts only while the snapshot it came from is the valid one.
pub struct NeighbourReader {
    snapshot: Cache<SharedNeighbours, Arc<Neighbours>>,
    answers: Box<[Answer; CACHE_SLOTS]>,
}

#[derive(Clone, Copy)]
struct Answer {
    epoch: u64,
    destination: Address,
    resolution: Resolution,
}

impl NeighbourReader {
    /// A reader of the shared snapshot, for one thread.
    pub fn new(shared: SharedNeighbours) -> NeighbourReader {
        let unused =
            Answer { epoch: u64::MAX, destination: Address::default(), resolution: Resolution::NoRoute };
        NeighbourReader { snapshot: Cache::new(shared), answers: Box::new([unused; CACHE_SLOTS]) }
    }

    /// What is to be done with a packet to `destination`, by the snapshot that is valid now.
    #[inline]
    pub fn resolve(&mut self, destination: Address) -> Resolution {
        let neighbours = self.snapshot.load();
        let answer = &mut self.answers[mix(destination) as usize % CACHE_SLOTS];
        if answer.epoch != neighbours.epoch || answer.destination != destination {
            let resolution = neighbours.resolve(destination);
            *answer = Answer { epoch: neighbours.epoch, destination, resolution };
        }
        answer.resolution
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn prefix(text: &str) -> Prefix {
        let (base, length) = text.split_once('/').unwrap();
        Prefix { address: address(base), length: length.parse().unwrap() }
    }

    fn route(to: &str, metric: u32, hops: &[NextHop]) -> Route {
        let hops = hops.iter().map(|&hop| WeightedHop { hop, weight: 1 }).collect();
        Route { prefix: prefix(to), metric, hops }
    }

    fn via(gateway: &str) -> NextHop {
        NextHop::Gateway(address(gateway))
    }

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn the_longest_prefix_wins_in_each_family() {
        let neighbours = Neighbours::new(
            &[
                route("0.0.0.0/0", 0, &[via("10.2.0.1")]),
                route("10.2.0.0/24", 0, &[NextHop::OnLink]),
                route("10.2.0.64/26", 0, &[via("10.2.0.2")]),
                route("::/0", 1024, &[via("fd00:2::1")]),
                route("fd00:2::/64", 256, &[NextHop::OnLink]),
            ],
            [],
        );

        assert_eq!(neighbours.next_hop(address("192.0.2.1")), Some(address("10.2.0.1")));
        assert_eq!(neighbours.next_hop(address("10.2.0.9")), Some(address("10.2.0.9")));
        assert_eq!(neighbours.next_hop(address("10.2.0.65")), Some(address("10.2.0.2")));
        assert_eq!(neighbours.next_hop(address("2001:db8::1")), Some(address("fd00:2::1")));
        assert_eq!(neighbours.next_hop(address("fd00:2::9")), Some(address("fd00:2::9")));
    }

    #[test]
    fn an_ipv6_default_route_takes_no_ipv4_packets() {
        let neighbours = Neighbours::new(&[route("::/0", 0, &[via("fd00:2::1")])], []);

        assert_eq!(neighbours.resolve(address("10.0.0.1")), Resolution::NoRoute);
    }

    #[test]
    fn a_resolution_says_what_is_missing() {
        let neighbours = Neighbours::new(
            &[route("10.2.0.0/24", 0, &[NextHop::OnLink]), route("10.3.0.0/24", 0, &[via("10.2.0.1")])],
            [(address("10.2.0.1"), MAC)],
        );

        assert_eq!(neighbours.resolve(address("10.3.0.7")), Resolution::Reachable { mac: MAC });
        let asked = Resolution::Unresolved { next_hop: address("10.2.0.7") };
        assert_eq!(neighbours.resolve(address("10.2.0.7")), asked);
        assert_eq!(neighbours.resolve(address("10.4.0.7")), Resolution::NoRoute);
    }

    #[test]
    fn the_lowest_metric_wins_in_any_order() {
        let near = route("0.0.0.0/0", 10, &[via("10.2.0.1")]);
        let far = route("0.0.0.0/0", 20, &[via("10.2.0.2")]);

        for routes in [[near.clone(), far.clone()], [far, near]] {
            let neighbours = Neighbours::new(&routes, []);
            assert_eq!(neighbours.next_hop(address("192.0.2.1")), Some(address("10.2.0.1")));
        }
    }

    #[test]
    fn a_discarding_route_hides_the_default_route() {
        let neighbours = Neighbours::new(
            &[route("0.0.0.0/0", 0, &[via("10.2.0.1")]), route("10.9.0.0/16", 0, &[])],
            [(address("10.2.0.1"), MAC)],
        );

        assert_eq!(neighbours.resolve(address("10.9.0.1")), Resolution::NoRoute);
    }

    #[test]
    fn weighted_hops_share_destinations_in_proportion() {
        let hops = vec![
            WeightedHop { hop: via("10.2.0.1"), weight: 3 },
            WeightedHop { hop: via("10.2.0.2"), weight: 1 },
        ];
        let neighbours = Neighbours::new(&[Route { prefix: prefix("0.0.0.0/0"), metric: 0, hops }], []);

        let first = (0..40_000u32)
            .filter(|i| {
                let destination = Address::v4((0x0a01_0000 + i).to_be_bytes());
                neighbours.next_hop(destination) == Some(address("10.2.0.1"))
            })
            .count();

        assert!((29_000..31_000).contains(&first), "{first} of 40000 took the hop with 3/4 of the weight");
    }

    #[test]
    fn a_reader_follows_the_snapshot_in_spite_of_its_cache() {
        let routes = [route("10.2.0.0/24", 0, &[NextHop::OnLink])];
        let shared = Neighbours::new(&routes, [(address("10.2.0.1"), MAC)]).into_shared();
        let mut reader = NeighbourReader::new(shared.clone());
        assert_eq!(reader.resolve(address("10.2.0.1")), Resolution::Reachable { mac: MAC });

        let moved = [2, 0, 0, 0, 0, 2];
        shared.store(Arc::new(Neighbours::new(&routes, [(address("10.2.0.1"), moved)])));

        assert_eq!(reader.resolve(address("10.2.0.1")), Resolution::Reachable { mac: moved });
    }

    proptest! {
        #[test]
        fn a_reader_answers_as_the_snapshot_does(
            routes in prop::collection::vec((any::<u32>(), 0u8..=32, 0u32..3, 0u8..4), 0..40),
            destinations in prop::collection::vec(any::<u32>(), 1..200),
        ) {
            let routes: Vec<Route> = routes
                .into_iter()
                .map(|(base, length, metric, hops)| Route {
                    prefix: Prefix { address: Address::v4(base.to_be_bytes()), length },
                    metric,
                    hops: (0..hops)
                        .map(|n| WeightedHop { hop: NextHop::Gateway(Address::v4([10, 2, 0, n])), weight: 1 })
                        .collect(),
                })
                .collect();
            let snapshot = Arc::new(Neighbours::new(&routes, [(Address::v4([10, 2, 0, 1]), MAC)]));
            let mut reader = NeighbourReader::new(Arc::new(ArcSwap::new(snapshot.clone())));

            for destination in destinations {
                let destination = Address::v4(destination.to_be_bytes());
                prop_assert_eq!(reader.resolve(destination), snapshot.resolve(destination));
                let expected = longest_match(&routes, destination).map(|best| {
                    best.iter().map(|hop| hop.hop).collect::<Vec<_>>()
                });
                match (snapshot.next_hop(destination), expected) {
                    (None, expected) => prop_assert!(expected.is_none_or(|hops| hops.is_empty())),
                    (Some(hop), expected) => prop_assert!(expected.unwrap().contains(&NextHop::Gateway(hop))),
                }
            }
        }
    }

    /// The hops of the best routes to an IPv4 destination, found by trying every route.
    fn longest_match(routes: &[Route], destination: Address) -> Option<Vec<WeightedHop>> {
        let bits = |a: Address| u32::from_be_bytes(a.to_v4().unwrap());
        let covers = |p: &Prefix| {
            (bits(p.address) ^ bits(destination)).checked_shr(32 - u32::from(p.length)).unwrap_or(0) == 0
        };
        let matching: Vec<&Route> = routes.iter().filter(|r| covers(&r.prefix)).collect();
        let length = matching.iter().map(|r| r.prefix.length).max()?;
        let longest = matching.iter().filter(|r| r.prefix.length == length);
        let metric = longest.clone().map(|r| r.metric).min()?;
        Some(longest.filter(|r| r.metric == metric).flat_map(|r| r.hops.clone()).collect())
    }
}
