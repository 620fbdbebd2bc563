//! A sync secondary's metrics: its counters, how far it is, and how far it is with each peer.

use std::sync::Arc;

use thiserror::Error;

use super::counters::{Counted, CounterFamilies};
use super::exposition::{Exposition, MetricKind};
use super::{Source, seconds_since_1970, write_identity, write_start, write_tables};
use crate::config::Config;
use crate::control::SyncStatus;
use crate::counter::{CounterFile, CounterFileError};
use crate::id::{NodeId, NumaId, SyncDomainId};
use crate::session::table::{SessionTable, TableError};
use crate::shm::header::FileKind;
use crate::shm::region::RegionError;
use crate::shm::shared::Mapped;
use crate::sync::protocol::readiness::{PeerView, ReadyState};
use crate::sync::state::{self, PeerSnapshot, SyncState};
use crate::time::Millis;

/// Why there are no metrics: a file of the NUMA node is missing or none of this build's.
#[derive(Debug, Error)]
pub enum SyncMetricsError {
    /// The counters.
    #[error(transparent)]
    Counters(#[from] CounterFileError),
    /// The remote table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The sync state.
    #[error(transparent)]
    State(#[from] RegionError),
}

/// Asks how the secondary is; `None` until it has said so first.
pub type AskStatus = Box<dyn Fn() -> Option<SyncStatus> + Send>;

/// A sync secondary's metrics.
pub struct SyncMetrics {
    config: Arc<Config>,
    numa: NumaId,
    domain: usize,
    counters: CounterFile,
    table: SessionTable,
    state: Mapped<SyncState>,
    status: AskStatus,
    families: CounterFamilies,
    began: f64,
}

impl SyncMetrics {
    /// Maps what the NUMA node's files hold, read-only.
    ///
    /// # Errors
    /// One of them cannot be mapped.
    pub fn new(
        config: Arc<Config>,
        id: SyncDomainId,
        numa: NumaId,
        status: AskStatus,
    ) -> Result<SyncMetrics, SyncMetricsError> {
        let directory = &config.paths.hugepages;
        let table = FileKind::RemoteTable.path(directory, numa.0);
        Ok(SyncMetrics {
            counters: CounterFile::open_read_only(&FileKind::Counters.path(directory, 0))?,
            table: SessionTable::open_read_only(&table, FileKind::RemoteTable)?,
            state: state::attach_read_only(&FileKind::SyncState.path(directory, numa.0))?,
            config,
            numa,
            domain: id.0.into(),
            status,
            families: CounterFamilies::new(Counted::Sync),
            began: seconds_since_1970(),
        })
    }
}

impl Source for SyncMetrics {
    fn write(&self, to: &mut Exposition) {
        let numa = self.numa.to_string();
        write_identity(to, &self.config, &format!("sync-{numa}"));
        write_start(to, self.began);
        if let Some(block) = self.counters.sync(self.domain) {
            self.families.write(to, &[(vec![("numa", numa.clone())], block)]);
        }
        write_tables(to, "remote", "numa", &[(numa.clone(), self.table.len(), self.table.capacity())]);
        let heard: Vec<PeerSnapshot> = self.state.peers().collect();
        write_heard(to, &numa, &heard);
        write_up(to, &numa, &self.config, &heard, Millis::now());
        if let Some(status) = (self.status)() {
            write_status(to, &numa, &status);
            write_progress(to, &numa, &status.peers);
        }
    }
}

/// Whether each configured peer speaks.
fn write_up(to: &mut Exposition, numa: &str, config: &Config, heard: &[PeerSnapshot], now: Millis) {
    let last_heard = |node: NodeId| {
        let times =
            heard.iter().filter(|peer| peer.node == node).map(|peer| now.since(Millis(peer.last_heard_ms)));
        times.min()
    };
    to.family(
        "baton_sync_peer_up",
        MetricKind::Gauge,
        "Whether the peer was heard in the last 3.5 seconds: 1 or 0.",
    );
    for peer in &config.sync.peers {
        let up = last_heard(peer.node).is_some_and(|silent| silent <= PeerView::SILENCE_MS);
        to.sample(&[("numa", numa), ("peer", &peer.node.to_string())], up.into());
    }
}

/// What was heard of each peer, since the sync state was made.
fn write_heard(to: &mut Exposition, numa: &str, heard: &[PeerSnapshot]) {
    type Count = fn(&PeerSnapshot) -> u64;
    let families: [(&str, &str, Count); 5] = [
        ("baton_sync_peer_datagrams_total", "Datagrams of the peer accepted.", |peer| peer.datagrams),
        ("baton_sync_peer_records_total", "Records of the peer applied.", |peer| peer.records),
        (
            "baton_sync_peer_skipped_datagrams_total",
            "Sequence numbers of the peer skipped: lost or late.",
            |peer| peer.gaps,
        ),
        ("baton_sync_peer_late_datagrams_total", "Datagrams that came after a later one.", |peer| peer.late),
        (
            "baton_sync_peer_rejected_total",
            "Datagrams and records of the peer that were not believed.",
            |peer| peer.rejects,
        ),
    ];
    for (name, help, count) in families {
        to.family(name, MetricKind::Counter, help);
        for peer in heard {
            let (node, peer_numa) = (peer.node.to_string(), peer.numa.to_string());
            to.sample(&[("numa", numa), ("peer", &node), ("peer_numa", &peer_numa)], count(peer));
        }
    }
}

/// How far the secondary is.
fn write_status(to: &mut Exposition, numa: &str, status: &SyncStatus) {
    to.family(
        "baton_sync_state",
        MetricKind::Gauge,
        "1 for the state that the NUMA node is in, 0 for the others.",
    );
    for state in [ReadyState::Joining, ReadyState::Syncing, ReadyState::Ready, ReadyState::Draining] {
        to.sample(&[("numa", numa), ("state", state.name())], (status.state == state).into());
    }
    let gauges: [(&str, &str, u64); 3] = [
        ("baton_sync_alarm", "1 if the node should long be ready and is not.", status.alarm.into()),
        ("baton_sync_member", "1 if the node takes part, 0 if it is no member.", status.member.into()),
        (
            "baton_sync_owned_sessions",
            "Sessions that peers were told are this node's.",
            status.sessions_owned.into(),
        ),
    ];
    for (name, help, value) in gauges {
        to.family(name, MetricKind::Gauge, help);
        to.sample(&[("numa", numa)], value);
    }
}

/// How far the secondary is with each peer. What a peer has not said yet has no sample.
fn write_progress(to: &mut Exposition, numa: &str, peers: &[PeerView]) {
    type Value = fn(&PeerView) -> Option<u64>;
    let gauges: [(&str, &str, Value); 8] = [
        ("baton_sync_peer_announced_sessions", "Sessions that the peer says it owns.", |peer| {
            peer.announced.map(u64::from)
        }),
        ("baton_sync_peer_held_sessions", "Sessions of the peer held here.", |peer| Some(peer.held.into())),
        (
            "baton_sync_peer_equal",
            "1 if both had the same of the peer's sessions when last compared.",
            |peer| Some(peer.equal.into()),
        ),
        ("baton_sync_peer_differing_ranges", "Ranges that differed when last compared.", |peer| {
            Some(peer.differing.into())
        }),
        ("baton_sync_peer_missing_datagrams", "Datagrams of the peer missing now.", |peer| {
            Some(peer.missing)
        }),
        ("baton_sync_peer_wanted_ranges", "Ranges wanted of the peer now.", |peer| {
            Some(peer.ranges_wanted.into())
        }),
        ("baton_sync_peer_waiting_requests", "Ranges that the peer wants and that wait here.", |peer| {
            Some(peer.requests_waiting.into())
        }),
        (
            "baton_sync_peer_config_differs",
            "1 if the peer's services or timeouts are not this node's.",
            |peer| Some(peer.config_differs.into()),
        ),
    ];
    let counters: [(&str, &str, Value); 2] = [
        ("baton_sync_peer_repaired_ranges_total", "Ranges that differed and were made equal.", |peer| {
            Some(peer.repaired)
        }),
        ("baton_sync_peer_asked_again_datagrams_total", "Datagrams of the peer asked for again.", |peer| {
            Some(peer.asked_again)
        }),
    ];
    let gauges = gauges.map(|(name, help, value)| (name, MetricKind::Gauge, help, value));
    let counters = counters.map(|(name, help, value)| (name, MetricKind::Counter, help, value));
    for (name, kind, help, value) in gauges.into_iter().chain(counters) {
        to.family(name, kind, help);
        for peer in peers {
            let (node, peer_numa) = (peer.node.to_string(), peer.numa.to_string());
            if let Some(value) = value(peer) {
                to.sample(&[("numa", numa), ("peer", &node), ("peer_numa", &peer_numa)], value);
            }
        }
    }
}
