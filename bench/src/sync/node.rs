//! A node of the benchmark: tables in hugepages, and the protocol over them as a secondary runs it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use baton_common::config::{KeyFile, Timeouts};
use baton_common::counter::CounterBlock;
use baton_common::flow::Endpoint;
use baton_common::id::{NodeId, NumaId};
use baton_common::session::Session;
use baton_common::session::table::{SessionTable, TableReader, TableWriter};
use baton_common::shm::header::FileKind;
use baton_common::sync::protocol::retransmit::ring_words;
use baton_common::sync::protocol::{Member, Protocol, ProtocolConfig};
use baton_common::sync::roster::Identity;
use baton_common::sync::seal::Keyring;
use baton_common::sync::state::SyncState;
use baton_common::sync::tables::{SharedTables, WorkerTable};
use baton_common::time::{Micros, Millis};

use crate::table::population::{Family, Population, SESSIONS_MAX, Side};

/// The node that has the sessions.
pub const SOURCE: NodeId = NodeId(1);

/// The node that has none of them yet.
pub const SINK: NodeId = NodeId(2);

/// Bytes of a datagram's UDP payload: what an MTU of 1500 leaves over IPv4.
pub const DATAGRAM_BYTES: usize = 1472;

/// Tables of workers that each node has.
pub const WORKERS: usize = 2;

const TIMEOUTS: Timeouts = Timeouts {
    tcp_handshake_ms: 30_000,
    tcp_established_ms: 3_600_000,
    tcp_closing_ms: 120_000,
    tcp_closed_ms: 10_000,
    udp_ms: 3_600_000,
    remote_margin_ms: 60_000,
};

/// Sessions inserted at once.
const BATCH: usize = 4096;

/// The sync address of a node.
pub fn address(node: NodeId) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, node.0 as u8))
}

/// What of a node lies in shared memory but is not a table.
pub struct Durable {
    state: Box<SyncState>,
    ring: Vec<AtomicU64>,
    /// The secondary's counters.
    pub counters: Box<CounterBlock>,
}

impl Durable {
    /// That of a node that has never run.
    pub fn new() -> Durable {
        let state: Box<SyncState> = Box::default();
        state.begin(1);
        Durable {
            state,
            ring: (0..ring_words(DATAGRAM_BYTES)).map(|_| AtomicU64::new(0)).collect(),
            counters: Box::new(CounterBlock::new()),
        }
    }
}

impl Default for Durable {
    fn default() -> Durable {
        Durable::new()
    }
}

/// The sessions of a node's own workers, and what else it has room for.
#[derive(Clone, Copy, Debug)]
pub struct Holdings {
    /// Whose sessions these are.
    pub owner: NodeId,
    /// The first session's number.
    pub first: u32,
    /// How many there are, over all workers.
    pub sessions: u32,
    /// Whether the peers are to know of them.
    pub told: bool,
    /// Slots of the remote table.
    pub remote_slots: u32,
}

/// Room in a table for this many sessions: a fifth more, as an operator would leave.
pub fn with_room(sessions: u32) -> u32 {
    sessions / 5 * 6 + 1024
}

/// Sessions that the sink's own workers have when it is sent this many.
pub fn own_sessions(sessions: u32) -> u32 {
    sessions / 10
}

/// Whether packets can come from the client of a session: the population has clients everywhere.
fn is_possible(population: &Population, number: u32) -> bool {
    let client = population.key(number, Side::Client).source.address;
    client.to_v4().is_none_or(|octets| (1..224).contains(&octets[0]))
}

/// A local address of a node's own, as a cluster's nodes have.
fn local_of(node: NodeId, local: Endpoint) -> Endpoint {
    let mut address = local.address;
    address.0[13] ^= (node.0 as u8) << 4;
    Endpoint { address, ..local }
}

/// Makes a node's tables in a directory, and fills those of its workers.
///
/// # Errors
/// There is no room for them.
pub fn tables(directory: &Path, family: Family, holdings: Holdings, now: Millis) -> Result<SharedTables> {
    let population = Population { family, sessions: SESSIONS_MAX, seed: 1 };
    let share = holdings.sessions.div_ceil(WORKERS as u32);
    let mut numbers = (holdings.first..).filter(|number| is_possible(&population, *number));
    let mut workers = Vec::new();
    for worker in 0..WORKERS as u32 {
        let path = FileKind::LocalTable.path(directory, worker as u8);
        SessionTable::create(&path, FileKind::LocalTable, with_room(share)).context("a worker's table")?;
        let mut writer = TableWriter::attach(&path, FileKind::LocalTable)?;
        let mut left = holdings.sessions.min((worker + 1) * share) - holdings.sessions.min(worker * share);
        let mut sessions = Vec::with_capacity(BATCH);
        let mut refused = 0;
        while left > 0 {
            sessions.clear();
            sessions.extend(numbers.by_ref().take(BATCH.min(left as usize)).map(|number| Session {
                local: local_of(holdings.owner, population.session(number).local),
                owner: holdings.owner,
                last_seen: now,
                last_sent: if holdings.told { now } else { Millis(0) },
                ..population.session(number)
            }));
            left -= sessions.len() as u32;
            writer.insert_batch(&sessions, |_, result| refused += u32::from(result.is_err()));
        }
        ensure!(refused == 0, "{refused} sessions did not fit a worker's table");
        drop(writer);
        let table = TableReader::attach(&path, FileKind::LocalTable, 0)?;
        workers.push(WorkerTable { table, is_reported: true });
    }
    let path = FileKind::RemoteTable.path(directory, 0);
    SessionTable::create(&path, FileKind::RemoteTable, holdings.remote_slots).context("the remote table")?;
    Ok(SharedTables::new(TableWriter::attach(&path, FileKind::RemoteTable)?, workers))
}

/// The text of a new key file.
///
/// # Errors
/// The machine has no random numbers.
pub fn new_key() -> Result<String> {
    Ok(KeyFile::generate()?.text().to_string())
}

/// The keyring of a key file's text.
///
/// # Errors
/// It is none.
pub fn keyring(key: &str) -> Result<Arc<Keyring>> {
    Ok(Arc::new(Keyring::new(&KeyFile::parse(key, "key")?)))
}

/// The protocol of a node in a cluster of two.
pub fn protocol<'a>(
    node: NodeId,
    durable: &'a Durable,
    tables: &SharedTables,
    keyring: Option<Arc<Keyring>>,
    now: Micros,
) -> Protocol<'a> {
    let members = [SOURCE, SINK].map(|node| Member { node, addresses: vec![address(node)] });
    let config = ProtocolConfig {
        identity: Identity { cluster: 7, node, numa: NumaId(0) },
        datagram_bytes_max: DATAGRAM_BYTES,
        flush_us: 200,
        timeouts: TIMEOUTS,
        ranges: baton_common::sync::protocol::digest::RANGES,
        tombstones: 1 << 18,
        tombstone_ms: 5000,
        digest_ms: 500,
        ready_timeout_ms: 60_000,
        ready_fraction: 1.0,
        config_digest: 1,
        keyring,
    };
    Protocol::new(config, &members, &durable.state, &durable.ring, &durable.counters, tables, now)
}

/// The clock that a node's protocol is run by.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// It has run for an hour already, so that nothing is older than the machine.
    const AHEAD_US: u64 = 3_600_000_000;

    /// A clock that begins now.
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// The time.
    pub fn now(&self) -> Micros {
        Micros(Self::AHEAD_US + self.0.elapsed().as_micros() as u64)
    }
}
