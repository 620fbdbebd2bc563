//! Tests of the reports: real rings and tables in a temporary directory, and a link that may have no room.

use std::net::IpAddr;

use baton_common::config::Timeouts;
use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NumaId};
use baton_common::session::table::TableWriter;
use baton_common::shm::header::FileKind;
use baton_common::shm::ring::{self, Producer};
use baton_common::sync::roster::Identity;
use baton_common::sync::seal::Sealer;
use baton_common::sync::sender::{SenderConfig, Transmission};
use baton_common::sync::state::SyncState;
use baton_common::sync::wire::{Body, Header, Reader};
use baton_common::time::Millis;

use super::*;

const NODE: NodeId = NodeId(1);
const FLUSH_US: u32 = 100;
const RING_SLOTS: u32 = 16;

/// One worker, its secondary, and what it sent.
struct Stage {
    directory: tempfile::TempDir,
    producer: Producer,
    writer: TableWriter,
    tables: Vec<SessionTable>,
    reports: Reports,
    sender: Sender<'static>,
    counters: &'static CounterBlock,
    sent: Vec<Body>,
    has_room: bool,
    now: Micros,
}

impl Stage {
    fn new() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let events = FileKind::EventRing.path(directory.path(), 0);
        ring::create(&events, FileKind::EventRing, RING_SLOTS, EVENT_BYTES as u32).unwrap();
        let local = FileKind::LocalTable.path(directory.path(), 0);
        SessionTable::create(&local, FileKind::LocalTable, 2048).unwrap();
        let counters: &'static CounterBlock = Box::leak(Box::default());
        let state: &'static SyncState = Box::leak(Box::new(SyncState::new()));
        state.begin(7);
        let config = SenderConfig {
            identity: Identity { cluster: 1, node: NODE, numa: NumaId(0) },
            peers: vec!["10.2.0.102".parse().unwrap()],
            payload_max: 1472,
            flush_us: FLUSH_US,
            timeouts: Timeouts {
                tcp_handshake_ms: 10_000,
                tcp_established_ms: 600_000,
                tcp_closing_ms: 60_000,
                tcp_closed_ms: 5_000,
                udp_ms: 30_000,
                remote_margin_ms: 15_000,
            },
        };
        Stage {
            producer: Producer::attach(&events, FileKind::EventRing).unwrap(),
            writer: TableWriter::attach(&local, FileKind::LocalTable).unwrap(),
            tables: vec![SessionTable::open_read_only(&local, FileKind::LocalTable).unwrap()],
            reports: Stage::reports(&events, counters),
            sender: Sender::new(config, Sealer::off(), state, counters),
            directory,
            counters,
            sent: Vec::new(),
            has_room: true,
            now: Micros(1_000_000),
        }
    }

    fn reports(events: &std::path::Path, counters: &'static CounterBlock) -> Reports {
        let events = Consumer::attach(events, FileKind::EventRing).unwrap();
        Reports::new(vec![Source::new(WorkerId(0), events, RING_SLOTS)], NODE, counters)
    }

    /// What a successor of a killed secondary finds.
    fn restart(&mut self) {
        self.reports = Stage::reports(&FileKind::EventRing.path(self.directory.path(), 0), self.counters);
    }

    fn report(&mut self, kind: EventKind, session: Session) -> bool {
        self.producer.try_push(&Event { kind, session }.encode())
    }

    fn poll_after(&mut self, micros: u64) -> bool {
        self.now = Micros(self.now.0 + micros);
        let (sent, has_room) = (&mut self.sent, self.has_room);
        let mut out = |_: IpAddr, payload: &[u8]| {
            if !has_room {
                return Transmission::QueueFull;
            }
            let (_, bytes) = Header::decode(payload).unwrap();
            sent.extend(Reader::new().records(bytes).map(|record| record.unwrap().body));
            Transmission::Sent
        };
        self.reports.poll(self.now, &self.tables, &mut self.sender, &mut out)
    }

    fn clients_sent(&self) -> Vec<u16> {
        let client = |body: &Body| match body {
            Body::Upsert(reported) => reported.client.port,
            Body::Delete(ended) => ended.client.port,
            Body::Refresh(refreshed) => refreshed.client.port,
            other => panic!("no news: {other:?}"),
        };
        self.sent.iter().map(client).collect()
    }
}

fn session(number: u16) -> Session {
    let endpoint = |net, port| Endpoint { address: Address::v4([10, net, 0, 1]), port };
    Session {
        protocol: Protocol::Tcp,
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
        assert!(stage.report(EventKind::Upsert, session(number)));
    }
    assert!(stage.poll_after(0));
    assert!(stage.sent.is_empty());
    stage.poll_after(FLUSH_US.into());
    assert_eq!(stage.clients_sent(), [1, 2, 3]);
    assert_eq!(stage.counters.value(Counter::SyncTxDatagrams), 1);
}

#[test]
fn an_event_that_was_not_sent_is_read_again_by_a_successor() {
    let mut stage = Stage::new();
    stage.report(EventKind::Upsert, session(1));
    stage.poll_after(FLUSH_US.into());
    stage.poll_after(FLUSH_US.into());
    stage.report(EventKind::Upsert, session(2));
    stage.poll_after(0);
    stage.restart();
    stage.poll_after(FLUSH_US.into());
    stage.poll_after(FLUSH_US.into());
    assert_eq!(stage.clients_sent()[..2], [1, 2], "the first is sent once, the second at least once");
    assert!(!stage.clients_sent()[2..].contains(&1));
}

#[test]
fn without_room_to_send_events_stay_in_their_ring() {
    let mut stage = Stage::new();
    stage.has_room = false;
    for number in 1..=3 {
        stage.report(EventKind::Upsert, session(number));
    }
    for _ in 0..10 {
        stage.poll_after(PAUSE_US);
    }
    stage.has_room = true;
    for _ in 0..10 {
        stage.poll_after(PAUSE_US);
    }
    for number in 1..=3 {
        assert!(stage.clients_sent().contains(&number), "{number} of {:?}", stage.clients_sent());
    }
    assert!(stage.counters.value(Counter::SyncTxFull) > 0);
}

#[test]
fn a_full_ring_is_emptied_by_its_range_being_sent_again() {
    let mut stage = Stage::new();
    let mut deferred = Vec::new();
    for number in 1..=40 {
        let index = stage.writer.insert(&session(number)).unwrap();
        if !stage.report(EventKind::Upsert, session(number)) {
            stage.producer.dirty().mark(index.0, stage.writer.capacity());
            deferred.push(number);
        }
    }
    assert!(!deferred.is_empty());
    let foreign = Session { owner: NodeId(9), ..session(90) };
    let opening = Session { state: SessionState::TcpSynAcked, ..session(91) };
    let closed = Session { state: SessionState::TcpTimeWait, ..session(92) };
    for silent in [foreign, opening, closed] {
        stage.writer.insert(&silent).unwrap();
    }

    while stage.poll_after(FLUSH_US.into()) {}

    let sent = stage.clients_sent();
    for number in 1..=40 {
        assert!(sent.contains(&number), "{number} is missing");
    }
    assert!(sent.iter().all(|&number| number < 90), "{sent:?}");
    assert_eq!(sent[..RING_SLOTS as usize], Vec::from_iter(1..=RING_SLOTS as u16), "events come first");
    assert!(stage.counters.value(Counter::RangesResent) > 0);
    assert_eq!(stage.producer.dirty().count(), 0);
}

#[test]
fn a_range_is_not_finished_before_it_could_be_sent() {
    let mut stage = Stage::new();
    let index = stage.writer.insert(&session(5)).unwrap();
    stage.producer.dirty().mark(index.0, stage.writer.capacity());
    stage.has_room = false;
    for _ in 0..5 {
        stage.poll_after(PAUSE_US);
    }
    assert_eq!((stage.producer.dirty().count(), stage.counters.value(Counter::RangesResent)), (1, 0));
    stage.has_room = true;
    for _ in 0..5 {
        stage.poll_after(PAUSE_US);
    }
    assert_eq!((stage.producer.dirty().count(), stage.counters.value(Counter::RangesResent)), (0, 1));
    assert!(stage.clients_sent().contains(&5));
}

#[test]
fn ring_slots_without_meaning_are_counted_and_passed_over() {
    let mut stage = Stage::new();
    stage.producer.try_push(&[0xff; EVENT_BYTES]);
    stage.producer.try_push(&[1; 5]);
    stage.report(EventKind::Upsert, session(1));
    stage.poll_after(0);
    stage.poll_after(FLUSH_US.into());
    assert_eq!(stage.clients_sent(), [1]);
    assert_eq!(stage.counters.value(Counter::EventsInvalid), 2);
}
