//! Identities: newtypes for the small integers that name nodes, workers, queues and services.

use std::fmt;

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

identity!(
    /// A node of the cluster, 1..=65535. Zero means "no node" in records and on the wire.
    NodeId(u16)
);
identity!(
    /// A NUMA node of this machine. Never leaves the machine except as part of a stream's name.
    NumaId(u8)
);
identity!(
    /// A forwarding worker of this node, counted from 0. Never leaves the machine.
    WorkerId(u8)
);
identity!(
    /// A queue of the port. Never leaves the machine.
    QueueId(u16)
);
identity!(
    /// A service: its position in this node's config. On the wire a service is named by its VIP, never by this.
    ServiceId(u16)
);
identity!(
    /// A sync domain: its position in this node's `sync.domains`. Never leaves the machine.
    SyncDomainId(u8)
);
identity!(
    /// A key of the sync protocol, 1..=255, the same on every node. Zero means "not sealed" on the wire.
    KeyId(u8)
);
identity!(
    /// How often a session has changed its owner. Only ever grows.
    Generation(u32)
);
identity!(
    /// A slot of a table's record slab.
    RecordIndex(u32)
);
