//! The kernel's route and neighbour messages, turned into what this project calls a route and a neighbour.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteType, RouteVia,
};

use crate::flow::Address;
use crate::neighbour::{NextHop, Prefix, Route, WeightedHop};

/// What the kernel knows of one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    /// How sure the kernel is of the link-layer address.
    pub state: Reachability,
    /// The link-layer address, if there is one that may be used.
    pub mac: Option<[u8; 6]>,
}

/// How sure the kernel is of a neighbour's link-layer address; its eleven states by what is to be done about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// Usable, and confirmed or being confirmed: REACHABLE, DELAY, PROBE, PERMANENT, NOARP.
    Fresh,
    /// Usable, but not confirmed for a while.
    Stale,
    /// The kernel is asking for it.
    Incomplete,
    /// Nobody answered, or nobody was asked yet.
    Failed,
}

/// The address and state of a neighbour, if the message is about an IP neighbour on this interface.
pub(super) fn neighbour(message: &NeighbourMessage, ifindex: u32) -> Option<(Address, Neighbour)> {
    if message.header.ifindex != ifindex {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLocalAddress(bytes) => mac = <[u8; 6]>::try_from(&bytes[..]).ok(),
            _ => {}
        }
    }
    use NeighbourState as State;
    let state = match message.header.state {
        State::Reachable | State::Delay | State::Probe | State::Permanent | State::Noarp => {
            Reachability::Fresh
        }
        State::Stale => Reachability::Stale,
        State::Incomplete => Reachability::Incomplete,
        _ => Reachability::Failed,
    };
    let usable = matches!(state, Reachability::Fresh | Reachability::Stale);
    Some((address?.into(), Neighbour { state, mac: mac.filter(|_| usable) }))
}

/// The route, if it is one of the main table that leads through this interface or discards.
///
/// Routes by source address or type of service are left out: what chooses them is not the destination alone.
pub(super) fn route(message: &RouteMessage, ifindex: u32) -> Option<Route> {
    let header = &message.header;
    let table = find(message, |attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    if table.unwrap_or(u32::from(header.table)) != u32::from(RouteHeader::RT_TABLE_MAIN)
        || header.flags.intersects(RouteFlags::Cloned | RouteFlags::Dead)
        || header.tos != 0
        || header.source_prefix_length != 0
    {
        return None;
    }
    let hops = match header.kind {
        RouteType::Unicast => hops(message, ifindex),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => Vec::new(),
        _ => return None,
    };
    if hops.is_empty() && header.kind == RouteType::Unicast {
        return None;
    }
    let metric = find(message, |attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    Some(Route { prefix: prefix(message)?, metric: metric.unwrap_or(0), hops })
}

fn prefix(message: &RouteMessage) -> Option<Prefix> {
    let destination = find(message, |attribute| match attribute {
        RouteAttribute::Destination(destination) => Some(ip(destination)),
        _ => None,
    });
    let (address, length_max) = match message.header.address_family {
        AddressFamily::Inet => (destination.unwrap_or(Some([0; 4].into()))?, 32),
        AddressFamily::Inet6 => (destination.unwrap_or(Some([0; 16].into()))?, 128),
        _ => return None,
    };
    let address = Address::from(address);
    let length = message.header.destination_prefix_length;
    // An IPv6 route to IPv4-mapped addresses would be taken for one to IPv4 addresses.
    (length <= length_max && address.is_v4() == (length_max == 32)).then_some(Prefix { address, length })
}

fn hops(message: &RouteMessage, ifindex: u32) -> Vec<WeightedHop> {
    let multipath = find(message, |attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    if let Some(hops) = multipath {
        let usable = |hop: &&RouteNextHop| {
            hop.interface_index == ifindex && !hop.flags.contains(RouteNextHopFlags::Dead)
        };
        return hops
            .iter()
            .filter(usable)
            .map(|hop| WeightedHop { hop: next_hop(&hop.attributes), weight: u16::from(hop.hops) + 1 })
            .collect();
    }
    let through_us = message.attributes.contains(&RouteAttribute::Oif(ifindex));
    through_us.then(|| WeightedHop { hop: next_hop(&message.attributes), weight: 1 }).into_iter().collect()
}

fn next_hop(attributes: &[RouteAttribute]) -> NextHop {
    let gateway = attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(gateway) => ip(gateway),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    });
    gateway.map_or(NextHop::OnLink, |gateway| NextHop::Gateway(gateway.into()))
}

fn find<'a, T>(message: &'a RouteMessage, pick: impl FnMut(&'a RouteAttribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(pick)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const IFINDEX: u32 = 7;

    fn v4_route(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    fn gateway(last: u8) -> RouteAttribute {
        RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 2, 0, last)))
    }

    fn hop(interface_index: u32, last: u8, weight: u8) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface_index;
        hop.hops = weight - 1;
        hop.attributes = vec![gateway(last)];
        hop
    }

    fn to(last: u8) -> NextHop {
        NextHop::Gateway(Address::v4([10, 2, 0, last]))
    }

    #[test]
    fn a_default_route_has_no_destination_attribute() {
        let message = v4_route(RouteType::Unicast, vec![RouteAttribute::Oif(IFINDEX), gateway(1)]);

        let route = route(&message, IFINDEX).unwrap();

        assert_eq!(route.prefix, Prefix { address: Address::v4([0; 4]), length: 0 });
        assert_eq!(route.hops, [WeightedHop { hop: to(1), weight: 1 }]);
    }

    #[test]
    fn a_route_through_another_interface_or_table_is_left_out() {
        let elsewhere = v4_route(RouteType::Unicast, vec![RouteAttribute::Oif(IFINDEX + 1), gateway(1)]);
        let attributes = vec![RouteAttribute::Oif(IFINDEX), gateway(1), RouteAttribute::Table(1000)];
        let other_table = v4_route(RouteType::Unicast, attributes);

        assert_eq!(route(&elsewhere, IFINDEX), None);
        assert_eq!(route(&other_table, IFINDEX), None);
    }

    #[test]
    fn a_multipath_route_keeps_its_living_hops_on_the_interface() {
        let mut dead = hop(IFINDEX, 3, 1);
        dead.flags = RouteNextHopFlags::Dead;
        let hops = vec![hop(IFINDEX, 1, 5), hop(IFINDEX + 1, 2, 1), dead, hop(IFINDEX, 4, 1)];
        let message = v4_route(RouteType::Unicast, vec![RouteAttribute::MultiPath(hops)]);

        let route = route(&message, IFINDEX).unwrap();

        let expected = [WeightedHop { hop: to(1), weight: 5 }, WeightedHop { hop: to(4), weight: 1 }];
        assert_eq!(route.hops, expected);
    }

    #[test]
    fn a_blackhole_route_discards() {
        let message = v4_route(RouteType::BlackHole, vec![]);

        assert_eq!(route(&message, IFINDEX).map(|route| route.hops), Some(vec![]));
    }

    #[test]
    fn an_ipv4_route_may_go_via_an_ipv6_router() {
        let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let attributes = vec![RouteAttribute::Oif(IFINDEX), RouteAttribute::Via(RouteVia::Inet6(router))];

        let route = route(&v4_route(RouteType::Unicast, attributes), IFINDEX).unwrap();

        assert_eq!(route.hops[0].hop, NextHop::Gateway(IpAddr::V6(router).into()));
    }

    #[test]
    fn only_usable_states_have_a_link_layer_address() {
        let in_state = |state| {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = IFINDEX;
            message.header.state = state;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 2, 0, 1))),
                NeighbourAttribute::LinkLocalAddress(vec![2, 0, 0, 0, 0, 1]),
            ];
            let (address, neighbour) = neighbour(&message, IFINDEX).unwrap();
            assert_eq!(address, Address::v4([10, 2, 0, 1]));
            neighbour.mac.is_some()
        };
        use NeighbourState::*;

        assert!(
            [Reachable, Stale, Delay, Probe, Permanent, Noarp].map(in_state).iter().all(|usable| *usable)
        );
        assert!(![Incomplete, Failed, None, Other(0)].map(in_state).iter().any(|usable| *usable));
    }
}
