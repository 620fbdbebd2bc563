//! Sender and receiver together: what one node's workers report is what the other's remote table holds.

mod datagrams;
mod rules;
mod sealed;
mod shared_table;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::Reject;
use super::event::{Event, EventKind};
use super::fixture::{ModelTable, TIMEOUTS, any_session, session_v4, session_v6};
use super::receiver::{Received, Receiver};
use super::roster::Identity;
use super::seal::{Keyring, Opener, Sealer};
use super::sender::{Sender, SenderConfig};
use super::state::SyncState;
use super::transmit::Transmission;
use super::wire::{HEADER_BYTES, Header, StreamId, payload_bytes_max};
use crate::counter::{Counter, CounterBlock};
use crate::flow::FlowKey;
use crate::id::{NodeId, NumaId};
use crate::session::Session;
use crate::time::{Micros, Millis};

const CLUSTER: u32 = 7;
const SENDER: NodeId = NodeId(2);
const RECEIVER: NodeId = NodeId(1);
const SENDER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 102));
const RECEIVER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 101));
const OTHER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 2, 0, 103));
const EPOCH: u64 = 1000;
const NOW: Millis = Millis(1_000_000);
const FLUSH_US: u32 = 500;

const SENDER_IDENTITY: Identity = Identity { cluster: CLUSTER, node: SENDER, numa: NumaId(0) };

fn sender_config() -> SenderConfig {
    SenderConfig {
        identity: SENDER_IDENTITY,
        peers: vec![RECEIVER_ADDRESS],
        payload_max: payload_bytes_max(1500, false, 0),
        flush_us: FLUSH_US,
        timeouts: TIMEOUTS,
    }
}

/// A node's receiving side: node 1, which knows nodes 2 and 3.
struct Node {
    /// With none, security is off.
    keyring: Option<Arc<Keyring>>,
    state: Box<SyncState>,
    counters: Box<CounterBlock>,
    table: ModelTable,
    local: Vec<FlowKey>,
}

fn members(node: NodeId, _numa: NumaId, address: IpAddr) -> bool {
    node == SENDER && address == SENDER_ADDRESS || node == NodeId(3) && address == OTHER_ADDRESS
}

impl Node {
    fn new() -> Node {
        Node {
            keyring: None,
            state: Box::new(SyncState::new()),
            counters: Box::new(CounterBlock::new()),
            table: ModelTable::new(1000),
            local: Vec::new(),
        }
    }

    fn receive_from(&mut self, source: IpAddr, datagram: &[u8]) -> Result<Received, Reject> {
        let identity = Identity { cluster: CLUSTER, node: RECEIVER, numa: NumaId(0) };
        let opener = self.keyring.clone().map_or_else(Opener::off, Opener::new);
        let mut receiver = Receiver::new(identity, members, TIMEOUTS, opener, &self.state, &self.counters);
        let local = &self.local;
        let result = receiver.receive(source, datagram, NOW, &mut self.table, |key| local.contains(key));
        self.table.assert_consistent();
        result
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<Received, Reject> {
        self.receive_from(SENDER_ADDRESS, datagram)
    }

    /// Every counter that is not zero, except how many datagrams and bytes came.
    fn counted(&self) -> Vec<(Counter, u64)> {
        let traffic = [Counter::SyncRxDatagrams, Counter::SyncRxBytes];
        let counters = Counter::ALL.iter().filter(|counter| !traffic.contains(counter));
        counters
            .map(|counter| (*counter, self.counters.value(*counter)))
            .filter(|(_, value)| *value != 0)
            .collect()
    }
}

/// What a sender makes of these events, all pushed at the same time into one stream.
fn datagrams_of(events: &[Event]) -> Vec<Vec<u8>> {
    let state = SyncState::new();
    state.begin(EPOCH);
    sent(events, Sealer::off(), &state)
}

/// What a sender with this sealer and state makes of these events.
fn sent(events: &[Event], sealer: Sealer, state: &SyncState) -> Vec<Vec<u8>> {
    let counters = CounterBlock::new();
    let mut datagrams = Vec::new();
    let mut out = |_: IpAddr, payload: &[u8]| {
        datagrams.push(payload.to_vec());
        Transmission::Sent
    };
    let mut sender = Sender::new(sender_config(), sealer, state, &counters);
    for event in events {
        sender.push(StreamId::CHANGES, event, Micros(NOW.0 * 1000), &mut out);
    }
    sender.flush_all(&mut out);
    datagrams
}

fn upsert(session: Session) -> Event {
    Event { kind: EventKind::Upsert, session }
}

fn sequence_of(datagram: &[u8]) -> u64 {
    Header::decode(datagram).unwrap().0.sequence
}

#[test]
fn every_peer_gets_the_same_datagram() {
    let state = SyncState::new();
    state.begin(EPOCH);
    let counters = CounterBlock::new();
    let mut sent = Vec::new();
    let mut out = |peer: IpAddr, payload: &[u8]| {
        sent.push((peer, payload.to_vec()));
        if peer == OTHER_ADDRESS { Transmission::QueueFull } else { Transmission::Sent }
    };
    let config = SenderConfig { peers: vec![RECEIVER_ADDRESS, OTHER_ADDRESS], ..sender_config() };
    let mut sender = Sender::new(config, Sealer::off(), &state, &counters);

    sender.push(StreamId::CHANGES, &upsert(session_v4(1)), Micros(0), &mut out);
    sender.flush_all(&mut out);

    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].0, sent[1].0), (RECEIVER_ADDRESS, OTHER_ADDRESS));
    assert_eq!(sent[0].1, sent[1].1);
    assert_eq!(counters.value(Counter::SyncTxDatagrams), 1);
    assert_eq!(counters.value(Counter::SyncTxBytes), sent[0].1.len() as u64);
    assert_eq!(counters.value(Counter::SyncTxFull), 1);
    assert_eq!(counters.value(Counter::SyncTxUpserts), 1, "once, however many peers");
}

#[test]
fn a_datagram_waits_for_flush_us_after_its_first_record_and_no_longer() {
    let state = SyncState::new();
    state.begin(EPOCH);
    let counters = CounterBlock::new();
    let mut sent = 0;
    let mut out = |_: IpAddr, _: &[u8]| {
        sent += 1;
        Transmission::Sent
    };
    let mut sender = Sender::new(sender_config(), Sealer::off(), &state, &counters);
    assert_eq!(sender.next_flush(), None);

    sender.push(StreamId::CHANGES, &upsert(session_v4(1)), Micros(10_000), &mut out);
    sender.push(StreamId::CHANGES, &upsert(session_v4(2)), Micros(10_400), &mut out);
    assert_eq!(sender.next_flush(), Some(Micros(10_500)));
    sender.flush_due(Micros(10_499), &mut out);
    assert_eq!(counters.value(Counter::SyncTxDatagrams), 0);
    sender.flush_due(Micros(10_500), &mut out);

    assert_eq!(counters.value(Counter::SyncTxDatagrams), 1);
    assert_eq!(sender.next_flush(), None);
    sender.flush_due(Micros(99_999), &mut out);
    assert_eq!(sent, 1, "nothing is sent when there is nothing to say");
}

/// Bytes of a datagram that are no upserts: header, service, real server, local address, header of the upserts.
const OVERHEAD_V4: usize = 40 + 11 + 10 + 8 + 4;

#[test]
fn a_full_datagram_is_sent_at_once() {
    let events: Vec<Event> = (0..108).map(|number| upsert(session_v4(number))).collect();

    let datagrams = datagrams_of(&events);

    assert_eq!(
        datagrams.iter().map(Vec::len).collect::<Vec<_>>(),
        [OVERHEAD_V4 + 107 * 13, OVERHEAD_V4 + 13]
    );
    assert_eq!(datagrams.iter().map(|datagram| sequence_of(datagram)).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn sessions_of_another_owner_are_not_reported() {
    let foreign = Session { owner: NodeId(3), ..session_v4(1) };
    assert!(datagrams_of(&[upsert(foreign)]).is_empty());
}

#[test]
fn an_end_does_not_overtake_what_another_stream_has_gathered() {
    let state = SyncState::new();
    state.begin(EPOCH);
    let counters = CounterBlock::new();
    let mut streams = Vec::new();
    let mut out = |_: IpAddr, payload: &[u8]| {
        streams.push(Header::decode(payload).unwrap().0.stream);
        Transmission::Sent
    };
    let mut sender = Sender::new(sender_config(), Sealer::off(), &state, &counters);

    sender.push(StreamId::RANGES, &upsert(session_v4(1)), Micros(0), &mut out);
    let end = Event { kind: EventKind::Delete, session: session_v4(1) };
    sender.push(StreamId::CHANGES, &end, Micros(0), &mut out);
    sender.flush_all(&mut out);

    assert_eq!(streams, [StreamId::RANGES, StreamId::CHANGES]);
}

#[test]
fn a_restarted_sender_goes_on_without_a_gap() {
    let state = SyncState::new();
    let mut node = Node::new();
    for number in 1..=2 {
        state.begin(EPOCH + u64::from(number));
        let counters = CounterBlock::new();
        let mut out = |_: IpAddr, payload: &[u8]| {
            node.receive(payload).unwrap();
            Transmission::Sent
        };
        let mut sender = Sender::new(sender_config(), Sealer::off(), &state, &counters);
        sender.push(StreamId::CHANGES, &upsert(session_v4(number)), Micros(0), &mut out);
        sender.flush_all(&mut out);
    }

    assert_eq!(node.table.sessions.len(), 2);
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 2)]);
}

#[test]
fn a_restarted_receiver_goes_on_where_the_dead_one_stopped() {
    let [first, second, third] = [1, 2, 3].map(|number| upsert(session_v6(number)));
    let many = [vec![first; 55], vec![second; 55], vec![third; 55]].concat();
    let datagrams = datagrams_of(&many);
    let mut node = Node::new();
    node.receive(&datagrams[0]).unwrap();

    // `Node::receive` makes a new receiver each time; only the sync state and the table live on.
    assert_eq!(node.receive(&datagrams[0]), Err(Reject::Duplicate));
    node.receive(&datagrams[2]).unwrap();

    assert_eq!(node.counters.value(Counter::SyncRxGaps), 1);
}

/// What a remote table should hold of a session that was reported just now.
fn expected(session: &Session) -> Session {
    Session { last_seen: NOW, last_sent: Millis(0), ..*session }
}

proptest! {
    #[test]
    fn the_remote_table_becomes_what_the_owner_reported(
        sessions in proptest::collection::vec((any_session(), any::<bool>()), 1..120),
    ) {
        let owned = |session: &Session| Session { owner: SENDER, last_seen: NOW, ..*session };
        let events: Vec<Event> = sessions.iter().map(|(session, _)| upsert(owned(session))).collect();
        let ends = sessions.iter().filter(|(_, ends)| *ends);
        let ends = ends.map(|(session, _)| Event { kind: EventKind::Delete, session: owned(session) });
        let all: Vec<Event> = events.iter().copied().chain(ends).collect();
        let mut node = Node::new();

        for datagram in datagrams_of(&all) {
            prop_assert!(datagram.len() <= 1472);
            prop_assert_eq!(node.receive(&datagram).unwrap().rejected, 0);
        }

        let mut model = ModelTable::new(1000);
        for (session, _) in sessions.iter().filter(|(_, ends)| !ends) {
            super::remote::RemoteTable::insert(&mut model, &expected(&owned(session))).unwrap();
        }
        prop_assert_eq!(node.table.sessions, model.sessions);
    }

    #[test]
    fn any_order_with_duplicates_ends_in_the_same_table(
        sessions in proptest::collection::vec(any_session(), 40..120),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 1..60),
    ) {
        let events: Vec<Event> = sessions
            .iter()
            .map(|session| upsert(Session { owner: SENDER, last_seen: NOW, ..*session }))
            .collect();
        let datagrams = datagrams_of(&events);
        let mut node = Node::new();

        for index in order {
            let _ = node.receive(&datagrams[index.index(datagrams.len())]);
        }
        for datagram in &datagrams {
            let _ = node.receive(datagram);
        }

        prop_assert_eq!(node.table.sessions.len(), events.len());
        prop_assert_eq!(node.counters.value(Counter::SyncRxUpserts), events.len() as u64);
    }

    #[test]
    fn random_bytes_never_panic_and_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut node = Node::new();
        prop_assert!(node.receive(&bytes).is_err());
        prop_assert!(node.table.sessions.is_empty());
        prop_assert_eq!(node.state.peers().count(), 0);
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
        prop_assert!(node.table.sessions.len() <= 2);
    }
}
