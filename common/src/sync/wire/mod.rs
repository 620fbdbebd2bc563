//! The wire format, version 1: a header, then records as little-endian TLV. `docs/wire-format.md` describes it byte by byte.
//!
//! One datagram is decoded on its own: there is no state here, and no byte sequence makes it panic or loop.

mod batch;
mod extension;
#[cfg(test)]
mod golden;
mod header;
mod layout;
mod record;

pub use batch::{BatchWriter, PushError};
pub use header::{HEADER_BYTES, Header, MAGIC, STREAMS_MAX, StreamId, VERSION};
pub use record::{Body, Ended, Record, RecordType, Refreshed, Reported, records};

/// Bytes of the shortest record that this version knows, its header included.
pub const RECORD_BYTES_MIN: usize = 23;

/// Bytes of the longest record that this version writes, its header included.
pub const RECORD_BYTES_MAX: usize = 87;

/// UDP payload that fits one unfragmented packet of `mtu` bytes to a peer of this address family.
pub const fn payload_bytes_max(mtu: u16, ipv6: bool) -> usize {
    let headers = if ipv6 { 40 + 8 } else { 20 + 8 };
    (mtu as usize).saturating_sub(headers)
}
