//! A look into a node from outside: its counters, tables and status, without changing anything.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_common::config::Config;
use baton_common::control::{Callee, Client, Status};
use baton_common::counter::{Counter, CounterBlock, CounterFile};
use baton_common::flow::FlowKey;
use baton_common::id::NodeId;
use baton_common::session::Session;
use baton_common::session::table::SessionTable;
use baton_common::shm::header::FileKind;
use baton_common::sync::state;
use baton_common::sync::wire::{STREAMS_MAX, StreamId};

use crate::node;
use crate::state::Lab;

/// How long the primary may take to answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Sessions by their client-side key.
pub type Sessions = HashMap<FlowKey, Session>;

/// The sequence numbers of a node's sync streams.
pub type Sequences = [u64; STREAMS_MAX];

/// A node, looked at. Files are mapped for the time of a look only: the lab's memory can be removed at any time.
pub struct Observer {
    config: Config,
}

/// All counters of a node, summed over its threads.
#[derive(Clone, Debug)]
pub struct Counts(BTreeMap<Counter, u64>);

impl Observer {
    /// Looks into node `number` of a lab.
    ///
    /// # Errors
    /// If its configuration cannot be read.
    pub fn new(lab: &Lab, number: u16) -> Result<Self> {
        Ok(Self { config: Config::load(&node::config_path(lab, number))? })
    }

    /// What the primary says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Status> {
        Ok(Client::connect(&self.config.paths.runtime, Callee::Primary, STATUS_TIMEOUT)?.status()?)
    }

    /// The counters.
    ///
    /// # Errors
    /// If their file cannot be read.
    pub fn counters(&self) -> Result<Counts> {
        let file = CounterFile::open_read_only(&FileKind::Counters.path(&self.config.paths.hugepages, 0))?;
        let workers = (0..file.workers()).filter_map(|worker| file.worker(worker));
        let domains = (0..file.sync_domains()).filter_map(|domain| file.sync(domain));
        let blocks: Vec<&CounterBlock> = workers.chain([file.control()]).chain(domains).collect();
        let total = |counter| blocks.iter().map(|block| block.value(counter)).sum();
        Ok(Counts(Counter::ALL.iter().map(|&counter| (counter, total(counter))).collect()))
    }

    /// The sessions of the node's own workers.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn local_sessions(&self) -> Result<Sessions> {
        let mut sessions = Sessions::new();
        for worker in 0..self.config.workers.len() {
            self.scan(FileKind::LocalTable, worker as u8, &mut sessions)?;
        }
        Ok(sessions)
    }

    /// The sessions that other nodes told this one of.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn remote_sessions(&self) -> Result<Sessions> {
        let mut sessions = Sessions::new();
        for domain in &self.config.sync.domains {
            self.scan(FileKind::RemoteTable, domain.numa.0, &mut sessions)?;
        }
        Ok(sessions)
    }

    fn scan(&self, kind: FileKind, number: u8, sessions: &mut Sessions) -> Result<()> {
        let path = kind.path(&self.config.paths.hugepages, number);
        let table = SessionTable::open_read_only(&path, kind)?;
        table.scan(0, table.capacity(), |_, session| {
            sessions.insert(session.client_key(), session);
        });
        Ok(())
    }

    /// The last sequence numbers that the node's secondary used.
    ///
    /// # Errors
    /// If the sync state cannot be read.
    pub fn sent_sequences(&self) -> Result<Sequences> {
        let state = state::attach_read_only(&self.sync_state())?;
        Ok(StreamId::ALL.map(|stream| state.last_sequence(stream)))
    }

    /// The highest sequence numbers that the node's secondary has received from node `sender`.
    ///
    /// # Errors
    /// If the sync state cannot be read.
    pub fn heard_sequences(&self, sender: u16) -> Result<Sequences> {
        let state = state::attach_read_only(&self.sync_state())?;
        let peer = state.peers().find(|peer| peer.node == NodeId(sender));
        Ok(peer.map_or([0; STREAMS_MAX], |peer| peer.highest))
    }

    fn sync_state(&self) -> std::path::PathBuf {
        FileKind::SyncState.path(&self.config.paths.hugepages, 0)
    }
}

impl Counts {
    /// One counter.
    pub fn of(&self, counter: Counter) -> u64 {
        self.0.get(&counter).copied().unwrap_or(0)
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Counts) -> Counts {
        let grown =
            self.0.iter().map(|(&counter, &count)| (counter, count.wrapping_sub(earlier.of(counter))));
        Counts(grown.collect())
    }

    /// The drops, by their reason's name, those above zero.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let drops =
            self.0.iter().filter(|(counter, count)| counter.name().starts_with("drop_") && **count > 0);
        drops.map(|(counter, count)| (counter.name().to_owned(), *count)).collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counted = self.0.iter().filter(|(_, count)| **count > 0);
        counted.try_for_each(|(counter, count)| writeln!(f, "{} {count}", counter.name()))
    }
}

/// The name of a steering backend for people.
pub fn steering_words(name: &str) -> String {
    match name {
        "tap_bpf" => "tap_bpf, by an eBPF program in the tap device".into(),
        "rte_flow" => "rte_flow, by rules in the port".into(),
        "software" => "software, by handing over between processes".into(),
        other => other.into(),
    }
}

/// The number and the role of every Baton process of a node.
///
/// # Errors
/// If one does not run.
pub fn process_numbers(lab: &Lab, number: u16) -> Result<Vec<(node::Role, u32)>> {
    let roles = node::Role::of(lab).iter();
    roles
        .map(|&role| {
            let process = lab.processes.get(&node::process_key(number, role)).filter(|p| p.id.is_alive());
            Ok((role, process.with_context(|| format!("the {role} of n{number} does not run"))?.id.pid))
        })
        .collect()
}
