//! `batonctl peers`: what was heard from the other nodes, and how far this node is with each of them.

use baton_common::config::Config;
use baton_common::control::SyncStatus;
use baton_common::id::NumaId;
use baton_common::sync::protocol::readiness::PeerView;
use baton_common::sync::state::PeerSnapshot;
use baton_common::sync::wire::NodeState;
use baton_common::time::Millis;
use serde::Serialize;

use crate::counters::CounterValue;
use crate::report::{Report, duration, lines, table};

/// What was heard from the other nodes, by which secondary, and what the secondaries counted.
#[derive(Debug, Serialize)]
pub struct PeersReport {
    /// Whether the configuration has synchronisation switched on.
    pub sync_enabled: bool,
    /// One for each sender and secondary that heard it, and for each configured node that nobody heard.
    pub peers: Vec<PeerRow>,
    /// The secondaries' counters, those above zero.
    pub counters: Vec<CounterValue>,
}

/// One sender, as one secondary of this node heard it.
#[derive(Debug, Serialize)]
pub struct PeerRow {
    /// The sending node.
    pub node: u16,
    /// Its sync addresses by the configuration; none if it is no member any more.
    pub addresses: Vec<String>,
    /// What was heard; absent if nothing ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard: Option<Heard>,
}

/// What a secondary heard of a sender.
#[derive(Debug, Serialize)]
pub struct Heard {
    /// The NUMA node of this machine whose secondary heard it.
    pub by_numa: u8,
    /// The NUMA node of the sender.
    pub numa: u8,
    /// The sender's boot epoch.
    pub boot_epoch: u64,
    /// Milliseconds since the last datagram.
    pub silent_ms: u64,
    /// Datagrams accepted.
    pub datagrams: u64,
    /// Records applied.
    pub records: u64,
    /// Sequence numbers skipped: datagrams lost, or late.
    pub gaps: u64,
    /// Datagrams that came after a later one.
    pub late: u64,
    /// Datagrams and records rejected.
    pub rejects: u64,
    /// How far this node is with it; absent if the secondary does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<PeerView>,
}

impl PeersReport {
    /// Puts what was heard beside what is configured.
    pub fn new(
        config: &Config,
        heard: &[(NumaId, PeerSnapshot)],
        secondaries: &[SyncStatus],
        counters: Vec<CounterValue>,
        now: Millis,
    ) -> PeersReport {
        let addresses = |node: u16| -> Vec<String> {
            let peers = config.sync.peers.iter().filter(|peer| peer.node.0 == node);
            peers.flat_map(|peer| &peer.addresses).map(ToString::to_string).collect()
        };
        let progress = |by: NumaId, peer: &PeerSnapshot| {
            let secondary = secondaries.iter().find(|secondary| secondary.numa == by)?;
            let mut views = secondary.peers.iter();
            views.find(|view| (view.node, view.numa) == (peer.node.0, peer.numa.0)).cloned()
        };
        let mut peers: Vec<PeerRow> = heard
            .iter()
            .map(|(by, peer)| PeerRow {
                node: peer.node.0,
                addresses: addresses(peer.node.0),
                heard: Some(Heard { progress: progress(*by, peer), ..Heard::new(*by, peer, now) }),
            })
            .collect();
        for peer in &config.sync.peers {
            if heard.iter().all(|(_, known)| known.node != peer.node) {
                peers.push(PeerRow { node: peer.node.0, addresses: addresses(peer.node.0), heard: None });
            }
        }
        peers.sort_by_key(|peer| (peer.node, peer.heard.as_ref().map(|heard| (heard.by_numa, heard.numa))));
        PeersReport { sync_enabled: config.sync.enabled, peers, counters }
    }
}

impl Heard {
    fn new(by: NumaId, peer: &PeerSnapshot, now: Millis) -> Heard {
        Heard {
            by_numa: by.0,
            numa: peer.numa.0,
            boot_epoch: peer.boot_epoch,
            silent_ms: now.since(Millis(peer.last_heard_ms)),
            datagrams: peer.datagrams,
            records: peer.records,
            gaps: peer.gaps,
            late: peer.late,
            rejects: peer.rejects,
            progress: None,
        }
    }
}

impl Heard {
    fn columns(&self) -> Vec<String> {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let progress = self.progress.as_ref();
        let state = match progress {
            None => "secondary not running".to_owned(),
            Some(_) if self.silent_ms > PeerView::SILENCE_MS => "silent".to_owned(),
            Some(view) if view.config_differs => format!("{} (other configuration)", state_of(view)),
            Some(view) => state_of(view).to_owned(),
        };
        let digests = progress.map_or("-".to_owned(), |view| match (view.equal, view.differing) {
            (true, _) => "equal".to_owned(),
            (false, 0) => "not compared".to_owned(),
            (false, count) => format!("{count} differ"),
        });
        vec![
            self.numa.to_string(),
            self.by_numa.to_string(),
            state,
            number(progress.and_then(|view| view.announced).map(u64::from)),
            number(progress.map(|view| view.held.into())),
            digests,
            duration(self.silent_ms),
            self.gaps.to_string(),
            number(progress.map(|view| view.missing)),
            number(progress.map(|view| view.repaired)),
            number(progress.map(|view| u64::from(view.ranges_wanted) + u64::from(view.requests_waiting))),
            self.rejects.to_string(),
        ]
    }
}

/// How far a peer says it is.
pub fn state_of(view: &PeerView) -> &'static str {
    match view.state {
        None => "unknown",
        Some(NodeState::Joining) => "joining",
        Some(NodeState::Syncing) => "syncing",
        Some(NodeState::Ready) => "ready",
        Some(NodeState::Draining) => "draining",
    }
}

impl Report for PeersReport {
    fn text(&self) -> String {
        if !self.sync_enabled {
            return "synchronisation is off (sync.enabled)".into();
        }
        let mut table = table(&[
            "#node",
            "addresses",
            "#numa",
            "#by",
            "state",
            "#owns",
            "#held",
            "digests",
            "#silent",
            "#gaps",
            "#missing",
            "#repaired",
            "#queue",
            "#rejected",
        ]);
        for peer in &self.peers {
            let mut row = vec![peer.node.to_string(), peer.addresses.join(" ")];
            match &peer.heard {
                Some(heard) => row.extend(heard.columns()),
                None => row.extend(["-", "-", "never heard"].map(String::from)),
            }
            table.add_row(row);
        }
        let mut text = lines(&table);
        if !self.counters.is_empty() {
            text += "\n";
            let mut table = crate::report::table(&["counter", "#count", "unit"]);
            for counter in &self.counters {
                table.add_row([counter.name, &counter.total.to_string(), counter.unit]);
            }
            text += &lines(&table);
        }
        text
    }
}
