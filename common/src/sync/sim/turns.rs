//! Turns of events that seeds seldom bring about: each goes well, and does not without the rule that it is about.

use super::cluster::{Cluster, SECOND};
use super::network::Weather;
use super::node::Durable;
use crate::flow::{Address, Endpoint, FlowKey, Protocol};
use crate::packet::TcpFlags;
use crate::sync::protocol::Tables;
use crate::sync::protocol::mutation::Mutation;

const TICK: u64 = 1_000;
const MS: u64 = 1_000;

/// Two nodes that are ready and have nothing, in fair weather. Their key space has so many ranges.
fn two_nodes<'a>(durable: &'a [Durable], mutation: Mutation, ranges: u16) -> Cluster<'a> {
    two_nodes_of(1, durable, mutation, ranges)
}

/// The same; what the weather does follows from the seed.
fn two_nodes_of<'a>(seed: u64, durable: &'a [Durable], mutation: Mutation, ranges: u16) -> Cluster<'a> {
    let mut cluster = Cluster::new(seed, durable, mutation);
    cluster.nodes.iter_mut().for_each(|node| node.ranges = ranges);
    cluster.calm_down();
    cluster.run_for(3 * SECOND, TICK, false);
    assert!(cluster.all_ready());
    cluster
}

fn durable() -> Vec<Durable> {
    (0..2).map(|_| Durable::new()).collect()
}

fn client(number: u8) -> FlowKey {
    FlowKey {
        source: Endpoint { address: Address::v4([10, 1, 1, number]), port: 40_000 },
        destination: Endpoint { address: Address::v4([10, 9, 0, 1]), port: 80 },
        protocol: Protocol::Tcp,
    }
}

impl Cluster<'_> {
    /// A packet of a client's comes to a node.
    fn client_sends_to(&mut self, node: usize, key: FlowKey, flags: TcpFlags) {
        let server = Endpoint { address: Address::v4([10, 3, 1, key.source.address.0[15]]), port: 8080 };
        let node = &mut self.nodes[node];
        let clock = node.clock(self.now).millis();
        node.worker.inbound(key, flags, server, clock, &mut node.tables);
    }

    /// A client opens a connection through a node.
    fn connect(&mut self, node: usize, key: FlowKey) {
        self.begin(node, key);
        self.client_sends_to(node, key, TcpFlags::ACK);
    }

    /// A client's SYN comes to a node, and the server's answer to that.
    fn begin(&mut self, node: usize, key: FlowKey) {
        self.client_sends_to(node, key, TcpFlags::SYN);
        let held = &mut self.nodes[node];
        let session = held.tables.find(&key).expect("it was opened a moment ago").session;
        let clock = held.clock(self.now).millis();
        held.worker.outbound(session.server_key(), TcpFlags(0x12), clock, &mut held.tables);
    }

    fn holds(&self, node: usize, key: FlowKey) -> bool {
        self.nodes[node].tables.find(&key).is_some()
    }
}

/// Whether a node has a session shortly after it missed it, which had gone there while its owner kept silent.
fn is_found_when_missed(mutation: Mutation) -> bool {
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 32);
    cluster.connect(0, client(1));
    cluster.run_for(200 * MS, TICK, false);
    let node = &mut cluster.nodes[1];
    let place = node.tables.find(&client(1)).expect("it was told").place;
    node.tables.take_out(place);
    cluster.client_sends_to(1, client(1), TcpFlags::ACK);
    cluster.run_for(50 * MS, TICK, false);
    cluster.holds(1, client(1))
}

#[test]
fn what_a_worker_misses_is_asked_for() {
    assert!(is_found_when_missed(Mutation::None));
    assert!(!is_found_when_missed(Mutation::NoQueries));
}

/// Whether a session is known to the node that the client's answer to the server's SYN-ACK goes to, shortly after it came there.
fn is_found_amid_its_handshake(mutation: Mutation) -> bool {
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 32);
    cluster.begin(0, client(1));
    cluster.run_for(20 * MS, TICK, false);
    assert!(!cluster.holds(1, client(1)), "nobody is told of a handshake that goes well");
    cluster.client_sends_to(1, client(1), TcpFlags::ACK);
    cluster.run_for(50 * MS, TICK, false);
    let is_found = cluster.holds(1, client(1));
    cluster.client_sends_to(1, client(1), TcpFlags::ACK);
    cluster.run_for(50 * MS, TICK, false);
    let owner = cluster.nodes[0].tables.find(&client(1)).map(|held| held.session.owner.0);
    assert_eq!(owner, Some(if is_found { 2 } else { 1 }), "who gets the client's answer claims the session");
    is_found
}

#[test]
fn a_session_is_found_amid_its_handshake() {
    assert!(is_found_amid_its_handshake(Mutation::None));
    assert!(!is_found_amid_its_handshake(Mutation::HandshakesAreKept));
}

/// Whether news that was lost is there as soon as later news has shown that it is missing.
fn comes_again_when_lost(mutation: Mutation) -> bool {
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 32);
    let until = cluster.now + SECOND;
    cluster.network.cut(0, 1, until);
    cluster.connect(0, client(1));
    cluster.run_for(10 * MS, TICK, false);
    cluster.network.heal();
    cluster.connect(0, client(2));
    cluster.run_for(50 * MS, TICK, false);
    assert!(cluster.holds(1, client(2)));
    cluster.holds(1, client(1))
}

#[test]
fn what_was_lost_is_sent_again() {
    assert!(comes_again_when_lost(Mutation::None));
    assert!(!comes_again_when_lost(Mutation::NoNacks));
}

/// Whether news of a session that comes after its end brings it back.
fn comes_back_after_its_end(mutation: Mutation) -> bool {
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 32);
    let until = cluster.now + SECOND;
    cluster.network.cut(0, 1, until);
    cluster.connect(0, client(1));
    cluster.run_for(10 * MS, TICK, false);
    cluster.network.heal();
    cluster.client_sends_to(0, client(1), TcpFlags::RST);
    let mut came_back = false;
    for _ in 0..100 {
        cluster.run_for(MS, TICK, false);
        came_back |= cluster.holds(1, client(1));
    }
    came_back
}

#[test]
fn late_news_of_what_has_ended_resurrects_nothing() {
    assert!(!comes_back_after_its_end(Mutation::None));
    assert!(comes_back_after_its_end(Mutation::NoTombstones));
}

/// Whether a session whose end a node has never heard is gone there when digests were compared.
fn goes_though_its_end_was_lost(mutation: Mutation) -> bool {
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 32);
    cluster.connect(0, client(1));
    cluster.run_for(100 * MS, TICK, false);
    let until = cluster.now + SECOND;
    cluster.network.cut(0, 1, until);
    cluster.client_sends_to(0, client(1), TcpFlags::RST);
    cluster.run_for(10 * MS, TICK, false);
    // What the node asks for does not arrive, until it has given up asking.
    cluster.network.heal();
    cluster.network.cut(1, 0, until);
    cluster.run_for(SECOND, TICK, false);
    assert!(cluster.holds(1, client(1)));
    cluster.run_for(3 * SECOND, TICK, false);
    !cluster.holds(1, client(1))
}

#[test]
fn what_a_complete_range_does_not_have_goes() {
    assert!(goes_though_its_end_was_lost(Mutation::None));
    assert!(!goes_though_its_end_was_lost(Mutation::NothingIsPurged));
}

/// Whether a node loses living sessions while a range of several datagrams comes to it with losses.
fn loses_living_sessions(mutation: Mutation, seed: u64) -> bool {
    const SESSIONS: u8 = 60;
    let durable = durable();
    let mut cluster = two_nodes_of(seed, &durable, mutation, 1);
    (1..=SESSIONS).for_each(|number| cluster.connect(0, client(number)));
    cluster.run_for(200 * MS, TICK, false);
    // A session is missing: the range is to come again as a whole.
    let until = cluster.now + SECOND;
    cluster.network.cut(0, 1, until);
    cluster.connect(0, client(SESSIONS + 1));
    cluster.run_for(10 * MS, TICK, false);
    cluster.network.heal();
    cluster.network.cut(1, 0, until);
    cluster.run_for(SECOND, TICK, false);
    cluster.network.heal();
    cluster.network.weather = Weather { loss: 400_000, ..Weather::default() };
    let mut lost = false;
    for _ in 0..1200 {
        cluster.run_for(10 * MS, TICK, false);
        lost |= (1..=SESSIONS).any(|number| !cluster.holds(1, client(number)));
    }
    lost
}

#[test]
fn an_incomplete_range_takes_nothing_away() {
    // Of the datagrams of a range, one must get lost and the last one come.
    let seed = (1..=40).find(|seed| loses_living_sessions(Mutation::IncompleteRangesPurge, *seed));
    assert!(!loses_living_sessions(Mutation::None, seed.expect("weather that shows the bug")));
}

/// Whether a node that lost everything calls itself ready before it has what the other one has.
fn is_ready_with_less(mutation: Mutation) -> bool {
    const SESSIONS: u8 = 60;
    let durable = durable();
    let mut cluster = two_nodes(&durable, mutation, 16);
    (1..=SESSIONS).for_each(|number| cluster.connect(0, client(number)));
    cluster.run_for(200 * MS, TICK, false);
    let now = cluster.now;
    cluster.nodes[1].crash(now, now + 100 * MS);
    cluster.run_for(100 * MS, TICK, false);
    for _ in 0..10_000 {
        cluster.run_for(MS, TICK, false);
        if cluster.is_ready(1) {
            return (1..=SESSIONS).any(|number| !cluster.holds(1, client(number)));
        }
    }
    panic!("not ready after ten seconds");
}

#[test]
fn a_node_is_ready_when_it_has_what_the_others_have() {
    assert!(!is_ready_with_less(Mutation::None));
    assert!(is_ready_with_less(Mutation::ReadyAtOnce));
}
