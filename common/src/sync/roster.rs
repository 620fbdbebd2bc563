//! The roster: who this secondary is, and whom it listens to.

use std::net::IpAddr;

use crate::config::{Config, Peer};
use crate::id::{NodeId, NumaId};

/// Who this secondary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u32,
    /// This node.
    pub node: NodeId,
    /// The NUMA node that this secondary serves.
    pub numa: NumaId,
}

impl Identity {
    /// The secondary of `numa` on the node that `config` describes.
    pub fn new(config: &Config, numa: NumaId) -> Identity {
        Identity { cluster: config.node.cluster, node: config.node.id, numa }
    }
}

/// Whom a receiver listens to.
pub trait Roster {
    /// Whether this sender is a member and this address one of its own.
    fn is_member(&self, node: NodeId, numa: NumaId, address: IpAddr) -> bool;
}

impl<F: Fn(NodeId, NumaId, IpAddr) -> bool> Roster for F {
    fn is_member(&self, node: NodeId, numa: NumaId, address: IpAddr) -> bool {
        self(node, numa, address)
    }
}

/// Static membership: the peers of the config. Whichever of its NUMA nodes a peer sends for, the address must be listed.
impl Roster for &[Peer] {
    fn is_member(&self, node: NodeId, _numa: NumaId, address: IpAddr) -> bool {
        self.iter().any(|peer| peer.node == node && peer.addresses.contains(&address))
    }
}
