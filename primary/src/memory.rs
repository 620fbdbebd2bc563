//! The memory that outlives the primary: its tables, rings and counters in the hugetlbfs directory.

use std::sync::Arc;

use anyhow::Context;
use baton_common::config::Config;
use baton_common::counter::CounterFile;
use baton_common::flow::HashKey;
use baton_common::id::{NumaId, WorkerId};
use baton_common::membership::LiveMembers;
use baton_common::pipeline::{OpenGate, Reporter, Sharing};
use baton_common::session::table::{TableReader, TableWriter};
use baton_common::shm::header::FileKind;
use baton_common::shm::ring::{Consumer, Producer};
use baton_common::sync::state;
use baton_common::time::Millis;

/// One worker's part.
pub struct WorkerMemory {
    pub local: TableWriter,
    pub remote: Option<TableReader>,
    pub reporter: Option<Reporter>,
    pub sync_rx: Option<Producer>,
    pub sync_tx: Option<Consumer>,
    pub sharing: Option<Sharing>,
}

/// Maps every worker's part. The local tables are taken over: whatever a dead predecessor left half done is put right,
/// and the sessions in them go on.
///
/// # Errors
/// A file is missing, of another version or geometry, or in use.
pub fn attach(config: &Config) -> anyhow::Result<Vec<WorkerMemory>> {
    let peers = config.sync.peers.iter().map(|peer| peer.node);
    let members = Arc::new(LiveMembers::new(peers.chain([config.node.id])));
    (0..config.workers.len())
        .map(|worker| {
            attach_worker(config, WorkerId(worker as u8), &members)
                .with_context(|| format!("attaching the memory of worker {worker}"))
        })
        .collect()
}

/// The counters of all threads of the node. They stay mapped for the life of the process.
///
/// # Errors
/// As for [`attach`].
pub fn attach_counters(config: &Config) -> anyhow::Result<&'static CounterFile> {
    let path = FileKind::Counters.path(&config.paths.hugepages, 0);
    Ok(Box::leak(Box::new(CounterFile::open(&path).context("attaching the counters")?)))
}

fn attach_worker(
    config: &Config,
    worker: WorkerId,
    members: &Arc<LiveMembers>,
) -> anyhow::Result<WorkerMemory> {
    let directory = &config.paths.hugepages;
    let numa = config.workers[usize::from(worker.0)].numa;
    let local = TableWriter::attach(&FileKind::LocalTable.path(directory, worker.0), FileKind::LocalTable)?;
    if !config.sync.enabled {
        return Ok(WorkerMemory {
            local,
            remote: None,
            reporter: None,
            sync_rx: None,
            sync_tx: None,
            sharing: None,
        });
    }
    let events = Producer::attach(&FileKind::EventRing.path(directory, worker.0), FileKind::EventRing)?;
    let sync_rx = Producer::attach(&FileKind::SyncRxRing.path(directory, worker.0), FileKind::SyncRxRing)?;
    let sync_tx = if is_first_of_numa(config, worker, numa) {
        Some(Consumer::attach(&FileKind::SyncTxRing.path(directory, numa.0), FileKind::SyncTxRing)?)
    } else {
        None
    };
    let remote = TableReader::attach(
        &FileKind::RemoteTable.path(directory, numa.0),
        FileKind::RemoteTable,
        usize::from(worker.0),
    )?;
    let state = state::attach_read_only(&FileKind::SyncState.path(directory, numa.0))?;
    let opens_at = Millis::now() + u64::from(config.sync.ready_timeout_ms);
    let sharing = Sharing {
        members: Arc::clone(members),
        claim_holdoff_ms: config.sync.claim_holdoff_ms,
        gate: OpenGate::new(Arc::new(state), opens_at),
    };
    Ok(WorkerMemory {
        reporter: Some(Reporter::new(events, local.capacity())),
        local,
        remote: Some(remote),
        sync_rx: Some(sync_rx),
        sync_tx,
        sharing: Some(sharing),
    })
}

/// Whether the worker is the one of its NUMA node that sends on the secondary's behalf.
fn is_first_of_numa(config: &Config, worker: WorkerId, numa: NumaId) -> bool {
    config.workers.iter().position(|other| other.numa == numa) == Some(usize::from(worker.0))
}

/// The key of the steering plan: it lies in a file that outlives the primary, so that clients stay with their worker.
pub fn steering_key(workers: &[WorkerMemory]) -> HashKey {
    workers.first().map_or(HashKey([0; 2]), |worker| worker.local.hash_key())
}
