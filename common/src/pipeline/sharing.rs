//! Sharing: what a worker must know to take part in the sessions of other nodes.

use std::sync::Arc;

use crate::membership::LiveMembers;
use crate::shm::shared::Mapped;
use crate::sync::state::SyncState;
use crate::time::Millis;

/// How sessions are shared with the other nodes.
pub struct Sharing {
    /// Who takes part: a session of a node that does not is claimed at once.
    pub members: Arc<LiveMembers>,
    /// How long packets of a client must keep coming before a living owner's session is claimed, milliseconds.
    pub claim_holdoff_ms: u32,
    /// Whether sessions may be opened.
    pub gate: OpenGate,
}

/// Whether a node may open sessions: not before it knows which of its local ports sessions on other nodes use, or has waited
/// for long enough.
///
/// A node that has lost its tables gets its sessions back from its peers; a port that it gave out before could be one of theirs.
/// Once it has been ready it knows its ports for as long as its tables last.
pub struct OpenGate {
    state: Option<Arc<Mapped<SyncState>>>,
    opens_at: Millis,
}

impl OpenGate {
    /// A gate that opens when `state` says that the node was ready, or at `opens_at`.
    pub fn new(state: Arc<Mapped<SyncState>>, opens_at: Millis) -> OpenGate {
        OpenGate { state: Some(state), opens_at }
    }

    /// A gate that is open.
    pub fn open() -> OpenGate {
        OpenGate { state: None, opens_at: Millis(0) }
    }

    /// Whether sessions may be opened now. Once they may, they always may.
    #[inline]
    pub fn is_open(&mut self, now: Millis) -> bool {
        let Some(state) = &self.state else { return true };
        if now < self.opens_at && !state.was_ready() {
            return false;
        }
        self.state = None;
        true
    }
}
