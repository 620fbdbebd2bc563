//! A table's registered reader: finds sessions and changes single fields of them in place.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use super::{SessionTable, TableError};
use crate::id::{Generation, NodeId, RecordIndex};
use crate::session::{SessionState, record};
use crate::shm::header::FileKind;
use crate::shm::readers::Registration;
use crate::shm::region::Region;
use crate::shm::slab::Record;
use crate::time::Millis;

/// One reader of a table that another process, or another thread, writes.
///
/// A record number that it found means the same session until its next [`TableReader::quiesce`], which it calls after each
/// burst, also after an empty one: as long as it does not, the writer cannot use any slot again.
pub struct TableReader {
    table: SessionTable,
    registration: Registration,
}

impl TableReader {
    /// Attaches as reader `slot` (below [`crate::shm::readers::READERS_MAX`]; by convention the worker's number), online.
    ///
    /// # Errors
    /// The file is missing or no such table, or a living process has the slot.
    pub fn attach(path: &Path, kind: FileKind, slot: usize) -> Result<TableReader, TableError> {
        let mut table = SessionTable::attach(&Region::open(path, kind)?)?;
        let registration = Registration::new(Arc::clone(&table.readers), slot)?;
        table.records_stay = true;
        Ok(TableReader { table, registration })
    }

    /// Says that this reader holds no record number now. Comes online again after [`TableReader::leave`].
    #[inline]
    pub fn quiesce(&mut self) {
        self.registration.quiesce();
        self.table.records_stay = true;
    }

    /// Goes offline before a pause: it holds no record number, and changes none until it quiesces again.
    pub fn leave(&mut self) {
        self.table.records_stay = false;
        self.registration.leave();
    }

    /// Notes that a packet of the session was seen.
    #[inline]
    pub fn touch(&self, index: RecordIndex, now: Millis) {
        self.change(index, |record| record::touch(record, now));
    }

    /// Changes where the session stands.
    #[inline]
    pub fn set_state(&self, index: RecordIndex, state: SessionState) {
        self.change(index, |record| record::set_state(record, state));
    }

    /// Changes who reports the session, and the generation with it.
    #[inline]
    pub fn set_owner(&self, index: RecordIndex, owner: NodeId, generation: Generation) {
        self.change(index, |record| record::set_owner(record, owner, generation));
    }

    /// Makes `to` the owner and generation of a session that has `from`; `false` if it has others by now.
    #[inline]
    pub fn claim(&self, index: RecordIndex, from: (NodeId, Generation), to: (NodeId, Generation)) -> bool {
        let record = self.table.slab.record(index.0).filter(|_| self.registration.is_online());
        record.is_some_and(|record| record::claim(record, from, to))
    }

    /// Notes when the peers were told of the session.
    #[inline]
    pub fn set_last_sent(&self, index: RecordIndex, now: Millis) {
        self.change(index, |record| record::set_last_sent(record, now));
    }

    /// Changes a record in place. Offline, the record may be another session's by now, and nothing is done.
    #[inline]
    fn change(&self, index: RecordIndex, change: impl FnOnce(&Record)) {
        if let Some(record) = self.table.slab.record(index.0).filter(|_| self.registration.is_online()) {
            change(record);
        }
    }
}

impl Deref for TableReader {
    type Target = SessionTable;

    #[inline]
    fn deref(&self) -> &SessionTable {
        &self.table
    }
}
