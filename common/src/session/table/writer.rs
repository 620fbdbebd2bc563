//! A table's structural writer: the one process and thread that adds and removes sessions.

use std::ops::Deref;
use std::path::Path;

use thiserror::Error;

use super::recovery::{Intent, Recovery, recover};
use super::slots::FreeSlots;
use super::{SessionTable, TableError};
use crate::flow::{FlowHash, FlowKey};
use crate::id::{Generation, NodeId, RecordIndex};
use crate::session::addresses::SharedAddresses;
use crate::session::record::AddressNumbers;
use crate::session::{Direction, Draft, Session, SessionState, record};
use crate::shm::atomic::Ordering;
use crate::shm::bucket::{BUCKET_SLOTS, Found};
use crate::shm::header::FileKind;
use crate::shm::index::{Candidates, Place};
use crate::shm::region::Region;
use crate::shm::slab::Record;
use crate::time::Millis;

/// Why a session was not added. No session has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InsertError {
    /// No record is free, or none that readers are through with, or neither bucket of a key has room, or the table's sessions
    /// share too many addresses.
    #[error("the table is full")]
    Full,
    /// A session with one of its two keys is there.
    #[error("record {0} has one of the session's keys")]
    Exists(RecordIndex),
}

/// The structural writer of a table. It holds the file's exclusive lock for as long as it lives.
pub struct TableWriter {
    pub(super) table: SessionTable,
    /// A bit for each slot that holds a session.
    live: Vec<u64>,
    pub(super) slots: FreeSlots,
    addresses: SharedAddresses,
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
        let recovery = recover(&table);
        let mut live = vec![0; table.capacity().div_ceil(64) as usize];
        let mut addresses = SharedAddresses::new(&table.addresses, &table.readers);
        let mut vacant = Vec::with_capacity((table.capacity() - recovery.sessions) as usize);
        for number in 0..table.capacity() {
            match table.slab.record(number).and_then(record::read) {
                Some(words) => {
                    live[number as usize / 64] |= 1 << (number % 64);
                    let numbers = AddressNumbers::of(&words);
                    for shared in [numbers.vip, numbers.local, numbers.server] {
                        addresses.acquire_number(shared);
                    }
                }
                None => vacant.push(number),
            }
        }
        // Readers went on through the old writer's death: they may hold the number of any slot that is vacant now.
        let mut slots = FreeSlots::new(table.capacity());
        slots.begin(&table.readers, vacant.into_iter().rev());
        Ok(TableWriter { table, live, slots, addresses, sessions: recovery.sessions, recovery })
    }

    /// What was found and put right when this writer took over.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Adds a session under both its keys.
    ///
    /// # Errors
    /// The table is full, or has one of the keys.
    #[inline]
    pub fn insert(&mut self, session: &Session) -> Result<RecordIndex, InsertError> {
        let client = self.table.candidates(&session.client_key());
        let server = self.table.candidates(&session.server_key());
        self.insert_at(session, &[client, server])
    }

    /// Adds a session whose keys have these hashes in this table, the client-side one first.
    ///
    /// # Errors
    /// The table is full, or has one of the keys.
    #[inline]
    pub fn insert_hashed(
        &mut self,
        session: &Session,
        hashes: [FlowHash; 2],
    ) -> Result<RecordIndex, InsertError> {
        let candidates = hashes.map(|hash| self.table.index.candidates(hash.0));
        self.insert_at(session, &candidates)
    }

    /// Has the slot brought near that will be taken when `ahead` others were.
    #[inline]
    pub fn prefetch_vacant(&self, ahead: usize) {
        if let Some(number) = self.slots.upcoming(ahead) {
            self.table.slab.prefetch(number);
        }
    }

    /// Adds a session if one look at each key's first bucket tells that it is new and that there is room. `None`: nothing has
    /// changed, and [`TableWriter::insert_hashed`] tells why. The hashes are those of its keys in this table, the client-side
    /// one first.
    #[inline(always)]
    pub fn insert_new(&mut self, session: &Draft<'_>, hashes: [FlowHash; 2]) -> Option<RecordIndex> {
        let candidates = hashes.map(|hash| self.table.index.candidates(hash.0));
        let slots = self.slots_for_new(&candidates)?;
        self.put_in(session, &candidates, Some(slots)).ok()
    }

    /// Adds a session whose keys may stand at `candidates`, the client-side one first.
    #[inline]
    pub(super) fn insert_at(
        &mut self,
        session: &Session,
        candidates: &[Candidates; 2],
    ) -> Result<RecordIndex, InsertError> {
        let slots = self.slots_for_new(candidates);
        if slots.is_none() {
            self.prepare(session, candidates)?;
        }
        self.put_in(&session.draft(), candidates, slots)
    }

    /// The slots for both keys of a session, if one look at each first bucket tells that it is new and that there is room: as it
    /// usually does.
    #[inline(always)]
    fn slots_for_new(&self, [client, server]: &[Candidates; 2]) -> Option<[usize; 2]> {
        let in_first = |key: &Candidates| self.table.index.bucket(key.buckets[0]).slot_for_new(key.tag);
        if client.buckets[0] == server.buckets[0] {
            return None;
        }
        Some([in_first(client)?, in_first(server)?])
    }

    /// Adds a session that is new and for whose keys there is room: in these slots of their first buckets, if they are known.
    #[inline(always)]
    fn put_in(
        &mut self,
        session: &Draft<'_>,
        candidates: &[Candidates; 2],
        slots: Option<[usize; 2]>,
    ) -> Result<RecordIndex, InsertError> {
        let [client, server] = candidates;
        let number = self.slots.take(&self.table.readers).ok_or(InsertError::Full)?;
        let Some(numbers) = acquire_addresses(&mut self.addresses, &self.table, session) else {
            self.slots.give_back(number);
            return Err(InsertError::Full);
        };
        let Some(record) = self.table.slab.record(number) else { return Err(InsertError::Full) };
        Intent::Insert(RecordIndex(number)).declare(&self.table);
        record::fill(record, session, numbers);
        if let Some([client_slot, server_slot]) = slots {
            self.table.index.bucket(client.buckets[0]).put(client_slot, client.tag, number);
            self.table.index.bucket(server.buckets[0]).put(server_slot, server.tag, number);
        } else if !self.put_both(candidates, number) {
            Intent::done(&self.table);
            self.release_addresses(numbers);
            self.slots.release(&self.table.readers, number);
            return Err(InsertError::Full);
        }
        record::publish(record, session.state);
        Intent::done(&self.table);

        self.live[number as usize / 64] |= 1 << (number % 64);
        self.set_sessions(self.sessions + 1);
        Ok(RecordIndex(number))
    }

    /// Makes sure that neither key of a session is in the table, and that there is room for each.
    #[cold]
    fn prepare(&self, session: &Session, candidates: &[Candidates; 2]) -> Result<(), InsertError> {
        for (key, candidates) in [session.client_key(), session.server_key()].iter().zip(candidates) {
            if let Some((index, _)) = self.find(key, candidates) {
                return Err(InsertError::Exists(index));
            }
        }
        if candidates.iter().all(|candidates| self.make_room(candidates)) {
            Ok(())
        } else {
            Err(InsertError::Full)
        }
    }

    /// Lets both keys lead to a filled record. `false` if there is no room; nothing has changed then.
    #[cold]
    fn put_both(&self, candidates: &[Candidates; 2], number: u32) -> bool {
        let [client, server] = candidates;
        let put = || {
            let both = self.table.index.put(client, number) && self.table.index.put(server, number);
            if !both {
                self.table.index.remove(client, number);
            }
            both
        };
        if put() {
            return true;
        }
        // Both keys want the one slot that was left.
        let moved = self.move_one(server.buckets);
        Intent::Insert(RecordIndex(number)).declare(&self.table);
        moved && put()
    }

    /// Removes the session in a record; `false` if there is none.
    #[inline]
    pub fn remove(&mut self, index: RecordIndex) -> bool {
        // Its keys are this writer's own; what others write in place does not matter here.
        let Some(record) = self.record(index) else { return false };
        let Some(keys) = record::keys(&record.copy(), &self.table.addresses) else { return false };
        let candidates = keys.map(|key| self.table.candidates(&key));
        self.remove_at(index, &candidates);
        true
    }

    /// Removes the session in a record in use, whose keys may stand at `candidates`.
    pub(super) fn remove_at(&mut self, index: RecordIndex, candidates: &[Candidates; 2]) {
        let number = index.0;
        let Some(record) = self.table.slab.record(number) else { return };
        let numbers = AddressNumbers::of(&record.copy());

        Intent::Remove(index).declare(&self.table);
        record::retire(record);
        take_out(&self.table, candidates, number);
        Intent::done(&self.table);

        self.live[number as usize / 64] &= !(1 << (number % 64));
        self.release_addresses(numbers);
        self.slots.release(&self.table.readers, number);
        self.set_sessions(self.sessions - 1);
    }

    /// Makes sure that one of a key's buckets has an empty slot, by moving an entry to its second bucket if need be.
    #[inline]
    fn make_room(&self, candidates: &Candidates) -> bool {
        let index = &self.table.index;
        let has_room = |bucket: u32| index.bucket(bucket).empty_slot().is_some();
        candidates.buckets.into_iter().any(has_room) || self.move_one(candidates.buckets)
    }

    /// Moves an entry of one of two full buckets, which is in its first one, to its second.
    #[cold]
    fn move_one(&self, buckets: [u32; 2]) -> bool {
        let table = &self.table;
        let places =
            buckets.into_iter().flat_map(|bucket| (0..BUCKET_SLOTS).map(move |slot| Place { bucket, slot }));
        for place in places {
            let bucket = table.index.bucket(place.bucket);
            let Some(number) = bucket.record(place.slot) else { continue };
            let keys =
                table.slab.record(number).and_then(|record| record::keys(&record.copy(), &table.addresses));
            let own = keys.into_iter().flatten().map(|key| table.candidates(&key)).find(|candidates| {
                candidates.buckets[0] == place.bucket && candidates.tag == bucket.tag(place.slot)
            });
            let Some(own) = own else { continue };
            Intent::Move(RecordIndex(number)).declare(table);
            let moved = table.index.move_to_second(place, &own, number);
            Intent::done(table);
            if moved {
                return true;
            }
        }
        false
    }

    #[inline]
    fn release_addresses(&mut self, numbers: AddressNumbers) {
        for number in [numbers.vip, numbers.local, numbers.server] {
            self.addresses.release(&self.table.readers, number);
        }
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

    /// The session that has a key, and which side of it the key is.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey, candidates: &Candidates) -> Option<(RecordIndex, Direction)> {
        let key_words = key.words();
        let found = self.table.index.read(candidates, true, |number| {
            let direction = self.table.resolve(number)?.direction_of(&key_words)?;
            Some((RecordIndex(number), direction))
        });
        match found {
            Found::Here(found) => Some(found),
            Found::Absent | Found::Contended => None,
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

    #[inline]
    fn set_sessions(&mut self, sessions: u32) {
        self.sessions = sessions;
        self.table.control.live.store(u64::from(sessions), Ordering::Relaxed);
    }
}

/// The numbers of a session's shared addresses, which it names from now on.
#[inline(always)]
fn acquire_addresses(
    shared: &mut SharedAddresses,
    table: &SessionTable,
    session: &Draft<'_>,
) -> Option<AddressNumbers> {
    let mut acquire = |address| shared.acquire(&table.addresses, &table.readers, address);
    let vip = acquire(session.vip.address);
    let local = acquire(*session.local);
    let server = acquire(session.server.address);
    if let (Some(vip), Some(local), Some(server)) = (vip, local, server) {
        return Some(AddressNumbers { vip, local, server });
    }
    for number in [vip, local, server].into_iter().flatten() {
        shared.release(&table.readers, number);
    }
    None
}

/// Takes both entries of a record out of the index. Where the keys share a bucket and a tag, what was found for the one may
/// have been the other's, which is then looked for again.
#[inline]
pub(super) fn take_out(table: &SessionTable, candidates: &[Candidates; 2], number: u32) {
    let [client, server] = candidates;
    table.index.remove(client, number);
    if !table.index.remove(server, number) {
        table.index.remove(client, number);
    }
}

impl Deref for TableWriter {
    type Target = SessionTable;

    #[inline]
    fn deref(&self) -> &SessionTable {
        &self.table
    }
}
