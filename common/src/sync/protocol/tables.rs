//! The tables as the protocol sees them: what this node's workers have, and what it holds of others.

use thiserror::Error;

use crate::flow::FlowKey;
use crate::id::{Generation, NodeId};
use crate::session::{Direction, Draft, Session, SessionState};
use crate::time::Millis;

/// A slot of the remote table, or of one of the workers' tables: those come after it, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u32);

/// A session and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its place.
    pub place: Place,
    /// Which way packets with the key that found it go through it.
    pub direction: Direction,
    /// What it was when it was read.
    pub session: Session,
}

/// A key's hash in these tables, and where the key may stand: who has it finds what the key leads to without making it again.
/// Good until the tables are told of a quiet moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash {
    /// The hash.
    pub hash: u64,
    /// The workers' tables that may have the key, a bit each.
    pub workers: u64,
}

/// The remote table has no room for another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the remote table is full")]
pub struct RemoteTableFull;

/// Every session that this node has.
///
/// The secondary alone changes the remote table's structure, workers their own tables'. Single fields are written in place by
/// both. A session of a worker's table whose owner is node 0 has been given up: the worker takes it out at leisure, and
/// meanwhile it counts for nobody.
pub trait Tables {
    /// Slots of the remote table: places below it are remote.
    fn remote_slots(&self) -> u32;

    /// Slots of all tables together.
    fn places(&self) -> u32;

    /// The session with this key, in the workers' tables or else in the remote one. Never one that was given up.
    fn find(&self, key: &FlowKey) -> Option<Held>;

    /// The session in a place, given up or not.
    fn session(&self, place: Place) -> Option<Session>;

    /// Adds a session to the remote table. The caller has made sure that neither of its keys is anywhere.
    ///
    /// # Errors
    /// There is no room.
    fn insert(&mut self, session: &Session) -> Result<Place, RemoteTableFull>;

    /// Takes a session out of the remote table. Does nothing to other places.
    fn remove(&mut self, place: Place);

    /// Changes who reports the session, and the generation with it.
    fn set_owner(&mut self, place: Place, owner: NodeId, generation: Generation);

    /// Changes where the session stands.
    fn set_state(&mut self, place: Place, state: SessionState);

    /// Changes when the session was last seen.
    fn touch(&mut self, place: Place, last_seen: Millis);

    /// Changes when the peers were told; for a session of another owner's, forgets what a claim is waiting for.
    fn set_last_sent(&mut self, place: Place, when: Millis);

    /// The hash of a key in these tables, by its [`FlowKey::words`].
    #[inline]
    fn hash(&self, _key: &[u64; 5]) -> KeyHash {
        KeyHash::default()
    }

    /// Has what [`Tables::find_hashed`] looks at brought near, for a moment later.
    #[inline]
    fn prefetch(&self, _hash: KeyHash) {}

    /// Has what [`Tables::insert_hashed`] writes to beside that brought near, `ahead` insertions before.
    #[inline]
    fn prefetch_vacant(&self, _ahead: usize) {}

    /// Has what [`Tables::session`] reads brought near.
    #[inline]
    fn prefetch_place(&self, _place: Place) {}

    /// [`Tables::find`], for who has the key's hash.
    #[inline]
    fn find_hashed(&self, _hash: KeyHash, key: &FlowKey) -> Option<Held> {
        self.find(key)
    }

    /// [`Tables::insert`], for who has the hashes of the client-side and the server-side key.
    ///
    /// # Errors
    /// There is no room.
    #[inline]
    fn insert_hashed(&mut self, session: &Session, _hashes: [KeyHash; 2]) -> Result<Place, RemoteTableFull> {
        self.insert(session)
    }

    /// Adds a session to the remote table if it is plain that neither of its keys is anywhere and that there is room: the usual
    /// case of news, in one step. `None`: nothing has changed, and the other calls tell why. The hashes are those of the
    /// client-side and the server-side key.
    fn insert_new(&mut self, session: &Draft<'_>, hashes: [KeyHash; 2]) -> Option<Place>;

    /// Whether what this node owns in a place is this secondary's to tell the peers of: not if it is in the table of a worker
    /// that another secondary serves.
    fn is_reported(&self, _place: Place) -> bool {
        true
    }

    /// Whether a place is in the remote table.
    fn is_remote(&self, place: Place) -> bool {
        place.0 < self.remote_slots()
    }
}
