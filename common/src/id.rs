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

impl Generation {
    /// The lower bits count a session's owners, the others the sessions under its key.
    const OWNER_BITS: u32 = 3;

    /// That of the same session with its next owner. Whoever is the ninth owner of one session seems to have another one.
    pub fn of_next_owner(self) -> Generation {
        Generation(self.0.saturating_add(1))
    }

    /// That of the next session under the same key: higher than any that another owner of this one has.
    pub fn of_next_session(self) -> Generation {
        Generation((self.0 | ((1 << Self::OWNER_BITS) - 1)).saturating_add(1))
    }

    /// Whether both are of one session, whoever owns it.
    pub fn is_of_one_session(self, other: Generation) -> bool {
        self.0 >> Self::OWNER_BITS == other.0 >> Self::OWNER_BITS
    }
}
identity!(
    /// A slot of a table's record slab.
    RecordIndex(u32)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_session_is_newer_than_this_one_with_any_owner() {
        let first = Generation(1);
        let claimed = first.of_next_owner().of_next_owner();
        assert!(first.is_of_one_session(claimed) && claimed > first);
        let reopened = first.of_next_session();
        assert!(reopened > claimed && !reopened.is_of_one_session(claimed));
        assert_eq!(claimed.of_next_session(), reopened);
        assert_eq!(Generation(u32::MAX).of_next_session(), Generation(u32::MAX));
    }
}
