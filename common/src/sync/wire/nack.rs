//! The NACK: datagrams that are missing.

use super::StreamId;

/// Datagrams of the receiver's that the sender lacks and wants again. Who no longer has them does nothing: the digests will
/// show what was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The stream.
    pub stream: StreamId,
    /// The first missing sequence number; not 0.
    pub first: u64,
    /// How many are missing, beginning with the first; not 0.
    pub count: u16,
}
