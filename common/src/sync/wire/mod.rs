//! The wire format, version 1: a header, then records as little-endian TLV. `docs/wire-format.md` describes it byte by byte.
//!
//! One datagram is decoded on its own: there is no state here, and no byte sequence makes it panic or loop.

mod batch;
mod body;
mod control;
mod dictionary;
mod entry;
mod extension;
mod family;
#[cfg(test)]
mod golden;
mod header;
mod hello;
mod interner;
mod item;
mod nack;
mod news;
mod query;
mod range;
mod reader;
mod record;
mod remaining;
mod runs;
#[cfg(test)]
pub(super) mod tests;
mod vocabulary;

pub use batch::{BatchWriter, DATAGRAM_BYTES_MIN, PushError};
pub use body::{Body, Record};
pub use header::{HEADER_BYTES, Header, MAGIC, STREAMS_MAX, StreamId, VERSION};
pub use hello::{EpochHeard, Hello, NodeState};
pub use nack::Nack;
pub use news::{Brief, Ended, Refreshed, Reported};
pub use query::Sought;
pub use range::{Credit, RangeBegin, RangeDigest, RangeEnd, RangeId, RangeRequest};
pub use reader::{Piece, Reader, Records, UpsertItems, Upserts};
pub use record::RecordType;
pub use remaining::Remaining;

/// Bytes that a datagram may have so that it fits one unfragmented packet of `mtu` bytes to a peer of this address family.
/// `overhead` is what encryption adds to it, if anything.
pub const fn payload_bytes_max(mtu: u16, ipv6: bool, overhead: usize) -> usize {
    let headers = if ipv6 { 40 + 8 } else { 20 + 8 };
    (mtu as usize).saturating_sub(headers + overhead)
}
