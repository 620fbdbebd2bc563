//! Nodes that compare what they have.

use super::*;
use crate::counter::Counter;
use crate::flow::Endpoint;
use crate::sync::protocol::mutation::Mutation;
use crate::sync::protocol::net::{Durable, Net, durables};
use crate::sync::protocol::readiness::ReadyState;
use crate::sync::sim::network::Weather;
use crate::sync::sim::random::Random;

impl Net<'_> {
    /// Compares at node 1 with node 2.
    fn compare(&mut self) -> Comparison {
        self.begin();
        self.run(15_000);
        assert_eq!(self.refusals, []);
        self.comparison()
    }

    fn begin(&mut self) {
        let now = self.clock().millis();
        self.hosts[0].protocol.compare(NodeId(2), now).unwrap();
    }

    fn comparison(&self) -> Comparison {
        self.hosts[0].protocol.comparison().unwrap().clone()
    }
}

/// Nodes whose repair by digests is off: what differs goes on to differ.
fn broken(durables: &[Durable], ranges: u16) -> Net<'_> {
    let mut net = Net::new(durables, ranges, None);
    for host in &mut net.hosts {
        host.protocol.mutation = Mutation::NoDigests;
    }
    net
}

/// The differences, in short: what, whose, and the client.
fn found(comparison: &Comparison) -> Vec<(DifferenceKind, u16, Endpoint)> {
    assert_eq!(comparison.state, ComparisonState::Done);
    assert_eq!(
        (comparison.unconfirmed, comparison.ranges_skipped, comparison.differences_unlisted),
        (0, 0, 0)
    );
    comparison.differences.iter().map(|one| (one.kind, one.owner.0, one.client)).collect()
}

#[test]
fn equal_nodes_have_no_differences_and_nothing_changes() {
    let durables = durables(3);
    let mut net = broken(&durables, 64);
    for host in [0, 0, 1, 2, 1, 0] {
        net.open(host);
    }
    net.run(100);
    let before = net.everything();

    let comparison = net.compare();

    assert!(comparison.is_equal());
    assert_eq!((comparison.sessions, comparison.ranges), (5, 128), "node 3's own are nobody's business");
    assert!(comparison.elapsed_ms < 100);
    assert_eq!(net.everything(), before);
}

#[test]
fn each_kind_of_difference_is_found_on_either_side() {
    let durables = durables(3);
    let mut net = broken(&durables, 64);
    for _ in 0..200 {
        net.open(0);
        net.open(1);
    }
    let [missing_here, older_here, taken_here] = std::array::from_fn(|_| net.open(1));
    let [missing_there, older_there] = std::array::from_fn(|_| net.open(0));
    let lost_by_its_owner = net.open(1);
    net.run(100);
    net.lose(0, &missing_here);
    net.change(0, &older_here, NodeId(2), 0);
    net.change(0, &taken_here, NodeId(3), 2);
    net.lose(1, &missing_there);
    net.change(1, &older_there, NodeId(1), 7);
    net.lose(1, &lost_by_its_owner);
    let before = net.everything();

    let comparison = net.compare();

    let mut found = found(&comparison);
    found.sort_unstable_by_key(|(_, owner, client)| (*owner, client.address));
    let expected = [
        (DifferenceKind::MissingThere, 1, missing_there.client),
        (DifferenceKind::Generation, 1, older_there.client),
        (DifferenceKind::MissingHere, 2, missing_here.client),
        (DifferenceKind::Generation, 2, older_here.client),
        (DifferenceKind::Owner, 2, taken_here.client),
        (DifferenceKind::MissingThere, 2, lost_by_its_owner.client),
    ];
    assert_eq!(found, expected);
    let generations = comparison.differences.iter().find(|one| one.client == older_there.client).unwrap();
    let [here, there] = [&generations.here, &generations.there].map(|side| side.as_ref().unwrap().generation);
    assert_eq!((here, there), (1, 7));
    assert_eq!(net.everything(), before, "it only looks");
    assert!(comparison.ranges_differing <= 6 && comparison.sessions >= 406);
}

#[test]
fn a_range_of_thousands_of_sessions_is_compared_one_by_one() {
    let durables = durables(2);
    let mut net = broken(&durables, 2);
    for _ in 0..4000 {
        net.open(1);
        if net.opened.is_multiple_of(20) {
            net.run(1);
        }
    }
    let lost = net.open(1);
    net.run(500);
    net.lose(0, &lost);
    net.network.weather = Weather { loss: 50_000, delay_us: 2000, ..Weather::default() };
    let before = net.everything();

    let comparison = net.compare();

    assert_eq!(found(&comparison), [(DifferenceKind::MissingHere, 2, lost.client)]);
    assert!(comparison.sessions >= 4001, "{}", comparison.sessions);
    assert_eq!(net.everything(), before);
}

#[test]
fn what_is_on_its_way_is_no_difference() {
    for seed in 1..=4 {
        let durables = durables(2);
        let mut net = broken(&durables, 8);
        net.random = Random::new(seed);
        net.network.weather =
            Weather { loss: 100_000, duplicates: 50_000, delay_us: 5000, ..Weather::default() };
        let mut open = Vec::new();
        net.load(1000, &mut open);
        net.begin();
        net.load(6000, &mut open);
        let comparison = net.comparison();
        assert_eq!(found(&comparison), [], "seed {seed}");
        assert!(comparison.ranges_differing > 0, "seed {seed}: there was something on its way");
    }
}

#[test]
fn a_difference_is_found_among_what_is_on_its_way() {
    let durables = durables(2);
    let mut net = broken(&durables, 8);
    net.network.weather = Weather { loss: 100_000, delay_us: 5000, ..Weather::default() };
    let (here, there) = (net.open(1), net.open(0));
    let mut open = Vec::new();
    net.load(1000, &mut open);
    net.lose(0, &here);
    net.lose(1, &there);
    net.begin();
    net.load(6000, &mut open);
    let expected =
        [(DifferenceKind::MissingHere, 2, here.client), (DifferenceKind::MissingThere, 1, there.client)];
    assert_eq!(found(&net.comparison()), expected);
}

#[test]
fn a_silent_peer_ends_the_comparison() {
    let durables = durables(2);
    let mut net = broken(&durables, 64);
    net.open(1);
    net.run(100);
    net.network.cut(1, 0, u64::MAX);
    net.begin();
    net.run(2900);
    assert_eq!(net.comparison().state, ComparisonState::Running);
    net.run(200);
    let comparison = net.comparison();
    assert_eq!((comparison.state, comparison.ranges), (ComparisonState::TimedOut, 0));
    assert!(!comparison.is_equal());
    net.network.heal();
    assert!(net.compare().is_equal(), "the next one is another matter");
}

#[test]
fn a_peer_that_falls_silent_halfway_ends_the_comparison_too() {
    let durables = durables(2);
    let mut net = broken(&durables, 64);
    let lost = net.open(1);
    net.run(100);
    net.lose(0, &lost);
    for cut_after in [0, 300, 550, 1100] {
        net.begin();
        net.run(cut_after);
        net.network.cut(1, 0, u64::MAX);
        net.run(10_000);
        assert_eq!(net.comparison().state, ComparisonState::TimedOut, "after {cut_after} ms");
        net.network.heal();
        net.run(100);
    }
}

#[test]
fn a_comparison_takes_the_place_of_the_one_under_way() {
    let durables = durables(2);
    let mut net = broken(&durables, 64);
    net.begin();
    net.run(1);
    assert!(net.compare().is_equal());
    let now = net.clock().millis();
    assert_eq!(net.hosts[0].protocol.compare(NodeId(1), now), Err(CompareError::NoPeer(NodeId(1))));
    assert_eq!(net.hosts[0].protocol.compare(NodeId(9), now), Err(CompareError::NoPeer(NodeId(9))));
    assert!(net.comparison().is_equal(), "what was refused changes nothing");
}

#[test]
fn more_differences_than_there_is_room_for_are_counted() {
    let durables = durables(2);
    let mut net = broken(&durables, 16);
    let sessions: Vec<Session> = (0..5000).map(|_| net.open(1)).collect();
    net.run(500);
    sessions.iter().for_each(|session| net.lose(0, session));

    let comparison = net.compare();

    assert_eq!(comparison.state, ComparisonState::Done);
    assert_eq!((comparison.differences.len(), comparison.ranges_differing), (DIFFERENCES_MAX, 16));
    let counted = comparison.differences_unlisted + comparison.unconfirmed;
    assert_eq!(comparison.differences.len() as u64 + counted, 5000);
    assert!(!comparison.is_equal());
}

#[test]
fn both_nodes_may_compare_at_once() {
    let durables = durables(2);
    let mut net = broken(&durables, 64);
    let lost = net.open(1);
    net.run(100);
    net.lose(0, &lost);
    let now = net.clock().millis();
    net.hosts[1].protocol.compare(NodeId(1), now).unwrap();
    assert_eq!(found(&net.compare()), [(DifferenceKind::MissingHere, 2, lost.client)]);
    let at_the_peer = net.hosts[1].protocol.comparison().unwrap();
    assert_eq!(found(at_the_peer), [(DifferenceKind::MissingThere, 2, lost.client)]);
}

#[test]
fn a_comparison_leaves_a_full_sync_alone() {
    let durables = durables(2);
    let mut net = Net::new(&durables, 16, None);
    let mut sessions = Vec::new();
    for number in 0..4000 {
        sessions.push((number % 2, net.open(number % 2)));
        if number % 50 == 0 {
            net.run(1);
        }
    }
    net.run(100);
    net.reboot(0);
    for _ in 0..50 {
        // Another one before the last can have ended, on both nodes.
        net.begin();
        let now = net.clock().millis();
        net.hosts[1].protocol.compare(NodeId(1), now).unwrap();
        net.run(100);
    }
    assert_eq!(net.hosts[0].protocol.readiness().state(), ReadyState::Ready);
    for (owner, session) in &sessions {
        let owners = [0, 1].map(|host| net.held(host, session).map(|held| held.session.owner));
        assert_eq!(owners, [Some(NodeId(*owner as u16 + 1)); 2]);
    }
    assert!(net.compare().is_equal());
    for Durable { counters, .. } in &durables {
        assert_eq!(counters.value(Counter::RequestsRefused), 0);
        assert_eq!(counters.value(Counter::RangesGivenUp), 0);
    }
}

#[test]
fn a_view_reads_as_people_write_it() {
    let durables = durables(2);
    let mut net = broken(&durables, 64);
    let lost = net.open(1);
    net.run(100);
    net.lose(0, &lost);
    let view = serde_json::to_value(net.compare()).unwrap();
    assert_eq!((&view["state"], &view["node"]), (&"done".into(), &2.into()));
    let difference = &view["differences"][0];
    assert_eq!(difference["kind"], "missing_here");
    assert_eq!(difference["client"], lost.client.to_string());
    assert_eq!(difference["there"]["local"], lost.local.to_string());
    assert!(difference["here"].is_null());
}
