//! Tests of the reports: real rings and tables in a temporary directory, a real protocol, and a link that may have no room.

use std::net::IpAddr;

use baton_common::config::Timeouts;
use baton_common::flow::{Address, Endpoint, Protocol as Transport};
use baton_common::id::{Generation, NodeId, NumaId};
use baton_common::session::table::{SessionTable, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::shm::ring::{self, Producer};
use baton_common::sync::event::{Event, EventKind};
use baton_common::sync::protocol::retransmit::ring_words;
use baton_common::sync::protocol::{Member, ProtocolConfig};
use baton_common::sync::roster::Identity;
use baton_common::sync::state::SyncState;
use baton_common::sync::tables::WorkerTable;
use baton_common::sync::transmit::Transmission;
use baton_common::sync::wire::{Body, Header, Reader, StreamId};
use baton_common::time::Millis;

use super::*;

const NODE: NodeId = NodeId(1);
const FLUSH_US: u32 = 100;
const RING_SLOTS: u32 = 16;
const TABLE_SLOTS: u32 = 2048;

/// One worker, its secondary, and what it told its only peer of sessions.
struct Stage {
    directory: tempfile::TempDir,
    producer: Producer,
    writer: TableWriter,
    tables: SharedTables,
    reports: Reports,
    protocol: Protocol<'static>,
    counters: &'static CounterBlock,
    state: &'static SyncState,
    sent: Vec<Body>,
    has_room: bool,
    now: Micros,
}

impl Stage {
    fn new() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let events = FileKind::EventRing.path(directory.path(), 0);
        ring::create(&events, FileKind::EventRing, RING_SLOTS, EVENT_BYTES as u32).unwrap();
        for kind in [FileKind::LocalTable, FileKind::RemoteTable] {
            SessionTable::create(&kind.path(directory.path(), 0), kind, TABLE_SLOTS).unwrap();
        }
        let local = FileKind::LocalTable.path(directory.path(), 0);
        let writer = TableWriter::attach(&local, FileKind::LocalTable).unwrap();
        let counters: &'static CounterBlock = Box::leak(Box::default());
        let state: &'static SyncState = Box::leak(Box::new(SyncState::new()));
        state.begin(7);
        let now = Micros(1_000_000);
        let (tables, reports, protocol) = Stage::secondary(&directory, state, counters, now);
        let producer = Producer::attach(&events, FileKind::EventRing).unwrap();
        let (sent, has_room) = (Vec::new(), true);
        Stage { directory, producer, writer, tables, reports, protocol, counters, state, sent, has_room, now }
    }

    fn secondary(
        directory: &tempfile::TempDir,
        state: &'static SyncState,
        counters: &'static CounterBlock,
        now: Micros,
    ) -> (SharedTables, Reports, Protocol<'static>) {
        let path = |kind: FileKind| kind.path(directory.path(), 0);
        let events = Consumer::attach(&path(FileKind::EventRing), FileKind::EventRing).unwrap();
        let sources = vec![Source::new(WorkerId(0), events, RING_SLOTS, TABLE_SLOTS)];
        let remote = TableWriter::attach(&path(FileKind::RemoteTable), FileKind::RemoteTable).unwrap();
        let table = TableReader::attach(&path(FileKind::LocalTable), FileKind::LocalTable, 0).unwrap();
        let tables = SharedTables::new(remote, vec![WorkerTable { table, is_reported: true }]);
        let config = ProtocolConfig {
            identity: Identity { cluster: 1, node: NODE, numa: NumaId(0) },
            datagram_bytes_max: 1472,
            flush_us: FLUSH_US,
            timeouts: Timeouts {
                tcp_handshake_ms: 10_000,
                tcp_established_ms: 600_000,
                tcp_closing_ms: 60_000,
                tcp_closed_ms: 5_000,
                udp_ms: 30_000,
                remote_margin_ms: 15_000,
            },
            ranges: 16,
            tombstones: 1024,
            tombstone_ms: 10_000,
            digest_ms: 2_000,
            ready_timeout_ms: 30_000,
            ready_fraction: 1.0,
            config_digest: 1,
            keyring: None,
        };
        let member = |node, host| Member { node, addresses: vec![IpAddr::from([10, 2, 0, host])] };
        let members = [member(NODE, 101), member(NodeId(2), 102)];
        let ring: Vec<_> = (0..ring_words(1472)).map(|_| Default::default()).collect();
        let protocol = Protocol::new(config, &members, state, Box::leak(ring.into()), counters, &tables, now);
        (tables, Reports::new(sources, counters), protocol)
    }

    /// What a successor of a killed secondary finds.
    fn restart(self) -> Stage {
        let Stage { directory, producer, writer, counters, state, sent, has_room, now, .. } = self;
        drop(self.tables);
        let (tables, reports, protocol) = Stage::secondary(&directory, state, counters, now);
        Stage { directory, producer, writer, tables, reports, protocol, counters, state, sent, has_room, now }
    }

    /// Puts a session into the worker's table and reports it; whether the ring had room.
    fn report(&mut self, session: Session) -> bool {
        let slot = self.writer.insert(&session).unwrap();
        self.writer.set_last_sent(slot, Millis(1));
        let event = Event { kind: EventKind::Upsert, session };
        let notice = Notice::Session { event, home: Home::Local, slot };
        let told = self.producer.try_push(&notice.encode());
        if !told {
            self.producer.dirty().mark(slot.0, TABLE_SLOTS);
        }
        told
    }

    fn poll_after(&mut self, micros: u64) -> bool {
        self.now = Micros(self.now.0 + micros);
        let (sent, has_room) = (&mut self.sent, self.has_room);
        let mut out = |_: IpAddr, payload: &[u8]| {
            if !has_room {
                return Transmission::QueueFull;
            }
            let (header, bytes) = Header::decode(payload).unwrap();
            if header.stream == StreamId::CHANGES {
                sent.extend(Reader::new().records(bytes).map(|record| record.unwrap().body));
            }
            Transmission::Sent
        };
        let Stage { protocol, tables, .. } = self;
        let mut listener = Listener { protocol, tables, out: &mut out };
        let work = self.reports.poll(self.now, &mut listener);
        self.protocol.poll(self.now, &mut self.tables, &mut out);
        work
    }

    fn clients_sent(&self) -> Vec<u16> {
        let client = |body: &Body| match body {
            Body::Upsert(reported) => Some(reported.client.port),
            Body::Delete(ended) => Some(ended.client.port),
            Body::Refresh(refreshed) => Some(refreshed.client.port),
            _ => None,
        };
        self.sent.iter().filter_map(client).collect()
    }
}

fn session(number: u16) -> Session {
    let endpoint = |net, port| Endpoint { address: Address::v4([10, net, 0, 1]), port };
    Session {
        protocol: Transport::Tcp,
        client: endpoint(1, number),
        vip: endpoint(9, 80),
        local: endpoint(4, number),
        server: endpoint(3, 8080),
        owner: NODE,
        generation: Generation(1),
        state: SessionState::TcpEstablished,
        last_seen: Millis(900),
        last_sent: Millis(0),
    }
}

#[test]
fn events_are_sent_together_when_the_first_is_due() {
    let mut stage = Stage::new();
    for number in 1..=3 {
        assert!(stage.report(session(number)));
    }
    assert!(stage.poll_after(0));
    assert!(stage.clients_sent().is_empty());
    stage.poll_after(FLUSH_US.into());
    assert_eq!(stage.clients_sent(), [1, 2, 3]);
}

#[test]
fn an_event_that_was_not_sent_is_read_again_by_a_successor() {
    let mut stage = Stage::new();
    stage.report(session(1));
    stage.poll_after(FLUSH_US.into());
    stage.poll_after(FLUSH_US.into());
    stage.poll_after(FLUSH_US.into());
    stage.report(session(2));
    stage.poll_after(0);
    let mut stage = stage.restart();
    stage.poll_after(FLUSH_US.into());
    stage.poll_after(FLUSH_US.into());
    let clients = stage.clients_sent();
    assert_eq!(clients[..2], [1, 2], "the first is sent once, the second at least once: {clients:?}");
    assert!(!clients[2..].contains(&1));
}

#[test]
fn without_room_to_send_events_wait_and_what_was_sent_can_be_had_again() {
    let mut stage = Stage::new();
    stage.has_room = false;
    stage.report(session(1));
    stage.poll_after(0);
    stage.poll_after(FLUSH_US.into());
    assert!(stage.counters.value(Counter::SyncTxFull) > 0);
    for number in 2..=40 {
        stage.report(session(number));
    }
    assert!(!stage.poll_after(1), "the link is left alone for a while");

    stage.has_room = true;
    while stage.poll_after(PAUSE_US) {}
    stage.poll_after(PAUSE_US);

    let clients = stage.clients_sent();
    assert!((2..=40).all(|number| clients.contains(&number)), "{clients:?}");
    let lost = (1..=stage.state.last_sequence(StreamId::CHANGES)).count() - {
        let sent = stage.counters.value(Counter::SyncTxDatagrams) as usize;
        sent.min(stage.state.last_sequence(StreamId::CHANGES) as usize)
    };
    assert!(lost <= 2, "a number is used once, whatever becomes of its datagram");
}

#[test]
fn a_full_ring_is_made_up_for_by_going_through_the_table() {
    let mut stage = Stage::new();
    let deferred = (1..=40).filter(|number| !stage.report(session(*number))).count();
    assert!(deferred > 0);
    let foreign = Session { owner: NodeId(9), ..session(90) };
    let closed = Session { state: SessionState::TcpTimeWait, ..session(92) };
    for silent in [foreign, closed] {
        let slot = stage.writer.insert(&silent).unwrap();
        stage.writer.set_last_sent(slot, Millis(1));
    }
    stage.writer.insert(&session(91)).unwrap();

    while stage.poll_after(FLUSH_US.into()) {}
    stage.poll_after(FLUSH_US.into());

    let clients = stage.clients_sent();
    for number in 1..=40 {
        assert!(clients.contains(&number), "{number} is missing");
    }
    assert!(clients.iter().all(|&number| number < 90), "{clients:?}");
    assert_eq!(clients[..RING_SLOTS as usize], Vec::from_iter(1..=RING_SLOTS as u16), "events come first");
    assert!(stage.counters.value(Counter::RangesResent) > 0);
    assert_eq!(stage.producer.dirty().count(), 0);
}

#[test]
fn ring_slots_without_meaning_are_counted_and_passed_over() {
    let mut stage = Stage::new();
    stage.producer.try_push(&[0xff; EVENT_BYTES]);
    stage.producer.try_push(&[1; 5]);
    let event = Event { kind: EventKind::Upsert, session: session(7) };
    let nowhere = Notice::Session { event, home: Home::Local, slot: RecordIndex(TABLE_SLOTS) };
    stage.producer.try_push(&nowhere.encode());
    stage.report(session(1));
    stage.poll_after(0);
    stage.poll_after(FLUSH_US.into());
    assert_eq!(stage.clients_sent(), [1]);
    assert_eq!(stage.counters.value(Counter::EventsInvalid), 3);
}
