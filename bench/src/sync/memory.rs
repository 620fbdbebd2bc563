//! Two nodes on one core, their datagrams in memory: what each side's work costs, with no port between them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use baton_common::sync::protocol::Protocol;
use baton_common::sync::protocol::readiness::ReadyState;
use baton_common::sync::tables::SharedTables;
use baton_common::sync::transmit::{Transmission, Transmit};
use serde::{Deserialize, Serialize};

use super::node::{self, Clock, Durable, Holdings, SINK, SOURCE};
use crate::host::child::die_with_parent;
use crate::host::cpus;
use crate::table::population::{Family, SESSIONS_MAX};
use crate::table::stopwatch::thread_time;

/// Turns of the sender between two of the receiver.
const TURNS: u32 = 8;

/// Datagrams one after the other.
#[derive(Default)]
pub struct Letters {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Letters {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }

    fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

impl Transmit for Letters {
    fn transmit(&mut self, _: IpAddr, payload: &[u8]) -> Transmission {
        self.bytes.extend_from_slice(payload);
        self.ends.push(self.bytes.len());
        Transmission::Sent
    }
}

/// What a full sync in memory came to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct InMemory {
    /// Sessions that the receiver has in the end.
    pub sessions: u32,
    /// Bytes of UDP payload from sender to receiver.
    pub bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// The receiver's time in datagrams, seconds.
    pub ingest_s: f64,
    /// The receiver's time in its turns.
    pub sink_poll_s: f64,
    /// The sender's time.
    pub serve_s: f64,
}

struct Side<'a> {
    protocol: Protocol<'a>,
    tables: SharedTables,
    out: Letters,
}

/// A full sync in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// The address family of the sessions.
    pub family: Family,
    /// How many sessions.
    pub sessions: u32,
    /// Whether datagrams are sealed.
    pub sealed: bool,
    /// Where hugepage files may be made.
    pub hugepages: PathBuf,
    /// The CPU.
    pub cpu: usize,
}

/// A full sync of a job's sessions, to a node whose workers have a tenth as many of their own.
///
/// # Errors
/// It does not come to an end, or the receiver has something else than the sender.
pub fn full_sync(job: &Job) -> Result<InMemory> {
    die_with_parent()?;
    cpus::pin(job.cpu)?;
    let Job { family, sessions, sealed, ref hugepages, .. } = *job;
    let (directory, own) = (hugepages.as_path(), node::own_sessions(sessions));
    let clock = Clock::start();
    let [there, here] = ["source", "sink"].map(|name| directory.join(name));
    for path in [&there, &here] {
        std::fs::create_dir_all(path)?;
    }
    let now = clock.now();
    let holdings = Holdings { owner: SOURCE, first: 0, sessions, told: true, remote_slots: 1024 };
    let source_tables = node::tables(&there, family, holdings, now.millis())?;
    let holdings = Holdings {
        owner: SINK,
        first: SESSIONS_MAX,
        sessions: own,
        told: false,
        remote_slots: node::with_room(sessions),
    };
    let sink_tables = node::tables(&here, family, holdings, now.millis())?;
    let keyring = if sealed { Some(node::keyring(&node::new_key()?)?) } else { None };
    let durable = [Durable::new(), Durable::new()];
    let mut source = Side {
        protocol: node::protocol(SOURCE, &durable[0], &source_tables, keyring.clone(), clock.now()),
        tables: source_tables,
        out: Letters::default(),
    };
    let mut sink = Side {
        protocol: node::protocol(SINK, &durable[1], &sink_tables, keyring, clock.now()),
        tables: sink_tables,
        out: Letters::default(),
    };
    let mut found = InMemory::default();
    let deadline = Instant::now() + Duration::from_secs(120);
    while sink.protocol.readiness().state() != ReadyState::Ready {
        ensure!(Instant::now() < deadline, "no full sync within two minutes: {found:?}");
        let start = thread_time();
        sink.protocol.poll(clock.now(), &mut sink.tables, &mut sink.out);
        sink.tables.quiesce();
        let polled = thread_time();
        let asked = !sink.out.is_empty();
        let now = clock.now();
        for datagram in sink.out.iter() {
            let (tables, out) = (&mut source.tables, &mut source.out);
            let _ = source.protocol.on_datagram(node::address(SINK), datagram, now, tables, out);
        }
        sink.out.clear();
        for _ in 0..TURNS {
            source.protocol.poll(clock.now(), &mut source.tables, &mut source.out);
        }
        source.tables.quiesce();
        let served = thread_time();
        let now = clock.now();
        for datagram in source.out.iter() {
            found.bytes += datagram.len() as u64;
            found.datagrams += 1;
            let (tables, out) = (&mut sink.tables, &mut sink.out);
            let _ = sink.protocol.on_datagram(node::address(SOURCE), datagram, now, tables, out);
        }
        // Turns in which nothing happens are waiting, not work.
        if asked || !source.out.is_empty() {
            found.sink_poll_s += (polled - start).as_secs_f64();
            found.serve_s += (served - polled).as_secs_f64();
            found.ingest_s += (thread_time() - served).as_secs_f64();
        }
        source.out.clear();
    }
    found.sessions = sink.tables.remote().len();
    ensure!(found.sessions == sessions, "{} sessions of {sessions} came", found.sessions);
    Ok(found)
}
