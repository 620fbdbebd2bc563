//! `batonctl peers`: what was heard from the other nodes.

use baton_common::config::Config;
use baton_common::id::NumaId;
use baton_common::sync::state::PeerSnapshot;
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
}

impl PeersReport {
    /// Puts what was heard beside what is configured.
    pub fn new(
        config: &Config,
        heard: &[(NumaId, PeerSnapshot)],
        counters: Vec<CounterValue>,
        now: Millis,
    ) -> PeersReport {
        let addresses = |node: u16| -> Vec<String> {
            let peers = config.sync.peers.iter().filter(|peer| peer.node.0 == node);
            peers.flat_map(|peer| &peer.addresses).map(ToString::to_string).collect()
        };
        let mut peers: Vec<PeerRow> = heard
            .iter()
            .map(|(by, peer)| PeerRow {
                node: peer.node.0,
                addresses: addresses(peer.node.0),
                heard: Some(Heard::new(*by, peer, now)),
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
        }
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
            "#silent",
            "#datagrams",
            "#records",
            "#gaps",
            "#late",
            "#rejected",
        ]);
        for peer in &self.peers {
            let mut row = vec![peer.node.to_string(), peer.addresses.join(" ")];
            match &peer.heard {
                Some(heard) => {
                    row.extend([
                        heard.numa.to_string(),
                        heard.by_numa.to_string(),
                        duration(heard.silent_ms),
                    ]);
                    let counts = [heard.datagrams, heard.records, heard.gaps, heard.late, heard.rejects];
                    row.extend(counts.map(|count| count.to_string()));
                }
                None => row.extend(["-", "-", "never"].map(String::from)),
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
