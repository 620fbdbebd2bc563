//! The memory that outlives the secondary: tables, rings, counters and its own state in the hugetlbfs directory.

use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use baton_common::config::{Config, SyncDomain};
use baton_common::counter::{CounterBlock, CounterFile};
use baton_common::id::{NumaId, SyncDomainId, WorkerId};
use baton_common::session::table::{TableError, TableReader, TableWriter};
use baton_common::shm::header::FileKind;
use baton_common::shm::region::{Region, RegionError};
use baton_common::shm::ring::{Consumer, Producer};
use baton_common::sync::state::{self, SyncState};
use baton_common::sync::tables::{SharedTables, WorkerTable};

use crate::lock;
use crate::reports::Source;

/// Everything that one secondary maps.
pub struct Memory {
    /// The sessions of other nodes, whose only structural writer this process is, and every worker's table.
    pub tables: SharedTables,
    /// The event rings of the workers of this NUMA node.
    pub sources: Vec<Source>,
    /// Datagrams that reached the workers of this NUMA node.
    pub from_workers: Vec<Consumer>,
    /// Frames that a worker sends on this secondary's behalf.
    pub to_worker: Producer,
}

/// What is mapped once for the life of the process: there is one writer of it, whoever has the part.
#[derive(Clone, Copy)]
pub struct Records {
    /// Where this secondary and its peers stand.
    pub state: &'static SyncState,
    /// The datagrams that it sent last.
    pub ring: &'static [AtomicU64],
    /// This thread's counters.
    pub counters: &'static CounterBlock,
}

impl Records {
    /// Maps them. Nothing is written.
    ///
    /// # Errors
    /// A file is missing, or of another version or geometry.
    pub fn attach(config: &Config, id: SyncDomainId, domain: &SyncDomain) -> anyhow::Result<Records> {
        let path = FileKind::SyncState.path(&config.paths.hugepages, domain.numa.0);
        let state = state::attach(&path).context("attaching the sync state")?;
        let ring = state::attach_ring(&path).context("attaching the datagrams that were sent last")?;
        Ok(Records {
            state: Box::leak(Box::new(state)),
            ring: Box::leak(Box::new(ring)),
            counters: attach_counters(config, id)?,
        })
    }

    /// Begins or resumes this sender's life. For who has the part.
    ///
    /// # Errors
    /// The machine's clock is not set.
    pub fn begin(&self, numa: NumaId) -> anyhow::Result<()> {
        let clock =
            SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970: set it")?;
        let boot_epoch = self.state.begin(clock.as_nanos() as u64);
        tracing::info!(numa = numa.0, epoch = boot_epoch, "sync state");
        Ok(())
    }
}

impl Memory {
    /// Looks whether everything is there and of this build, without taking anything from who has the part.
    ///
    /// # Errors
    /// A file is missing, or of another version or geometry.
    pub fn check(config: &Config, domain: &SyncDomain) -> anyhow::Result<()> {
        let look = |kind: FileKind, number: u8| {
            let path = kind.path(&config.paths.hugepages, number);
            Region::open(&path, kind).map(drop).with_context(|| format!("checking {}", path.display()))
        };
        look(FileKind::RemoteTable, domain.numa.0)?;
        look(FileKind::SyncTxRing, domain.numa.0)?;
        for (number, worker) in (0u8..).zip(&config.workers) {
            look(FileKind::LocalTable, number)?;
            if worker.numa == domain.numa {
                look(FileKind::EventRing, number)?;
                look(FileKind::SyncRxRing, number)?;
            }
        }
        Ok(())
    }

    /// Maps everything, and takes the remote table over: what a dead predecessor left half done is put right.
    ///
    /// # Errors
    /// A file is missing, of another version or geometry, or another process is the remote table's writer.
    pub fn attach(config: &Config, id: SyncDomainId, domain: &SyncDomain) -> anyhow::Result<Memory> {
        let directory = &config.paths.hugepages;
        let began = Instant::now();
        let remote = take_over(&FileKind::RemoteTable.path(directory, domain.numa.0))
            .context("taking the remote table over")?;
        let recovery = remote.recovery();
        tracing::info!(
            numa = domain.numa.0,
            count = recovery.sessions,
            interrupted = recovery.change_interrupted,
            odd_buckets = recovery.odd_buckets,
            dropped = recovery.sessions_dropped,
            elapsed_ms = began.elapsed().as_millis() as u64,
            "took the remote table over"
        );
        let tables = (0u8..).zip(&config.workers).map(|(number, worker)| {
            let path = FileKind::LocalTable.path(directory, number);
            // Nobody but secondaries reads workers' tables: each has the slot with its number.
            let table = TableReader::attach(&path, FileKind::LocalTable, id.0.into())
                .context("attaching a worker's table")?;
            Ok(WorkerTable { table, is_reported: worker.numa == domain.numa })
        });
        let tables = SharedTables::new(remote, tables.collect::<anyhow::Result<_>>()?);
        let neighbours = || (0u8..).zip(&config.workers).filter(|(_, worker)| worker.numa == domain.numa);
        let consumer = |worker: u8, kind: FileKind| {
            Consumer::attach(&kind.path(directory, worker), kind).context("attaching a worker's ring")
        };
        let sources = neighbours().map(|(worker, _)| {
            Ok(Source::new(
                WorkerId(worker),
                consumer(worker, FileKind::EventRing)?,
                config.tables.event_ring_slots,
                config.tables.local_sessions,
            ))
        });
        let sources = sources.collect::<anyhow::Result<_>>()?;
        let from_workers = neighbours().map(|(worker, _)| consumer(worker, FileKind::SyncRxRing));
        let from_workers = from_workers.collect::<anyhow::Result<_>>()?;
        let to_worker =
            Producer::attach(&FileKind::SyncTxRing.path(directory, domain.numa.0), FileKind::SyncTxRing)
                .context("attaching the ring to the worker")?;
        Ok(Memory { tables, sources, from_workers, to_worker })
    }
}

/// Takes the remote table's lock, which the kernel may be about to take from a killed predecessor.
fn take_over(path: &std::path::Path) -> Result<TableWriter, TableError> {
    let deadline = Instant::now() + lock::WAIT;
    loop {
        match TableWriter::attach(path, FileKind::RemoteTable) {
            Err(TableError::Region(RegionError::Locked { .. })) if Instant::now() < deadline => {
                std::thread::sleep(lock::POLL);
            }
            outcome => return outcome,
        }
    }
}

/// This secondary's counters. They stay mapped for the life of the process.
fn attach_counters(config: &Config, id: SyncDomainId) -> anyhow::Result<&'static CounterBlock> {
    let path = FileKind::Counters.path(&config.paths.hugepages, 0);
    let file: &'static CounterFile =
        Box::leak(Box::new(CounterFile::open(&path).context("attaching the counters")?));
    file.sync(id.0.into())
        .context("the counters file is of another configuration: run `baton-hugepages apply`")
}
