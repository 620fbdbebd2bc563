//! The remote table as the receiver sees it: the sessions that other nodes own.

use thiserror::Error;

use crate::flow::FlowKey;
use crate::session::{Direction, Session};

/// The remote table has no room for another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the remote table is full")]
pub struct RemoteTableFull;

/// A table of sessions that are found under their client-side and their server-side key.
///
/// Only the NUMA node's secondary changes what is in it; workers change a session's age and state in place meanwhile.
pub trait RemoteTable {
    /// The session with this key, and whether the key is its client-side one (`Inbound`) or its server-side one.
    fn lookup(&self, key: &FlowKey) -> Option<(Direction, Session)>;

    /// Adds a session. The caller has made sure that neither of its keys is in the table.
    ///
    /// # Errors
    /// There is no room.
    fn insert(&mut self, session: &Session) -> Result<(), RemoteTableFull>;

    /// Changes owner, generation, state and age of the session with the same four endpoints. Does nothing if there is none.
    fn update(&mut self, session: &Session);

    /// Removes a session, found by its client-side key. Does nothing if there is none.
    fn remove(&mut self, client_key: &FlowKey);
}
