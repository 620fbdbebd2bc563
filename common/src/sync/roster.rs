//! The roster: who this secondary is, and whom it listens to.

use std::net::IpAddr;

use crate::config::Config;
use crate::id::{NodeId, NumaId};
use crate::membership::StaticRoster;

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

impl Roster for StaticRoster {
    fn is_member(&self, node: NodeId, numa: NumaId, address: IpAddr) -> bool {
        self.admit(address.into(), node, numa).is_ok()
    }
}
