//! The identity of a secondary: what it goes by in its datagrams.

use crate::config::Config;
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
