//! Membership: which nodes take part in the cluster.
//!
//! With static membership that is what the config says: it changes only with a restart.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::NodeId;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_members_come_and_go() {
        let members = LiveMembers::new([NodeId(1), NodeId(65_535)]);
        assert!(members.contains(NodeId(65_535)) && !members.contains(NodeId(64)));
        members.insert(NodeId(64));
        members.remove(NodeId(1));
        let present: Vec<u16> = (0..=u16::MAX).filter(|node| members.contains(NodeId(*node))).collect();
        assert_eq!(present, [64, 65_535]);
    }
}
