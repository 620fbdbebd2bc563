//! Datagrams in, table writes out: what a member's secondary says is what a node holds, and nothing that anybody else says.
//!
//! A node makes a new [`Protocol`] for every datagram: only what lies in shared memory lives on, so each of these tests is one of
//! a secondary that restarts all the time too.

mod datagrams;
mod rules;
mod sealed;
mod sending;
mod shared_table;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::Reject;
use super::ageing;
use super::event::{Event, EventKind};
use super::fixture::{TIMEOUTS, any_session, session_v4, session_v6};
use super::protocol::retransmit::ring_words;
use super::protocol::{Held, Member, Place, Protocol, ProtocolConfig, Tables};
use super::roster::Identity;
use super::seal::{Keyring, Sealer};
use super::sim::tables::ModelTables;
use super::state::{PeerSnapshot, SyncState};
use super::transmit::Transmission;
use super::wire::tests::roundtrip::any_body;
use super::wire::{
    BatchWriter, Body, Ended, HEADER_BYTES, Header, Refreshed, Reported, StreamId, payload_bytes_max,
};
use crate::counter::{Counter, CounterBlock};
use crate::flow::FlowKey;
use crate::id::{NodeId, NumaId};
use crate::session::tcp::timeout_ms;
use crate::session::{Direction, Session};
use crate::time::{Micros, Millis};

const CLUSTER: u32 = 7;
const RECEIVER: NodeId = NodeId(1);
const SENDER: NodeId = NodeId(2);
const OTHER: NodeId = NodeId(3);
const SENDER_ADDRESS: IpAddr = address_of(SENDER);
const RECEIVER_ADDRESS: IpAddr = address_of(RECEIVER);
const OTHER_ADDRESS: IpAddr = address_of(OTHER);
const EPOCH: u64 = 1000;
const NOW: Millis = Millis(1_000_000);
const FLUSH_US: u32 = 500;
const PAYLOAD_MAX: usize = payload_bytes_max(1500, false, 0);

const SENDER_IDENTITY: Identity = identity_of(SENDER);

const fn identity_of(node: NodeId) -> Identity {
    Identity { cluster: CLUSTER, node, numa: NumaId(0) }
}

const fn address_of(node: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, 100 + node.0 as u8))
}

/// NOW, as protocols count.
const fn now() -> Micros {
    Micros(NOW.0 * 1000)
}

/// What became of the records of an accepted datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Received {
    applied: u64,
    rejected: u64,
}

/// What lives as long as a node: what its secondary has in shared memory, and its keys. Nodes 1 to 4 are members.
struct Node<T = ModelTables> {
    node: NodeId,
    /// With none, security is off.
    keyring: Option<Arc<Keyring>>,
    state: Box<SyncState>,
    ring: Vec<AtomicU64>,
    counters: Box<CounterBlock>,
    tables: T,
}

impl Node {
    /// Node 1, which has nothing.
    fn new() -> Node {
        Node::of(RECEIVER)
    }

    fn of(node: NodeId) -> Node {
        Node::with_tables(node, ModelTables::new(256, 128))
    }
}

impl<T: Tables> Node<T> {
    fn with_tables(node: NodeId, tables: T) -> Node<T> {
        let state = Box::new(SyncState::new());
        state.begin(EPOCH);
        let ring = (0..ring_words(PAYLOAD_MAX)).map(|_| AtomicU64::new(0)).collect();
        Node { node, keyring: None, state, ring, counters: Box::new(CounterBlock::new()), tables }
    }

    /// Has a secondary do something in its short life.
    fn act<R>(&mut self, act: impl FnOnce(&mut Protocol<'_>, &mut T) -> R) -> R {
        self.act_with_state(|protocol, tables, _| act(protocol, tables))
    }

    /// The same, while something happens to the state behind its back.
    fn act_with_state<R>(&mut self, act: impl FnOnce(&mut Protocol<'_>, &mut T, &SyncState) -> R) -> R {
        let members: Vec<Member> =
            (1..=4).map(NodeId).map(|node| Member { node, addresses: vec![address_of(node)] }).collect();
        let config = ProtocolConfig {
            identity: identity_of(self.node),
            datagram_bytes_max: PAYLOAD_MAX,
            flush_us: FLUSH_US,
            timeouts: TIMEOUTS,
            ranges: 16,
            tombstones: 64,
            tombstone_ms: 3000,
            digest_ms: 1000,
            ready_timeout_ms: 20_000,
            ready_fraction: 1.0,
            config_digest: 1,
            keyring: self.keyring.clone(),
        };
        let Node { state, ring, counters, tables, .. } = self;
        let mut protocol = Protocol::new(config, &members, state, ring, counters, tables, now());
        act(&mut protocol, tables, state)
    }

    fn receive_from(&mut self, source: IpAddr, datagram: &[u8]) -> Result<Received, Reject> {
        let before = self.records();
        let mut out = |_: IpAddr, _: &[u8]| Transmission::Sent;
        self.act(|protocol, tables| protocol.on_datagram(source, datagram, now(), tables, &mut out))?;
        self.assert_consistent();
        let after = self.records();
        Ok(Received { applied: after.applied - before.applied, rejected: after.rejected - before.rejected })
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<Received, Reject> {
        self.receive_from(SENDER_ADDRESS, datagram)
    }

    /// What became of all peers' records so far.
    fn records(&self) -> Received {
        let sum = |of: fn(&PeerSnapshot) -> u64| self.state.peers().map(|peer| of(&peer)).sum();
        Received { applied: sum(|peer| peer.records), rejected: sum(|peer| peer.rejects) }
    }

    /// What is remembered of those who were ever listened to. A member has a place in the state before it is.
    fn heard(&self) -> Vec<PeerSnapshot> {
        self.state.peers().filter(|peer| peer.boot_epoch != 0).collect()
    }

    /// Every counter that is not zero, except how many datagrams and bytes came, and what was sent.
    fn counted(&self) -> Vec<(Counter, u64)> {
        let is_traffic = |counter: Counter| {
            [Counter::SyncRxDatagrams, Counter::SyncRxBytes].contains(&counter)
                || counter.name().starts_with("sync_tx_")
        };
        let counters = Counter::ALL.iter().filter(|counter| !is_traffic(**counter));
        counters
            .map(|counter| (*counter, self.counters.value(*counter)))
            .filter(|(_, value)| *value != 0)
            .collect()
    }

    /// Every session, by place.
    fn places(&self) -> Vec<(Place, Session)> {
        let places = (0..self.tables.places()).map(Place);
        places.filter_map(|place| self.tables.session(place).map(|session| (place, session))).collect()
    }

    /// Every session, by client-side key.
    fn sessions(&self) -> HashMap<FlowKey, Session> {
        self.places().into_iter().map(|(_, session)| (session.client_key(), session)).collect()
    }

    /// Each session is found under both its keys, unless it was given up.
    fn assert_consistent(&self) {
        for (place, session) in self.places().into_iter().filter(|(_, session)| session.owner != NodeId(0)) {
            let held = |direction| Some(Held { place, direction, session });
            assert_eq!(self.tables.find(&session.client_key()), held(Direction::Inbound));
            assert_eq!(self.tables.find(&session.server_key()), held(Direction::Outbound));
        }
    }
}

/// What its owner says of a session.
fn body_of(event: &Event) -> Body {
    let Session { generation, state, client, vip, local, server, .. } = event.session;
    let remaining_ms = ageing::remaining_ms(&event.session, &TIMEOUTS, NOW);
    match event.kind {
        EventKind::Upsert | EventKind::Claim => {
            Body::Upsert(Reported { generation, state, remaining_ms, client, vip, local, server })
        }
        EventKind::Delete => Body::Delete(Ended { generation, state, client, vip }),
        EventKind::Refresh => Body::Refresh(Refreshed { generation, state, remaining_ms, client, vip }),
    }
}

/// The datagrams in which node 2 says this of its sessions.
fn datagrams_of(events: &[Event]) -> Vec<Vec<u8>> {
    let state = SyncState::new();
    state.begin(EPOCH);
    sent(events, Sealer::off(), &state)
}

/// What node 2 sends with this sealer and state.
fn sent(events: &[Event], sealer: Sealer, state: &SyncState) -> Vec<Vec<u8>> {
    let bodies: Vec<Body> = events.iter().map(body_of).collect();
    sent_by(SENDER_IDENTITY, StreamId::CHANGES, &bodies, sealer, state)
}

fn sent_by(
    sender: Identity,
    stream: StreamId,
    bodies: &[Body],
    mut sealer: Sealer,
    state: &SyncState,
) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    let mut batch = BatchWriter::new(PAYLOAD_MAX - sealer.overhead_bytes());
    let mut flush = |batch: &mut BatchWriter| {
        let header = Header {
            cluster: sender.cluster,
            node: sender.node,
            numa: sender.numa,
            key: sealer.key(),
            to: None,
            stream,
            boot_epoch: state.boot_epoch(),
            sequence: state.take_sequence(stream),
            membership_epoch: 0,
        };
        let datagram = batch.datagram(&header);
        sealer.seal(&header, datagram).unwrap();
        datagrams.push(datagram.clone());
        batch.clear();
    };
    for body in bodies {
        if batch.push(body).is_err() {
            flush(&mut batch);
            batch.push(body).unwrap();
        }
    }
    if !batch.is_empty() {
        flush(&mut batch);
    }
    datagrams
}

fn upsert(session: Session) -> Event {
    Event { kind: EventKind::Upsert, session }
}

fn sequence_of(datagram: &[u8]) -> u64 {
    Header::decode(datagram).unwrap().0.sequence
}

#[test]
fn a_restarted_receiver_goes_on_where_the_dead_one_stopped() {
    let [first, second, third] = [1, 2, 3].map(|number| upsert(session_v6(number)));
    let many = [vec![first; 55], vec![second; 55], vec![third; 55]].concat();
    let datagrams = datagrams_of(&many);
    let mut node = Node::new();
    node.receive(&datagrams[0]).unwrap();

    assert_eq!(node.receive(&datagrams[0]), Err(Reject::Duplicate));
    node.receive(&datagrams[2]).unwrap();

    assert_eq!(node.counters.value(Counter::SyncRxGaps), 1);
}

/// A session as its owner, node 2, has it, and what the others' tables should hold of it.
fn owned(session: &Session, last_seen: Millis) -> Session {
    Session { owner: SENDER, last_seen, last_sent: Millis(0), ..*session }
}

proptest! {
    #[test]
    fn the_remote_table_becomes_what_the_owner_reported(
        sessions in proptest::collection::vec((any_session(), any::<bool>()), 1..120),
    ) {
        // What ends was idle for its timeout: otherwise somebody could have a use for it.
        let of = |session: &Session, ends: bool| {
            let idle_ms = if ends { timeout_ms(session.state, &TIMEOUTS) } else { 0 };
            owned(session, NOW - u64::from(idle_ms))
        };
        let news = sessions.iter().map(|(session, ends)| upsert(of(session, *ends)));
        let ends = sessions.iter().filter(|(_, ends)| *ends);
        let ends = ends.map(|(session, _)| Event { kind: EventKind::Delete, session: of(session, true) });
        let all: Vec<Event> = news.chain(ends).collect();
        let mut node = Node::new();

        for datagram in datagrams_of(&all) {
            prop_assert!(datagram.len() <= 1472);
            prop_assert_eq!(node.receive(&datagram).unwrap().rejected, 0);
        }

        let left = sessions.iter().filter(|(_, ends)| !ends).map(|(session, _)| of(session, false));
        let left: HashMap<FlowKey, Session> = left.map(|session| (session.client_key(), session)).collect();
        prop_assert_eq!(node.sessions(), left);
        prop_assert_eq!(node.tables.violation, None);
    }

    #[test]
    fn any_order_with_duplicates_ends_in_the_same_table(
        sessions in proptest::collection::vec(any_session(), 40..120),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 1..60),
    ) {
        let events: Vec<Event> = sessions.iter().map(|session| upsert(owned(session, NOW))).collect();
        let datagrams = datagrams_of(&events);
        let mut node = Node::new();

        for index in order {
            let _ = node.receive(&datagrams[index.index(datagrams.len())]);
        }
        for datagram in &datagrams {
            let _ = node.receive(datagram);
        }

        prop_assert_eq!(node.sessions().len(), events.len());
        prop_assert_eq!(node.counters.value(Counter::SyncRxUpserts), events.len() as u64);
    }

    #[test]
    fn random_bytes_never_panic_and_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut node = Node::new();
        prop_assert!(node.receive(&bytes).is_err());
        prop_assert!(node.sessions().is_empty());
        prop_assert_eq!(node.heard(), []);
    }

    #[test]
    fn random_records_after_a_valid_header_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let header = datagrams_of(&[upsert(session_v4(1))])[0][..HEADER_BYTES].to_vec();
        let received = Node::new().receive(&[header, bytes.clone()].concat()).unwrap();
        prop_assert!((received.applied + received.rejected) as usize <= bytes.len());
    }

    #[test]
    fn a_flipped_bit_never_panics(byte: prop::sample::Index, bit in 0u8..8) {
        let mut datagram = datagrams_of(&[upsert(session_v4(1)), upsert(session_v6(1))])[0].clone();
        let byte = byte.index(datagram.len());
        datagram[byte] ^= 1 << bit;
        let mut node = Node::new();
        let _ = node.receive(&datagram);
        prop_assert!(node.sessions().len() <= 2);
    }

    /// Every kind of record, in every stream, whether it makes sense there or not, to one secondary that also works on it.
    #[test]
    fn no_member_can_say_what_makes_a_secondary_panic(
        said in proptest::collection::vec((2u16..5, 0usize..4, any_body()), 1..60),
    ) {
        let state = SyncState::new();
        state.begin(EPOCH);
        let mut node = Node::new();
        let mine = Session { owner: RECEIVER, last_sent: NOW, ..session_v4(1) };
        node.tables.insert_local(&mine).unwrap();
        let mut out = |_: IpAddr, datagram: &[u8]| {
            assert!(datagram.len() <= PAYLOAD_MAX);
            Transmission::Sent
        };

        node.act(|protocol, tables| {
            let mut now = now();
            for (sender, stream, body) in said {
                let sender = NodeId(sender);
                for datagram in sent_by(identity_of(sender), StreamId::ALL[stream], &[body], Sealer::off(), &state) {
                    protocol.on_datagram(address_of(sender), &datagram, now, tables, &mut out).unwrap();
                }
                now = Micros(now.0 + 20_000);
                protocol.poll(now, tables, &mut out);
            }
        });

        node.assert_consistent();
    }
}
