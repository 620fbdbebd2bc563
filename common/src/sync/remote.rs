//! The remote table as the receiver sees it: the sessions that other nodes own.

use thiserror::Error;

use crate::flow::FlowKey;
use crate::session::table::{Lookup, SessionTable, TableWriter};
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

    /// Changes owner, generation and state of the session with the same four endpoints, and makes it no older than
    /// `session.last_seen`. Does nothing if there is none.
    fn update(&mut self, session: &Session);

    /// Removes a session, found by its client-side key. Does nothing if there is none.
    fn remove(&mut self, client_key: &FlowKey);
}

/// The table in shared memory. Its writer reads what only it changes, so no lookup of its own is ever contended; a record that
/// means nothing is no session, and stays until the sweep finds it.
impl RemoteTable for TableWriter {
    fn lookup(&self, key: &FlowKey) -> Option<(Direction, Session)> {
        match SessionTable::lookup(self, key) {
            Lookup::Hit { direction, session, .. } => Some((direction, session)),
            Lookup::Miss | Lookup::Contended => None,
        }
    }

    fn insert(&mut self, session: &Session) -> Result<(), RemoteTableFull> {
        TableWriter::insert(self, session).map(|_| ()).map_err(|_| RemoteTableFull)
    }

    fn update(&mut self, session: &Session) {
        let found = SessionTable::lookup(self, &session.client_key());
        let Lookup::Hit { index, session: held, .. } = found else { return };
        // Workers write some of these fields meanwhile: only what is to change is written over.
        if (session.owner, session.generation) != (held.owner, held.generation) {
            self.set_owner(index, session.owner, session.generation);
        }
        if session.state != held.state {
            self.set_state(index, session.state);
        }
        if session.last_seen > held.last_seen {
            self.touch(index, session.last_seen);
        }
    }

    fn remove(&mut self, client_key: &FlowKey) {
        if let Lookup::Hit { index, .. } = SessionTable::lookup(self, client_key) {
            TableWriter::remove(self, index);
        }
    }
}
