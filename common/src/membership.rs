//! Membership: which nodes take part in the cluster.
//!
//! With static membership that is what the config says: it changes only with a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{Config, DOMAINS_MAX};
use crate::flow::Address;
use crate::id::{NodeId, NumaId};

/// The other nodes of the cluster and their sync addresses, as the config lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoster {
    own: NodeId,
    /// In the order of the config.
    peers: Vec<(NodeId, Vec<Address>)>,
    nodes_by_address: HashMap<Address, NodeId>,
}

/// The nodes that take part now, for threads that look at it with every packet: one bit a node number, 8 KiB.
#[derive(Debug)]
pub struct LiveMembers {
    words: Box<[AtomicU64]>,
}

impl LiveMembers {
    /// Exactly these nodes.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> LiveMembers {
        let members = LiveMembers { words: (0..1024).map(|_| AtomicU64::new(0)).collect() };
        for node in nodes {
            members.insert(node);
        }
        members
    }

    /// Whether a node takes part.
    #[inline]
    pub fn contains(&self, node: NodeId) -> bool {
        self.words[usize::from(node.0) / 64].load(Ordering::Relaxed) >> (node.0 % 64) & 1 == 1
    }

    /// From now on the node takes part.
    pub fn insert(&self, node: NodeId) {
        self.words[usize::from(node.0) / 64].fetch_or(1 << (node.0 % 64), Ordering::Relaxed);
    }

    /// From now on the node does not take part.
    pub fn remove(&self, node: NodeId) {
        self.words[usize::from(node.0) / 64].fetch_and(!(1 << (node.0 % 64)), Ordering::Relaxed);
    }
}

/// Why the sender of a datagram is not listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMember {
    /// The node id is this node's own.
    Own,
    /// No peer has this node id.
    UnknownNode,
    /// The node is a peer, but the datagram came from an address that is not the peer's.
    ForeignAddress,
    /// A peer has at most [`DOMAINS_MAX`] sync domains, and this NUMA node's number is out of DPDK's range.
    NumaOutOfRange,
}

impl StaticRoster {
    /// The members that `config` lists. With sync off there are none.
    pub fn new(config: &Config) -> StaticRoster {
        let listed = if config.sync.enabled { config.sync.peers.as_slice() } else { &[] };
        let addresses = |addresses: &[IpAddr]| addresses.iter().copied().map(Address::from).collect();
        let peers: Vec<(NodeId, Vec<Address>)> =
            listed.iter().map(|peer| (peer.node, addresses(&peer.addresses))).collect();
        let nodes_by_address =
            peers.iter().flat_map(|(node, of)| of.iter().map(|address| (*address, *node))).collect();
        StaticRoster { own: config.node.id, peers, nodes_by_address }
    }

    /// Whether a datagram from `source` may speak for `node`'s NUMA node `numa`. A peer sends for each of its NUMA nodes
    /// from any of its addresses: which address serves which NUMA node is its own affair.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn admit(&self, source: Address, node: NodeId, numa: NumaId) -> Result<(), NoMember> {
        if node == self.own {
            return Err(NoMember::Own);
        }
        if !self.is_member(node) {
            return Err(NoMember::UnknownNode);
        }
        if self.nodes_by_address.get(&source) != Some(&node) {
            return Err(NoMember::ForeignAddress);
        }
        if numa.0 > NUMA_MAX {
            return Err(NoMember::NumaOutOfRange);
        }
        Ok(())
    }

    /// Whether `node` takes part: as a peer, or as this node itself.
    pub fn is_member(&self, node: NodeId) -> bool {
        node == self.own || self.peers.iter().any(|(peer, _)| *peer == node)
    }

    /// The peer that has this sync address.
    pub fn node_at(&self, address: Address) -> Option<NodeId> {
        self.nodes_by_address.get(&address).copied()
    }

    /// The other nodes, and the sync addresses of each, in the order of the config.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = (NodeId, &[Address])> {
        self.peers.iter().map(|(node, addresses)| (*node, addresses.as_slice()))
    }
}

/// Largest number of a NUMA node (`RTE_MAX_NUMA_NODES` of Debian's DPDK is 32).
const NUMA_MAX: u8 = 31;

const _: () = assert!(DOMAINS_MAX <= NUMA_MAX as usize + 1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SAMPLE;

    const PEER: Address = Address::v4([192, 0, 2, 102]);

    fn roster() -> StaticRoster {
        StaticRoster::new(&Config::parse(SAMPLE, "sample").unwrap())
    }

    #[test]
    fn a_peer_is_admitted_from_its_own_address_only() {
        let roster = roster();
        assert_eq!(roster.admit(PEER, NodeId(2), NumaId(0)), Ok(()));
        assert_eq!(roster.admit(PEER, NodeId(2), NumaId(1)), Ok(()));
        let stranger = Address::v4([192, 0, 2, 103]);
        assert_eq!(roster.admit(stranger, NodeId(2), NumaId(0)), Err(NoMember::ForeignAddress));
    }

    #[test]
    fn strangers_and_echoes_are_not_admitted() {
        let roster = roster();
        assert_eq!(roster.admit(PEER, NodeId(1), NumaId(0)), Err(NoMember::Own));
        assert_eq!(roster.admit(PEER, NodeId(3), NumaId(0)), Err(NoMember::UnknownNode));
        assert_eq!(roster.admit(PEER, NodeId(0), NumaId(0)), Err(NoMember::UnknownNode));
        assert_eq!(roster.admit(PEER, NodeId(2), NumaId(200)), Err(NoMember::NumaOutOfRange));
    }

    #[test]
    fn members_are_this_node_and_its_peers() {
        let roster = roster();
        let members: Vec<_> = (0..5).filter(|node| roster.is_member(NodeId(*node))).collect();
        assert_eq!(members, [1, 2]);
        assert_eq!(roster.node_at(PEER), Some(NodeId(2)));
        assert_eq!(roster.peers().collect::<Vec<_>>(), [(NodeId(2), [PEER].as_slice())]);
    }

    #[test]
    fn live_members_come_and_go() {
        let members = LiveMembers::new([NodeId(1), NodeId(65_535)]);
        assert!(members.contains(NodeId(65_535)) && !members.contains(NodeId(64)));
        members.insert(NodeId(64));
        members.remove(NodeId(1));
        let present: Vec<u16> = (0..=u16::MAX).filter(|node| members.contains(NodeId(*node))).collect();
        assert_eq!(present, [64, 65_535]);
    }

    #[test]
    fn with_sync_off_nobody_is_a_peer() {
        let mut config = Config::parse(SAMPLE, "sample").unwrap();
        config.sync.enabled = false;
        let roster = StaticRoster::new(&config);
        assert_eq!(roster.peers().len(), 0);
        assert_eq!(roster.admit(PEER, NodeId(2), NumaId(0)), Err(NoMember::UnknownNode));
    }
}
