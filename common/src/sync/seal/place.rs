//! The place of a datagram: whose it is, to whom it goes and where it stands. Key and nonce follow from it.

use crate::id::{NodeId, NumaId};
use crate::sync::wire::Header;

/// Bytes of a nonce.
pub(super) const NONCE_BYTES: usize = 12;

/// One life of one sender: it has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub cluster: u32,
    pub node: NodeId,
    pub numa: NumaId,
    pub boot_epoch: u64,
}

/// Where a datagram stands within its origin: no two that differ stand at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The addressee; `None` if every peer gets the same datagram.
    pub to: Option<(NodeId, NumaId)>,
    pub stream: u8,
    pub sequence: u64,
}

impl Origin {
    pub fn of(header: &Header) -> Origin {
        let Header { cluster, node, numa, boot_epoch, .. } = *header;
        Origin { cluster, node, numa, boot_epoch }
    }

    /// What a key is derived for: all fields, little-endian, of fixed length.
    pub fn info(&self) -> [u8; 15] {
        let mut info = [0; 15];
        info[..4].copy_from_slice(&self.cluster.to_le_bytes());
        info[4..6].copy_from_slice(&self.node.0.to_le_bytes());
        info[6] = self.numa.0;
        info[7..].copy_from_slice(&self.boot_epoch.to_le_bytes());
        info
    }
}

impl Place {
    pub fn of(header: &Header) -> Place {
        Place { to: header.to, stream: header.stream.number(), sequence: header.sequence }
    }

    /// The nonce: all fields, little-endian. Different places have different nonces, as a node number is never zero.
    pub fn nonce(&self) -> [u8; NONCE_BYTES] {
        let (node, numa) = self.to.unwrap_or_default();
        let mut nonce = [0; NONCE_BYTES];
        nonce[..2].copy_from_slice(&node.0.to_le_bytes());
        nonce[2] = numa.0;
        nonce[3] = self.stream;
        nonce[4..].copy_from_slice(&self.sequence.to_le_bytes());
        nonce
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_place() -> impl Strategy<Value = Place> {
        // Few values, so that two places differ in one field as often as in several.
        let to =
            proptest::option::of((1u16..4, 0u8..3).prop_map(|(node, numa)| (NodeId(node), NumaId(numa))));
        (to, 0u8..4, prop_oneof![1u64..4, any::<u64>()]).prop_map(|(to, stream, sequence)| Place {
            to,
            stream,
            sequence,
        })
    }

    fn any_origin() -> impl Strategy<Value = Origin> {
        (0u32..3, 1u16..4, 0u8..3, prop_oneof![1u64..4, any::<u64>()]).prop_map(
            |(cluster, node, numa, boot_epoch)| Origin {
                cluster,
                node: NodeId(node),
                numa: NumaId(numa),
                boot_epoch,
            },
        )
    }

    proptest! {
        #[test]
        fn different_places_have_different_nonces(a in any_place(), b in any_place()) {
            prop_assert_eq!(a == b, a.nonce() == b.nonce());
        }

        #[test]
        fn different_origins_have_different_keys(a in any_origin(), b in any_origin()) {
            prop_assert_eq!(a == b, a.info() == b.info());
        }
    }
}
