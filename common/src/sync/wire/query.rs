//! The query: a worker missed a session, and the peers are asked for it.

use crate::flow::FlowKey;
use crate::session::Direction;

/// A session, named by the key of the packet that missed it. The same in the question and in the answer that the
/// asked one does not own it; the other answer is an upsert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sought {
    /// Whether the key is the client-side one (`Inbound`) or the server-side one.
    pub direction: Direction,
    /// The key.
    pub key: FlowKey,
}
