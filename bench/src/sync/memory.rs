//! Two nodes on one core, their datagrams in memory: what each side's work costs, with no port between them.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use baton_common::sync::protocol::Protocol;
use baton_common::sync::protocol::readiness::ReadyState;
use baton_common::sync::sender::{Transmission, Transmit};
use baton_common::sync::tables::SharedTables;
use serde::{Deserialize, Serialize};

use super::node::{self, Clock, Durable, Holdings, SINK, SOURCE};
use crate::table::population::{Family, SESSIONS_MAX};

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

/// A full sync of `sessions` sessions.
///
/// # Errors
/// It does not come to an end, or the receiver has something else than the sender.
pub fn full_sync(directory: &Path, family: Family, sessions: u32, sealed: bool, own: u32) -> Result<InMemory> {
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
    let keyring = if sealed { Some(node::keyring()?) } else { None };
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
    let deadline = Instant::now() + Duration::from_secs(20);
    while sink.protocol.readiness().state() != ReadyState::Ready {
        ensure!(Instant::now() < deadline, "no full sync within ten minutes: {found:?}");
        let start = Instant::now();
        sink.protocol.poll(clock.now(), &mut sink.tables, &mut sink.out);
        sink.tables.quiesce();
        let polled = Instant::now();
        found.sink_poll_s += (polled - start).as_secs_f64();
        let now = clock.now();
        for datagram in sink.out.iter() {
            let _ = source.protocol.on_datagram(
                node::address(SINK),
                datagram,
                now,
                &mut source.tables,
                &mut source.out,
            );
        }
        sink.out.clear();
        for _ in 0..8 {
            source.protocol.poll(clock.now(), &mut source.tables, &mut source.out);
        }
        source.tables.quiesce();
        let served = Instant::now();
        found.serve_s += (served - polled).as_secs_f64();
        let now = clock.now();
        for datagram in source.out.iter() {
            found.bytes += datagram.len() as u64;
            found.datagrams += 1;
            let _ = sink.protocol.on_datagram(
                node::address(SOURCE),
                datagram,
                now,
                &mut sink.tables,
                &mut sink.out,
            );
        }
        source.out.clear();
        found.ingest_s += served.elapsed().as_secs_f64();
        #[allow(warnings)] if std::env::var_os("DEBUG").is_some() { use baton_common::counter::Counter; static mut K: u64 = 0; let k: u64 = { unsafe { K += 1 }; unsafe { K } }; if k % 100000 == 0 { for d in &durable { let s: Vec<String> = Counter::ALL.iter().filter(|c| d.counters.value(**c) > 0).map(|c| format!("{}={}", c.name(), d.counters.value(*c))).collect(); eprintln!("{s:?}"); } eprintln!("{:?} {:?}", sink.protocol.readiness().state(), sink.protocol.peers(clock.now().millis()).collect::<Vec<_>>()); } }
    }
    found.sessions = sink.tables.remote().len();
    ensure!(found.sessions == sessions, "{} sessions of {sessions} came", found.sessions);
    Ok(found)
}
