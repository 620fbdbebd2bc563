//! A table's structural writer: the one process and thread that adds and removes sessions.

use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::Ordering;

use thiserror::Error;

use super::recovery::{Intent, Recovery, recover};
use super::slots::FreeSlots;
use super::{Lookup, SessionTable, TableError};
use crate::flow::FlowKey;
use crate::id::{Generation, NodeId, RecordIndex};
use crate::session::{Session, SessionState, record};
use crate::shm::header::FileKind;
use crate::shm::region::Region;
use crate::shm::slab::Record;
use crate::time::Millis;

/// Why a session was not added. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InsertError {
    /// No record is free, or none that readers are through with, or neither bucket of a key has room.
    #[error("the table is full")]
    Full,
    /// A session with one of its two keys is there.
    #[error("record {0} has one of the session's keys")]
    Exists(RecordIndex),
}

/// The structural writer of a table. It holds the file's exclusive lock for as long as it lives.
pub struct TableWriter {
    table: SessionTable,
    /// A bit for each slot that holds a session.
    live: Vec<u64>,
    slots: FreeSlots,
    sessions: u32,
    recovery: Recovery,
}

impl TableWriter {
    /// Takes over a table: its lock, and what its last writer left undone. Takes time in proportion to the table's size.
    ///
    /// # Errors
    /// The file is missing or no such table, or another process is its writer.
    pub fn attach(path: &Path, kind: FileKind) -> Result<TableWriter, TableError> {
        let region = Region::open(path, kind)?;
        region.lock_exclusive()?;
        let mut table = SessionTable::attach(&region)?;
        table.records_stay = true;
        table.readers.reset_dead();
        let mut live = vec![0; table.capacity().div_ceil(64) as usize];
        let mut vacant = Vec::with_capacity(table.capacity() as usize);
        let recovery =
            recover(&table, |slot| live[slot as usize / 64] |= 1 << (slot % 64), |slot| vacant.push(slot));
        // Readers went on through the old writer's death: they may hold the number of any slot that is vacant now.
        let mut slots = FreeSlots::new(table.capacity());
        slots.begin(&table.readers, vacant.into_iter().rev());
        Ok(TableWriter { table, live, slots, sessions: recovery.sessions, recovery })
    }

    /// What was found and put right when this writer took over.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Adds a session under both its keys.
    ///
    /// # Errors
    /// The table is full, or has one of the keys.
    pub fn insert(&mut self, session: &Session) -> Result<RecordIndex, InsertError> {
        let keys = [session.client_key(), session.server_key()];
        let candidates = keys.map(|key| self.table.candidates(&key));
        for key in &keys {
            if let Some(index) = self.find(key) {
                return Err(InsertError::Exists(index));
            }
        }
        let index = &self.table.index;
        let client_place = index.empty_place(&candidates[0], None).ok_or(InsertError::Full)?;
        let server_place = index.empty_place(&candidates[1], Some(client_place)).ok_or(InsertError::Full)?;
        let number = self.slots.take(&self.table.readers).ok_or(InsertError::Full)?;
        let Some(record) = self.table.slab.record(number) else { return Err(InsertError::Full) };

        Intent::Insert(RecordIndex(number)).declare(&self.table);
        record.write(&record::encode(session));
        index.put(client_place, candidates[0].tag, number);
        index.put(server_place, candidates[1].tag, number);
        Intent::done(&self.table);

        self.live[number as usize / 64] |= 1 << (number % 64);
        self.set_sessions(self.sessions + 1);
        Ok(RecordIndex(number))
    }

    /// Removes the session in a record; `false` if there is none.
    pub fn remove(&mut self, index: RecordIndex) -> bool {
        let number = index.0;
        let Some(record) = self.record(index) else { return false };
        // Its keys are this writer's own; what others write in place does not matter here.
        let Some(keys) = record::keys(&record.copy()) else { return false };

        Intent::Remove(index).declare(&self.table);
        for key in keys {
            self.table.index.clear_record(&self.table.candidates(&key), number);
        }
        record::mark_vacant(record);
        Intent::done(&self.table);

        self.live[number as usize / 64] &= !(1 << (number % 64));
        self.slots.release(&self.table.readers, number);
        self.set_sessions(self.sessions - 1);
        true
    }

    /// Writes the fields of a session that change in place: state, owner and generation, last seen, last sent. Each is
    /// changed at once, but not all of them together.
    pub fn update(&self, index: RecordIndex, session: &Session) {
        self.set_owner(index, session.owner, session.generation);
        self.set_state(index, session.state);
        self.touch(index, session.last_seen);
        self.set_last_sent(index, session.last_sent);
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
        self.record(index).is_some_and(|record| record::claim(record, from, to))
    }

    /// Notes when the peers were told of the session.
    #[inline]
    pub fn set_last_sent(&self, index: RecordIndex, now: Millis) {
        self.change(index, |record| record::set_last_sent(record, now));
    }

    /// Whether a slot holds a session. A writer knows that of itself.
    #[inline]
    pub fn is_live(&self, index: RecordIndex) -> bool {
        self.live.get(index.0 as usize / 64).is_some_and(|bits| bits >> (index.0 % 64) & 1 == 1)
    }

    /// Slots that hold no session, whether readers are through with them or not.
    pub fn free_slots(&self) -> u32 {
        self.slots.len()
    }

    /// Takes readers whose processes are gone offline; how many there were. System calls: not for the packet path.
    pub fn reset_dead_readers(&self) -> u32 {
        self.table.readers.reset_dead()
    }

    fn find(&self, key: &FlowKey) -> Option<RecordIndex> {
        match self.table.lookup(key) {
            Lookup::Hit { index, .. } => Some(index),
            Lookup::Miss | Lookup::Contended => None,
        }
    }

    #[inline]
    fn change(&self, index: RecordIndex, change: impl FnOnce(&Record)) {
        if let Some(record) = self.record(index) {
            change(record);
        }
    }

    /// The record of a slot that holds a session.
    #[inline]
    fn record(&self, index: RecordIndex) -> Option<&Record> {
        if self.is_live(index) { self.table.slab.record(index.0) } else { None }
    }

    fn set_sessions(&mut self, sessions: u32) {
        self.sessions = sessions;
        self.table.control.live.store(u64::from(sessions), Ordering::Relaxed);
    }
}

impl Deref for TableWriter {
    type Target = SessionTable;

    #[inline]
    fn deref(&self) -> &SessionTable {
        &self.table
    }
}
