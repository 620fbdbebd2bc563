//! The tables in shared memory, as the protocol sees them.

use std::cell::Cell;

use super::protocol::{Held, KeyHash, Place, RemoteTableFull, Tables};
use crate::flow::{FlowHash, FlowKey, address_from_words};
use crate::id::{Generation, NodeId, RecordIndex, WorkerId};
use crate::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use crate::session::{Draft, Session, SessionState};
use crate::time::Millis;

/// A NUMA node's remote table, and the tables of all workers.
pub struct SharedTables {
    remote: TableWriter,
    workers: Vec<WorkerTable>,
    /// The first place of each worker's table, and the end of the last.
    first: Vec<u32>,
    /// Which of the workers' tables may have keys with a destination, for destinations that were asked for of late.
    destinations: Destinations,
    /// Whether all tables hash by the same key, so that a hash made for one is good for all.
    same_hash: bool,
}

/// Which workers' tables may have keys with a destination, a bit each: a local address is one worker's, or none's here.
///
/// What stands here is as old as the last [`SharedTables::quiesce`]: a session that a worker opened since may be missed, as it
/// is by who looked a moment earlier.
struct Destinations {
    known: [Cell<Destination>; DESTINATIONS],
    turn: u32,
}

#[derive(Clone, Copy)]
struct Destination {
    address: [u64; 2],
    turn: u32,
    workers: u64,
}

/// Workers that a word has a bit for each of.
const WORKERS_MAX: usize = u64::BITS as usize;

/// Destinations that are remembered; a power of two.
const DESTINATIONS: usize = 256;

impl Destinations {
    fn new() -> Destinations {
        const UNKNOWN: Destination = Destination { address: [0; 2], turn: 0, workers: 0 };
        Destinations { known: [const { Cell::new(UNKNOWN) }; DESTINATIONS], turn: 1 }
    }

    /// The workers whose tables may have a destination, which is given as [`address_words`](crate::flow::address_words).
    #[inline(always)]
    fn workers(&self, address: [u64; 2], workers: &[WorkerTable]) -> u64 {
        let [high, low] = address;
        let mixed = (high ^ low.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = &self.known[(mixed >> 56) as usize % DESTINATIONS];
        let known = place.get();
        if known.turn == self.turn && known.address == address {
            return known.workers;
        }
        let workers = ask(address, workers);
        place.set(Destination { address, turn: self.turn, workers });
        workers
    }
}

/// The workers' tables that may have a destination.
#[cold]
fn ask(address: [u64; 2], workers: &[WorkerTable]) -> u64 {
    let address = address_from_words(address);
    let may = workers.iter().enumerate().filter(|(_, worker)| worker.table.may_have_destination(address));
    may.fold(0, |bits, (number, _)| bits | 1 << number)
}

/// A worker's table.
pub struct WorkerTable {
    /// The table.
    pub table: TableReader,
    /// Whether the worker is of the secondary's NUMA node: what it owns is this secondary's to report.
    pub is_reported: bool,
}

/// The table that a place is in.
enum Home<'a> {
    Remote(&'a TableWriter, RecordIndex),
    Worker(&'a TableReader, RecordIndex),
}

impl SharedTables {
    /// These tables; the workers' by their numbers, at most 64.
    pub fn new(remote: TableWriter, workers: Vec<WorkerTable>) -> SharedTables {
        assert!(workers.len() <= WORKERS_MAX, "{} workers, {WORKERS_MAX} are possible", workers.len());
        let mut end = remote.capacity();
        let mut first = vec![end];
        for worker in &workers {
            end = end.saturating_add(worker.table.capacity());
            first.push(end);
        }
        let same_hash = workers.iter().all(|worker| worker.table.hash_key() == remote.hash_key());
        SharedTables { remote, workers, first, destinations: Destinations::new(), same_hash }
    }

    /// The place of a slot of a worker's own table; `None` if there is no such slot.
    pub fn place_of(&self, worker: WorkerId, slot: RecordIndex) -> Option<Place> {
        let number = usize::from(worker.0);
        let place = self.first.get(number)?.checked_add(slot.0)?;
        (place < *self.first.get(number + 1)?).then_some(Place(place))
    }

    /// The remote table.
    pub fn remote(&self) -> &TableWriter {
        &self.remote
    }

    /// To be called now and then, when no place that was found is used any more: the workers may use slots again.
    pub fn quiesce(&mut self) {
        // Zero is the turn of what is not known.
        self.destinations.turn = self.destinations.turn.wrapping_add(1).max(1);
        for worker in &mut self.workers {
            worker.table.quiesce();
        }
    }

    /// To be called before a pause.
    pub fn leave(&mut self) {
        for worker in &mut self.workers {
            worker.table.leave();
        }
    }

    /// The workers' tables that may have a key with this hash, and their first places.
    #[inline(always)]
    fn workers_for(&self, hash: KeyHash) -> impl Iterator<Item = (&TableReader, u32)> + use<'_> {
        let mut left = hash.workers;
        std::iter::from_fn(move || {
            let number = (left != 0).then(|| left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some((&self.workers.get(number)?.table, *self.first.get(number)?))
        })
    }

    #[inline]
    fn home(&self, place: Place) -> Option<Home<'_>> {
        if place.0 < self.remote.capacity() {
            return Some(Home::Remote(&self.remote, RecordIndex(place.0)));
        }
        let number = self.first.partition_point(|first| *first <= place.0).checked_sub(1)?;
        let slot = RecordIndex(place.0 - self.first[number]);
        self.workers.get(number).map(|worker| Home::Worker(&worker.table, slot))
    }
}

#[inline(always)]
fn hit(table: &SessionTable, hash: FlowHash, key: &FlowKey, first: u32) -> Option<Held> {
    match table.lookup_hashed(hash, key) {
        Lookup::Hit { index, direction, session } => {
            Some(Held { place: Place(first + index.0), direction, session })
        }
        Lookup::Miss | Lookup::Contended => None,
    }
}

impl Tables for SharedTables {
    fn remote_slots(&self) -> u32 {
        self.remote.capacity()
    }

    fn places(&self) -> u32 {
        self.first[self.workers.len()]
    }

    fn is_reported(&self, place: Place) -> bool {
        let of = self.first.partition_point(|first| *first <= place.0).checked_sub(1);
        of.is_none_or(|number| self.workers.get(number).is_some_and(|worker| worker.is_reported))
    }

    fn find(&self, key: &FlowKey) -> Option<Held> {
        self.find_hashed(self.hash(&key.words()), key)
    }

    #[inline(always)]
    fn hash(&self, key: &[u64; 5]) -> KeyHash {
        let workers = self.destinations.workers([key[2], key[3]], &self.workers);
        KeyHash { hash: self.remote.hash_words(key).0, workers }
    }

    #[inline(always)]
    fn prefetch(&self, hash: KeyHash) {
        if self.same_hash {
            for (worker, _) in self.workers_for(hash) {
                worker.prefetch(FlowHash(hash.hash));
            }
        }
        self.remote.prefetch(FlowHash(hash.hash));
    }

    #[inline]
    fn prefetch_vacant(&self, ahead: usize) {
        self.remote.prefetch_vacant(ahead);
    }

    #[inline]
    fn prefetch_place(&self, place: Place) {
        match self.home(place) {
            Some(Home::Remote(table, slot)) => table.prefetch_slot(slot),
            Some(Home::Worker(table, slot)) => table.prefetch_slot(slot),
            None => {}
        }
    }

    #[inline(always)]
    fn find_hashed(&self, key_hash: KeyHash, key: &FlowKey) -> Option<Held> {
        let hash = FlowHash(key_hash.hash);
        for (worker, first) in self.workers_for(key_hash) {
            let own = if self.same_hash { hash } else { worker.hash(key) };
            if let Some(held) = hit(worker, own, key, first)
                && held.session.owner != NodeId(0)
            {
                return Some(held);
            }
        }
        hit(&self.remote, hash, key, 0)
    }

    #[inline(always)]
    fn session(&self, place: Place) -> Option<Session> {
        // One read for both: a session is many words to copy.
        let (table, slot): (&SessionTable, RecordIndex) = match self.home(place)? {
            Home::Remote(table, slot) => (table, slot),
            Home::Worker(table, slot) => (table, slot),
        };
        table.session(slot)
    }

    fn insert(&mut self, session: &Session) -> Result<Place, RemoteTableFull> {
        self.remote.insert(session).map(|slot| Place(slot.0)).map_err(|_| RemoteTableFull)
    }

    #[inline]
    fn insert_hashed(&mut self, session: &Session, hashes: [KeyHash; 2]) -> Result<Place, RemoteTableFull> {
        let hashes = hashes.map(|hash| FlowHash(hash.hash));
        self.remote.insert_hashed(session, hashes).map(|slot| Place(slot.0)).map_err(|_| RemoteTableFull)
    }

    #[inline(always)]
    fn insert_new(&mut self, session: &Draft<'_>, hashes: [KeyHash; 2]) -> Option<Place> {
        for key in hashes {
            for (worker, _) in self.workers_for(key) {
                if !self.same_hash || !worker.lacks(FlowHash(key.hash)) {
                    return None;
                }
            }
        }
        let hashes = hashes.map(|key| FlowHash(key.hash));
        self.remote.insert_new(session, hashes).map(|slot| Place(slot.0))
    }

    fn remove(&mut self, place: Place) {
        if self.is_remote(place) {
            self.remote.remove(RecordIndex(place.0));
        }
    }

    fn set_owner(&mut self, place: Place, owner: NodeId, generation: Generation) {
        match self.home(place) {
            Some(Home::Remote(table, slot)) => table.set_owner(slot, owner, generation),
            Some(Home::Worker(table, slot)) => table.set_owner(slot, owner, generation),
            None => {}
        }
    }

    fn set_state(&mut self, place: Place, state: SessionState) {
        match self.home(place) {
            Some(Home::Remote(table, slot)) => table.set_state(slot, state),
            Some(Home::Worker(table, slot)) => table.set_state(slot, state),
            None => {}
        }
    }

    fn touch(&mut self, place: Place, last_seen: Millis) {
        match self.home(place) {
            Some(Home::Remote(table, slot)) => table.touch(slot, last_seen),
            Some(Home::Worker(table, slot)) => table.touch(slot, last_seen),
            None => {}
        }
    }

    fn set_last_sent(&mut self, place: Place, when: Millis) {
        match self.home(place) {
            Some(Home::Remote(table, slot)) => table.set_last_sent(slot, when),
            Some(Home::Worker(table, slot)) => table.set_last_sent(slot, when),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Direction;
    use crate::shm::header::FileKind;
    use crate::sync::fixture::session_v4;

    fn tables(directory: &tempfile::TempDir) -> (SharedTables, TableWriter) {
        let path = |kind: FileKind| kind.path(directory.path(), 0);
        for kind in [FileKind::RemoteTable, FileKind::LocalTable] {
            SessionTable::create(&path(kind), kind, 64).unwrap();
        }
        let worker = TableWriter::attach(&path(FileKind::LocalTable), FileKind::LocalTable).unwrap();
        let reader = TableReader::attach(&path(FileKind::LocalTable), FileKind::LocalTable, 0).unwrap();
        let remote = TableWriter::attach(&path(FileKind::RemoteTable), FileKind::RemoteTable).unwrap();
        (SharedTables::new(remote, vec![WorkerTable { table: reader, is_reported: true }]), worker)
    }

    #[test]
    fn places_name_the_slots_of_all_tables() {
        let directory = tempfile::tempdir().unwrap();
        let (mut tables, mut worker) = tables(&directory);
        let (mine, theirs) = (session_v4(1), session_v4(2));
        let slot = worker.insert(&mine).unwrap();
        let remote = tables.insert(&theirs).unwrap();
        let local = tables.place_of(WorkerId(0), slot).unwrap();

        assert!(tables.is_remote(remote) && !tables.is_remote(local));
        assert_eq!(tables.session(local), Some(mine));
        assert_eq!(tables.session(remote), Some(theirs));
        let found = tables.find(&mine.server_key()).unwrap();
        assert_eq!((found.place, found.direction), (local, Direction::Outbound));
        assert_eq!(tables.place_of(WorkerId(0), RecordIndex(worker.capacity())), None);
        assert_eq!(tables.place_of(WorkerId(1), RecordIndex(0)), None);
        assert_eq!(tables.session(Place(tables.places())), None);
        tables.remove(local);
        assert_eq!(tables.session(local), Some(mine), "only its worker takes it out");
        tables.remove(remote);
        assert_eq!(tables.session(remote), None);
    }

    #[test]
    fn a_session_that_was_given_up_hides_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut tables, mut worker) = tables(&directory);
        let mine = session_v4(1);
        let slot = worker.insert(&mine).unwrap();
        let local = tables.place_of(WorkerId(0), slot).unwrap();
        tables.set_owner(local, NodeId(0), Generation(0));
        assert_eq!(tables.find(&mine.client_key()), None);

        let remote = tables.insert(&mine).unwrap();

        assert_eq!(tables.find(&mine.client_key()).unwrap().place, remote);
    }
}
