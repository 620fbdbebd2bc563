//! The header of a datagram: who sends it, in which life, and where it stands in its stream.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::id::{KeyId, NodeId, NumaId};
use crate::sync::Reject;

/// The first four bytes of every datagram: `BATN`.
pub const MAGIC: [u8; 4] = *b"BATN";

/// The version that is spoken here.
pub const VERSION: u8 = 1;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;

/// Streams that a sender may have, and whose positions every receiver keeps.
pub const STREAMS_MAX: usize = 4;

/// A sequence of datagrams of one sender, numbered on its own. Less than [`STREAMS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u8);

impl StreamId {
    /// What happens to sessions, as it happens.
    pub const CHANGES: StreamId = StreamId(0);
    /// Ranges of a table sent again as a whole, because single changes were lost.
    pub const RANGES: StreamId = StreamId(1);
    /// Every stream that a receiver accepts.
    pub const ALL: [StreamId; STREAMS_MAX] = [StreamId(0), StreamId(1), StreamId(2), StreamId(3)];

    /// The stream with this number, if there is one.
    pub fn from_number(number: u8) -> Option<StreamId> {
        (usize::from(number) < STREAMS_MAX).then_some(StreamId(number))
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its position in arrays of [`STREAMS_MAX`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A datagram's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster that the sender belongs to.
    pub cluster: u32,
    /// The sender. Not zero.
    pub node: NodeId,
    /// The sender's NUMA node: with the node, it names one sync secondary.
    pub numa: NumaId,
    /// The key that the records are sealed with; `None` if they are in the clear.
    pub key: Option<KeyId>,
    /// Whom it is for, node and NUMA node; `None` if every peer gets the same.
    pub to: Option<(NodeId, NumaId)>,
    /// The stream.
    pub stream: StreamId,
    /// When the sender's sequence numbers began: a later life has a higher number. Not zero.
    pub boot_epoch: u64,
    /// Position in the stream; 1 is the first.
    pub sequence: u64,
    /// Which membership the sender goes by; 0 with static peers.
    pub membership_epoch: u32,
}

/// The fixed layout of a header.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HeaderLayout {
    magic: [u8; 4],
    version: u8,
    stream: u8,
    flags: U16,
    cluster: U32,
    membership_epoch: U32,
    node: U16,
    numa: u8,
    key: u8,
    to_node: U16,
    to_numa: u8,
    reserved: u8,
    boot_epoch: U64,
    sequence: U64,
}

const _: () = {
    assert!(size_of::<HeaderLayout>() == HEADER_BYTES && align_of::<HeaderLayout>() == 1);
    assert!(std::mem::offset_of!(HeaderLayout, cluster) == 8);
    assert!(std::mem::offset_of!(HeaderLayout, node) == 16);
    assert!(std::mem::offset_of!(HeaderLayout, to_node) == 20);
    assert!(std::mem::offset_of!(HeaderLayout, boot_epoch) == 24);
    assert!(std::mem::offset_of!(HeaderLayout, sequence) == 32);
};

impl Header {
    /// The header as bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let (to_node, to_numa) = self.to.unwrap_or_default();
        zerocopy::transmute!(HeaderLayout {
            magic: MAGIC,
            version: VERSION,
            stream: self.stream.0,
            flags: U16::ZERO,
            cluster: U32::new(self.cluster),
            membership_epoch: U32::new(self.membership_epoch),
            node: U16::new(self.node.0),
            numa: self.numa.0,
            key: self.key.unwrap_or_default().0,
            to_node: U16::new(to_node.0),
            to_numa: to_numa.0,
            reserved: 0,
            boot_epoch: U64::new(self.boot_epoch),
            sequence: U64::new(self.sequence),
        })
    }

    /// Splits a datagram into its header and its records, which are still sealed if the header names a key.
    ///
    /// # Errors
    /// The first of `Truncated`, `Magic`, `Version`, `Reserved`, `HeaderField` that applies. Whether the sender is
    /// welcome is not decided here.
    pub fn decode(datagram: &[u8]) -> Result<(Header, &[u8]), Reject> {
        let (layout, records) = HeaderLayout::ref_from_prefix(datagram).map_err(|_| Reject::Truncated)?;
        if layout.magic != MAGIC {
            return Err(Reject::Magic);
        }
        if layout.version != VERSION {
            return Err(Reject::Version);
        }
        if layout.flags != U16::ZERO || layout.reserved != 0 {
            return Err(Reject::Reserved);
        }
        let stream = StreamId::from_number(layout.stream).ok_or(Reject::HeaderField)?;
        let header = Header {
            cluster: layout.cluster.get(),
            node: NodeId(layout.node.get()),
            numa: NumaId(layout.numa),
            key: (layout.key != 0).then_some(KeyId(layout.key)),
            to: (layout.to_node != U16::ZERO).then(|| (NodeId(layout.to_node.get()), NumaId(layout.to_numa))),
            stream,
            boot_epoch: layout.boot_epoch.get(),
            sequence: layout.sequence.get(),
            membership_epoch: layout.membership_epoch.get(),
        };
        if header.node.0 == 0
            || header.boot_epoch == 0
            || header.sequence == 0
            || header.to.is_none() && layout.to_numa != 0
        {
            return Err(Reject::HeaderField);
        }
        Ok((header, records))
    }
}
