//! Whatever comes, taking upserts in a row leaves behind what taking them one by one does.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::super::comparison;
use super::super::digest::Digest;
use super::super::retransmit::ring_words;
use super::super::{HELD, Member, OwnerSlot, Place, Protocol, ProtocolConfig, Tables};
use crate::counter::{Counter, CounterBlock};
use crate::flow::{FlowKey, Protocol as Transport};
use crate::id::{Generation, NodeId, NumaId};
use crate::session::table::{SessionTable, TableReader, TableWriter};
use crate::session::{Session, SessionState};
use crate::shm::header::FileKind;
use crate::sync::Reject;
use crate::sync::fixture::{TIMEOUTS, session_v4, session_v6};
use crate::sync::roster::Identity;
use crate::sync::sim::tables::ModelTables;
use crate::sync::state::SyncState;
use crate::sync::tables::{SharedTables, WorkerTable};
use crate::sync::transmit::Transmission;
use crate::sync::wire::{
    BatchWriter, Body, Ended, HEADER_BYTES, Header, RangeBegin, RangeId, Refreshed, Reported, StreamId,
};
use crate::time::{Micros, Millis};

const NODE: NodeId = NodeId(1);
const BYTES_MAX: usize = 1472;
const NOW: Millis = Millis(1_000_000);

/// Few, so that the table is full at times.
const SLOTS: u32 = 10;

fn address(node: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, node.0 as u8))
}

struct Shared {
    state: Box<SyncState>,
    ring: Vec<AtomicU64>,
    counters: Box<CounterBlock>,
}

impl Shared {
    fn new() -> Shared {
        let state: Box<SyncState> = Box::default();
        state.begin(1);
        let ring = (0..ring_words(BYTES_MAX)).map(|_| AtomicU64::new(0)).collect();
        Shared { state, ring, counters: Box::new(CounterBlock::new()) }
    }
}

/// Node 1 of four.
struct Host<'a, T> {
    protocol: Protocol<'a>,
    counters: &'a CounterBlock,
    tables: T,
    said: Vec<Vec<u8>>,
}

/// What a host is, as far as anybody can tell.
#[derive(Debug, PartialEq)]
struct Outcome {
    taken: Vec<Result<(), Reject>>,
    sessions: HashMap<FlowKey, Session>,
    digests: Vec<Digest>,
    counters: BTreeMap<&'static str, u64>,
    said: Vec<Vec<u8>>,
}

impl<'a, T: Tables> Host<'a, T> {
    fn new(shared: &'a Shared, tables: T) -> Host<'a, T> {
        let members: Vec<Member> =
            (1..=4).map(NodeId).map(|node| Member { node, addresses: vec![address(node)] }).collect();
        let config = ProtocolConfig {
            identity: Identity { cluster: 7, node: NODE, numa: NumaId(0) },
            datagram_bytes_max: BYTES_MAX,
            flush_us: 500,
            timeouts: TIMEOUTS,
            ranges: 16,
            tombstones: 64,
            tombstone_ms: 3000,
            digest_ms: 1000,
            ready_timeout_ms: 20_000,
            ready_fraction: 1.0,
            config_digest: 1,
            keyring: None,
        };
        let Shared { state, ring, counters } = shared;
        let now = Micros(NOW.0 * 1000);
        let protocol = Protocol::new(config, &members, state, ring, counters, &tables, now);
        Host { protocol, counters, tables, said: Vec::new() }
    }

    /// What becomes of it by these datagrams, which come a second apart.
    fn outcome_of(mut self, datagrams: &[(NodeId, Vec<u8>)]) -> Outcome {
        let mut taken = Vec::new();
        for ((sender, datagram), second) in datagrams.iter().zip(0..) {
            let now = Micros((NOW.0 + 1000 * second) * 1000);
            let Host { protocol, tables, said: all, .. } = &mut self;
            let mut out = |_: IpAddr, said: &[u8]| {
                all.push(said.to_vec());
                Transmission::Sent
            };
            taken.push(protocol.on_datagram(address(*sender), datagram, now, tables, &mut out));
            protocol.flush(&mut out);
        }
        let places = (0..self.tables.places()).map(Place);
        let sessions = places.filter_map(|place| self.tables.session(place));
        let counted = Counter::ALL.iter().map(|counter| (counter.name(), self.counters.value(*counter)));
        Outcome {
            taken,
            sessions: sessions
                .filter(|session| session.owner != NodeId(0))
                .map(|session| (session.client_key(), session))
                .collect(),
            digests: (0..4).map(|owner| self.protocol.ledger.total(OwnerSlot(owner))).collect(),
            counters: counted.collect(),
            said: self.said,
        }
    }
}

/// Sessions of node 1's own workers: one that the peers know, one that they do not, one that was given up.
fn own() -> [Session; 3] {
    let own = |number: u8, owner: NodeId, last_sent: Millis| Session {
        owner,
        last_sent,
        last_seen: NOW,
        generation: Generation(2),
        ..session_v4(number)
    };
    [own(0, NODE, NOW), own(1, NODE, Millis(0)), own(2, NodeId(0), Millis(0))]
}

fn model(one_by_one: bool) -> ModelTables {
    let mut tables = ModelTables::new(SLOTS, 8);
    tables.one_by_one = one_by_one;
    for session in own() {
        tables.insert_local(&session).unwrap();
    }
    tables
}

fn shared(directory: &tempfile::TempDir) -> SharedTables {
    let path = |kind: FileKind| kind.path(directory.path(), 0);
    for (kind, slots) in [(FileKind::RemoteTable, SLOTS), (FileKind::LocalTable, 8)] {
        SessionTable::create(&path(kind), kind, slots).unwrap();
    }
    let mut worker = TableWriter::attach(&path(FileKind::LocalTable), FileKind::LocalTable).unwrap();
    for session in own() {
        worker.insert(&session).unwrap();
    }
    let table = TableReader::attach(&path(FileKind::LocalTable), FileKind::LocalTable, 0).unwrap();
    let remote = TableWriter::attach(&path(FileKind::RemoteTable), FileKind::RemoteTable).unwrap();
    SharedTables::new(remote, vec![WorkerTable { table, is_reported: true }])
}

/// What is said of few sessions, so that they meet: by their clients, and by their server-side flows.
fn any_body() -> impl Strategy<Value = Body> {
    let session = (0u8..8, 0u8..10, any::<bool>(), 0usize..4, 0usize..9, 0u32..700_000);
    (session, 0usize..12).prop_map(|((client, local, v4, generation, state, remaining_ms), kind)| {
        let of = |number| if v4 { session_v4(number) } else { session_v6(number) };
        let states = [18, 18, 16, 17, 19, 21, 22, 1, 2];
        let (session, local) = (of(client), of(local).local);
        let generation = Generation([0, 1, 8, 40][generation]);
        let state = SessionState::from_number(states[state]).unwrap();
        let Session { client, vip, server, .. } = session;
        match kind {
            0 => Body::Delete(Ended { generation, state, client, vip }),
            1 => Body::Refresh(Refreshed { generation, state, remaining_ms, client, vip }),
            _ => Body::Upsert(Reported { generation, state, remaining_ms, client, vip, local, server }),
        }
    })
}

/// One datagram's sender, stream, range, records, a byte of it to be spoilt, and whether it changes places with the next.
type Said = (u16, usize, usize, Vec<Body>, Option<(prop::sample::Index, u8)>, bool);

fn any_said() -> impl Strategy<Value = Said> {
    let spoilt = proptest::option::weighted(0.1, (any::<prop::sample::Index>(), 1u8..));
    let late = proptest::bool::weighted(0.2);
    (2u16..5, 0usize..8, 0usize..4, proptest::collection::vec(any_body(), 1..40), spoilt, late)
}

fn datagrams_of(all: Vec<Said>) -> Vec<(NodeId, Vec<u8>)> {
    let mut sequences: HashMap<(u16, usize), u64> = HashMap::new();
    let mut datagrams = Vec::new();
    let mut held_up = Vec::new();
    for (sender, stream, range, bodies, spoilt, late) in all {
        let stream = [StreamId::RANGES, HELD].get(stream).copied().unwrap_or(StreamId::CHANGES);
        let sequence = sequences.entry((sender, usize::from(stream.number()))).or_default();
        *sequence += 1;
        let mut batch = BatchWriter::new(BYTES_MAX);
        let mark = [None, None, Some(0), Some(comparison::SESSIONS)][range];
        if let Some(mark) = mark {
            batch.push(&Body::RangeBegin(RangeBegin { range: RangeId(3 | mark), nonce: 1 })).unwrap();
        }
        for body in bodies {
            batch.push(&body).unwrap();
        }
        let header = Header {
            cluster: 7,
            node: NodeId(sender),
            numa: NumaId(0),
            key: None,
            to: None,
            stream,
            boot_epoch: 1,
            sequence: *sequence,
            membership_epoch: 0,
        };
        let mut datagram = batch.datagram(&header).clone();
        if let Some((at, bits)) = spoilt {
            let records = &mut datagram[HEADER_BYTES..];
            let at = at.index(records.len());
            records[at] ^= bits;
        }
        if late {
            held_up.push((NodeId(sender), datagram));
        } else {
            datagrams.push((NodeId(sender), datagram));
            datagrams.append(&mut held_up);
        }
    }
    datagrams.append(&mut held_up);
    datagrams
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn in_a_row_or_one_by_one_is_the_same(said in proptest::collection::vec(any_said(), 1..24)) {
        let directory = tempfile::tempdir().unwrap();
        let datagrams = datagrams_of(said);
        let durables = [(); 3].map(|()| Shared::new());

        let one_by_one = Host::new(&durables[0], model(true)).outcome_of(&datagrams);
        let in_a_row = Host::new(&durables[1], model(false)).outcome_of(&datagrams);
        let in_files = Host::new(&durables[2], shared(&directory)).outcome_of(&datagrams);

        prop_assert_eq!(&in_a_row, &one_by_one);
        prop_assert_eq!(&in_files, &one_by_one);
    }
}

/// A datagram of upserts alone, of a peer that nothing is known of.
fn news(count: u8) -> Vec<(NodeId, Vec<u8>)> {
    let body = |number: u8| {
        let Session { client, vip, local, server, state, .. } = session_v4(number);
        Body::Upsert(Reported {
            generation: Generation(1),
            state,
            remaining_ms: 1000,
            client,
            vip,
            local,
            server,
        })
    };
    datagrams_of(vec![(2, 7, 0, (0..count).map(|number| body(number + 10)).collect(), None, false)])
}

#[test]
fn what_does_not_fit_is_counted_and_the_rest_is_taken() {
    for count in [0, 1, 7, 8, 9, 16, SLOTS as u8, SLOTS as u8 + 1, 60] {
        let durable = Shared::new();
        let directory = tempfile::tempdir().unwrap();

        let outcome = Host::new(&durable, shared(&directory)).outcome_of(&news(count));

        let there = outcome.sessions.values().filter(|session| session.owner == NodeId(2)).count();
        assert_eq!(there, usize::from(count).min(SLOTS as usize), "{count}");
        let refused = u64::from(count).saturating_sub(SLOTS.into());
        assert_eq!(durable.counters.value(Reject::TableFull.counter()), refused);
        assert_eq!(durable.counters.value(Counter::SyncRxUpserts), there as u64);
        assert_eq!(outcome.digests.iter().map(|digest| digest.sessions as usize).sum::<usize>(), there + 1);
    }
}

/// The second of two tables' keys is not looked up twice where one look tells that it is new.
#[test]
fn what_is_plainly_new_is_added_in_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let mut tables = shared(&directory);
    let session = Session { owner: NodeId(2), ..session_v4(9) };
    let hashes = [session.client_key(), session.server_key()].map(|key| tables.hash(&key.words()));

    let place = tables.insert_new(&session.draft(), hashes).unwrap();

    assert_eq!(tables.session(place), Some(session));
    assert_eq!(tables.insert_new(&session.draft(), hashes), None, "it is there");
    let same_client = Session { local: session_v4(8).local, ..session };
    let same_server = Session { client: session_v4(8).client, ..session };
    for other in [same_client, same_server, own()[0], own()[2]] {
        let hashes = [other.client_key(), other.server_key()].map(|key| tables.hash(&key.words()));
        assert_eq!(tables.insert_new(&other.draft(), hashes), None, "a key of {other:?} is there");
    }
    assert_eq!(tables.remote().len(), 1);
}

/// Every transport has its own keys.
#[test]
fn a_draft_is_the_session_that_it_was_made_of() {
    for protocol in [Transport::Tcp, Transport::Udp] {
        for session in [session_v4(1), session_v6(2)].map(|session| Session { protocol, ..session }) {
            let draft = session.draft();
            assert_eq!(draft.session(), session);
            assert_eq!(draft.client_key(), session.client_key());
            assert_eq!(draft.server_key(), session.server_key());
        }
    }
}
