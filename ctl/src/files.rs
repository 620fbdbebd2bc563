//! The node's shared files, read without changing them, whether anything of Baton runs or not.

use anyhow::{Context, Result};
use baton_common::config::Config;
use baton_common::counter::CounterFile;
use baton_common::id::NumaId;
use baton_common::session::Session;
use baton_common::session::table::SessionTable;
use baton_common::shm::header::FileKind;
use baton_common::sync::state::{self, PeerSnapshot};

use crate::filter::{SessionFilter, TableKind};
use crate::sessions::TableName;

/// What to do about a file that is missing or not usable.
const REMEDY: &str = "are the node's files there? `baton-hugepages apply` makes them";

/// An open session table.
pub struct OpenTable {
    name: TableName,
    table: SessionTable,
}

impl OpenTable {
    /// Visits every session, and says how many records could not be read.
    pub fn scan(&self, visit: &mut dyn FnMut(TableName, Session)) -> u64 {
        let scanned = self.table.scan(0, self.table.capacity(), |_, session| visit(self.name, session));
        u64::from(scanned.unreadable)
    }
}

/// Opens the tables that the filter wants: the workers', and with synchronisation the NUMA nodes'.
pub fn tables(config: &Config, filter: &SessionFilter) -> Result<Vec<OpenTable>> {
    let local =
        (0..config.workers.len()).map(|worker| (TableKind::Local, FileKind::LocalTable, worker as u8));
    let domains = config.sync.domains.iter().filter(|_| config.sync.enabled);
    let remote = domains.map(|domain| (TableKind::Remote, FileKind::RemoteTable, domain.numa.0));
    local
        .chain(remote)
        .filter(|(kind, ..)| filter.wants_table(*kind))
        .map(|(kind, file, number)| {
            let path = file.path(&config.paths.hugepages, number);
            let table = SessionTable::open_read_only(&path, file).context(REMEDY)?;
            Ok(OpenTable { name: TableName { kind, number }, table })
        })
        .collect()
}

/// Opens the counters.
pub fn counters(config: &Config) -> Result<CounterFile> {
    let path = FileKind::Counters.path(&config.paths.hugepages, 0);
    CounterFile::open_read_only(&path).context(REMEDY)
}

/// What each secondary of this node knows of its peers.
pub fn peers(config: &Config) -> Result<Vec<(NumaId, PeerSnapshot)>> {
    let mut peers = Vec::new();
    for domain in &config.sync.domains {
        let path = FileKind::SyncState.path(&config.paths.hugepages, domain.numa.0);
        let state = state::attach_read_only(&path).context(REMEDY)?;
        peers.extend(state.peers().map(|peer| (domain.numa, peer)));
    }
    Ok(peers)
}
