//! The source of readings: a node's shared files and control sockets, opened again when they are others.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::Result;
use baton_common::config::Config;
use baton_common::control::{Callee, Client};
use baton_common::counter::CounterFile;
use baton_common::session::table::SessionTable;
use baton_common::shm::header::FileKind;
use baton_common::shm::shared::Mapped;
use baton_common::sync::state::{self, SyncState};
use baton_common::time::Micros;

use super::reading::{Reading, TableFill, Thread};
use crate::counters;

/// How long a process may take to answer, so that one that hangs does not freeze the screen for long.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Where readings come from.
pub struct Source {
    config: Config,
    files: Option<Files>,
}

/// The node's files, as they were when they were opened.
struct Files {
    /// Device and number of the counters' file: another one is another life of the node.
    identity: (u64, u64),
    counters: CounterFile,
    tables: Vec<(String, SessionTable)>,
    states: Vec<Mapped<SyncState>>,
}

impl Source {
    /// Readings of the node that is configured so.
    pub fn new(config: Config) -> Source {
        Source { config, files: None }
    }

    /// Reads everything that can be read now.
    pub fn read(&mut self) -> Reading {
        let peers = self.config.sync.peers.iter().filter(|_| self.config.sync.enabled);
        let members = peers.map(|peer| peer.node).collect();
        let mut reading = Reading { at: Micros::now(), members, ..Reading::default() };
        match self.current_files() {
            Ok(()) => self.read_files(&mut reading),
            Err(error) => reading.troubles.push(format!("{error:#}")),
        }
        let runtime = &self.config.paths.runtime;
        let asked = Client::connect(runtime, Callee::Primary, ANSWER_TIMEOUT).and_then(|mut client| {
            let status = client.status()?;
            Ok((status, client.services()?))
        });
        match asked {
            Ok((status, services)) => (reading.primary, reading.services) = (Some(status), services),
            Err(error) => reading.troubles.push(error.to_string()),
        }
        let domains = self.config.sync.domains.iter().filter(|_| self.config.sync.enabled);
        for domain in domains {
            let secondary = Callee::Secondary(domain.numa);
            let asked = Client::connect(runtime, secondary, ANSWER_TIMEOUT)
                .and_then(|mut client| client.sync_status());
            match asked {
                Ok(status) => reading.sync.push(status),
                Err(error) => reading.troubles.push(error.to_string()),
            }
        }
        reading
    }

    fn read_files(&self, reading: &mut Reading) {
        let Some(files) = &self.files else { return };
        let threads = |(name, block)| Thread::read(name, block);
        reading.workers = counters::of_primary(&files.counters).map(threads).collect();
        // The primary's own block is the punt thread's.
        if let Some(last) = reading.workers.last_mut() {
            last.name = "punt".into();
        }
        reading.secondaries = counters::of_secondaries(&files.counters, &self.config).map(threads).collect();
        let domains = self.config.sync.domains.iter().zip(&files.states);
        reading.peers =
            domains.flat_map(|(domain, state)| state.peers().map(|peer| (domain.numa, peer))).collect();
        let fill = |(name, table): &(String, SessionTable)| TableFill {
            name: name.clone(),
            sessions: table.len(),
            capacity: table.capacity(),
        };
        reading.tables = files.tables.iter().map(fill).collect();
    }

    /// Has the node's files open that are there now.
    fn current_files(&mut self) -> Result<()> {
        let path = FileKind::Counters.path(&self.config.paths.hugepages, 0);
        let identity = std::fs::metadata(&path).ok().map(|file| (file.dev(), file.ino()));
        if self.files.as_ref().map(|files| files.identity) != identity || identity.is_none() {
            self.files = None;
            self.files = Some(Files::open(&self.config, identity.unwrap_or_default())?);
        }
        Ok(())
    }
}

impl Files {
    fn open(config: &Config, identity: (u64, u64)) -> Result<Files> {
        let counters = crate::files::counters(config)?;
        let directory = &config.paths.hugepages;
        let domains = || config.sync.domains.iter().filter(|_| config.sync.enabled);
        let local = (0..config.workers.len()).map(|n| (format!("worker-{n}"), FileKind::LocalTable, n as u8));
        let remote =
            domains().map(|domain| (format!("remote-{}", domain.numa), FileKind::RemoteTable, domain.numa.0));
        let tables = local.chain(remote).map(|(name, kind, number)| {
            Ok((name, SessionTable::open_read_only(&kind.path(directory, number), kind)?))
        });
        let states = domains()
            .map(|domain| Ok(state::attach_read_only(&FileKind::SyncState.path(directory, domain.numa.0))?));
        Ok(Files {
            identity,
            counters,
            tables: tables.collect::<Result<_>>()?,
            states: states.collect::<Result<_>>()?,
        })
    }
}
