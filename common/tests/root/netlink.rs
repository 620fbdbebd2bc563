//! The mirror against a real kernel.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use baton_common::flow::Address;
use baton_common::neighbour::{NeighbourReader, Resolution};
use baton_common::netlink::{Mirror, MirrorOptions};

/// Longer than the kernel needs for anything here.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node with interface `punt0` and a router behind it, both up, with addresses and the node's default routes.
fn node_and_router() -> (Namespace, Namespace) {
    let (node, router) = (Namespace::new(), Namespace::new());
    node.ip("link set lo up");
    connect(&node, &router);
    (node, router)
}

fn connect(node: &Namespace, router: &Namespace) {
    node.ip(&format!("link add punt0 type veth peer name up0 netns {}", router.thread()));
    node.ip("addr add 10.2.0.11/24 dev punt0");
    node.ip("addr add fd00:2::11/64 dev punt0 nodad");
    router.ip("addr add 10.2.0.1/24 dev up0");
    router.ip("addr add fd00:2::1/64 dev up0 nodad");
    router.ip("link set up0 address 02:00:00:00:00:01 up");
    node.ip("link set punt0 up");
    node.ip("route add default via 10.2.0.1");
    node.ip("route add default via fd00:2::1");
}

fn start_mirror(node: &Namespace, keep: &[&str]) -> Mirror {
    let keep = keep.iter().map(|text| address(text)).collect();
    node.run(move || Mirror::start(MirrorOptions { interface: "punt0".into(), keep }).unwrap())
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// Waits until the mirror answers as expected, and fails with its last answer if it never does.
fn expect_resolution(mirror: &Mirror, destination: &str, expected: impl Fn(Resolution) -> bool) {
    let mut reader = NeighbourReader::new(mirror.neighbours());
    let begin = Instant::now();
    loop {
        let found = reader.resolve(address(destination));
        if expected(found) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{destination} is still {found:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn reachable(last: u8) -> impl Fn(Resolution) -> bool {
    move |found| found == Resolution::Reachable { mac: [2, 0, 0, 0, 0, last] }
}

#[test]
fn root_routers_are_resolved_without_being_asked_for() {
    let (node, _router) = node_and_router();

    let mirror = start_mirror(&node, &[]);

    expect_resolution(&mirror, "192.0.2.1", reachable(1));
    expect_resolution(&mirror, "2001:db8::1", reachable(1));
}

#[test]
fn root_a_wanted_neighbour_is_resolved_by_the_kernel() {
    let (node, router) = node_and_router();
    router.ip("addr add 10.2.0.7/24 dev up0");
    let mirror = start_mirror(&node, &[]);
    let missing = Resolution::Unresolved { next_hop: address("10.2.0.7") };
    expect_resolution(&mirror, "10.2.0.7", |found| found == missing);

    mirror.resolver().want(address("10.2.0.7"));

    expect_resolution(&mirror, "10.2.0.7", reachable(1));
}

#[test]
fn root_kept_destinations_are_resolved_from_the_start() {
    let (node, router) = node_and_router();
    router.ip("addr add 10.2.0.8/24 dev up0");

    let mirror = start_mirror(&node, &["10.2.0.8", "fd00:2::1"]);

    expect_resolution(&mirror, "10.2.0.8", reachable(1));
    expect_resolution(&mirror, "fd00:2::1", reachable(1));
}

#[test]
fn root_a_changed_link_layer_address_is_followed() {
    let (node, router) = node_and_router();
    let mirror = start_mirror(&node, &[]);
    expect_resolution(&mirror, "10.2.0.1", reachable(1));

    router.ip("link set up0 address 02:00:00:00:00:02");
    node.ip("neigh flush dev punt0");

    expect_resolution(&mirror, "10.2.0.1", reachable(2));
}

#[test]
fn root_changed_routes_are_followed() {
    let (node, router) = node_and_router();
    router.ip("addr add 10.2.0.2/24 dev up0");
    let mirror = start_mirror(&node, &[]);
    expect_resolution(&mirror, "10.3.0.1", reachable(1));

    node.ip("route add 10.3.0.0/24 via 10.2.0.99");
    let next_hop = address("10.2.0.99");
    expect_resolution(&mirror, "10.3.0.1", |found| found == Resolution::Unresolved { next_hop });

    node.ip("route replace 10.3.0.0/24 nexthop via 10.2.0.1 weight 2 nexthop via 10.2.0.2");
    expect_resolution(&mirror, "10.3.0.1", reachable(1));
    expect_resolution(&mirror, "10.3.0.2", reachable(1));

    node.ip("route replace blackhole 10.3.0.0/24");
    expect_resolution(&mirror, "10.3.0.1", |found| found == Resolution::NoRoute);
}

#[test]
fn root_the_interface_may_come_late_and_come_again() {
    let (node, router) = (Namespace::new(), Namespace::new());
    let mirror = start_mirror(&node, &[]);
    expect_resolution(&mirror, "10.2.0.1", |found| found == Resolution::NoRoute);

    connect(&node, &router);
    expect_resolution(&mirror, "10.2.0.1", reachable(1));

    node.ip("link del punt0");
    expect_resolution(&mirror, "10.2.0.1", |found| found == Resolution::NoRoute);

    connect(&node, &router);
    expect_resolution(&mirror, "10.2.0.1", reachable(1));
}
