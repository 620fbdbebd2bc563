//! Session tables: sessions in shared memory, found by either of their two keys.
//!
//! A table is a file: an index of buckets over a slab of records. One process writes its structure ([`TableWriter`]), any
//! number read it ([`SessionTable`]), and registered readers also change single fields of sessions in place
//! ([`TableReader`]). `docs/shm-layout.md` has the layout and what happens when any of them dies.

mod batch;
mod reader;
mod recovery;
mod shape;
mod slots;
mod writer;

pub use reader::TableReader;
pub use recovery::Recovery;
pub use shape::{SESSIONS_MAX, TableShape};
pub use writer::{InsertError, TableWriter};

use batch::Sought;

use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use super::addresses::Addresses;
use super::{Direction, Session, record};
use crate::flow::{Address, FlowHash, FlowHasher, FlowKey, HashKey};
use crate::id::RecordIndex;
use crate::shm::atomic::{AtomicU64, Ordering};
use crate::shm::bucket::{Found, Glance};
use crate::shm::header::{FileKind, HEADER_BYTES};
use crate::shm::index::{Candidates, Index};
use crate::shm::readers::{ReaderError, Readers};
use crate::shm::region::{Region, RegionError};
use crate::shm::shared::{Mapped, shared_struct};
use crate::shm::slab::Slab;

const CONTROL_OFFSET: u64 = HEADER_BYTES;
const EPOCH_OFFSET: u64 = CONTROL_OFFSET + std::mem::offset_of!(Control, epoch) as u64;
const READERS_OFFSET: u64 = CONTROL_OFFSET + 4096;
const ADDRESSES_OFFSET: u64 = READERS_OFFSET + 4096;

/// Times that a record which is used again and again is looked at, for who does not hold it still.
const READ_ATTEMPTS: u32 = if cfg!(loom) { 1 } else { 4 };

shared_struct! {
    /// What the structural writer keeps, a page after the header. Each word has a cache line of its own.
    #[repr(C, align(64))]
    struct Control {
        /// The structural change under way ([`recovery::Intent`]); zero if none.
        intent: AtomicU64,
        reserved0: [AtomicU64; 7],
        /// Counts up for ever; never zero once there was a writer.
        epoch: AtomicU64,
        reserved1: [AtomicU64; 7],
        /// Sessions in the table, for those who only want to know.
        live: AtomicU64,
        reserved2: [AtomicU64; 7],
        reserved3: [AtomicU64; 488],
    }
}

const _: () = assert!(size_of::<Control>() == 4096);

/// Why a table could not be made or attached.
#[derive(Debug, Error)]
pub enum TableError {
    /// The file itself.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A table of this size cannot be.
    #[error("a table for {asked} sessions: 1 to {SESSIONS_MAX} are possible; change `tables` in the config")]
    Capacity {
        /// What was asked for.
        asked: u64,
    },
    /// The reader could not be registered.
    #[error(transparent)]
    Reader(#[from] ReaderError),
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The session, as it was when it was read.
    Hit {
        /// Where its record lies. Good until the registered reader's next quiesce, or the writer's next change.
        index: RecordIndex,
        /// Which way packets with this key go through it.
        direction: Direction,
        /// What it was.
        session: Session,
    },
    /// No session has this key.
    Miss,
    /// It cannot be said within the bound on retries, or the record there is none. The caller counts it and goes on as if
    /// it were a miss.
    Contended,
}

/// What a piece of a scan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The slot to go on from; the table's capacity when the scan is through.
    pub next_slot: u32,
    /// Sessions visited.
    pub sessions: u32,
    /// Records that were no sessions, or changed all the time.
    pub unreadable: u32,
}

/// A session table as every process sees it.
pub struct SessionTable {
    control: Mapped<Control>,
    readers: Arc<Readers>,
    index: Index,
    slab: Slab,
    addresses: Addresses,
    key: HashKey,
    hasher: FlowHasher,
    /// Whether no record that is found here is used for another session before this process says so: it is the writer, or
    /// a registered reader that is online.
    records_stay: bool,
}

impl SessionTable {
    /// Makes the file of an empty table for `capacity` sessions.
    ///
    /// # Errors
    /// There can be no such table, or the file cannot be made.
    pub fn create(path: &Path, kind: FileKind, capacity: u32) -> Result<(), TableError> {
        let shape = TableShape::for_capacity(capacity)?;
        Region::create(path, &shape.spec(kind))?;
        Ok(())
    }

    /// Maps a table read-only: for those who look now and then, copy what they read and change nothing.
    ///
    /// # Errors
    /// The file is missing or no such table.
    pub fn open_read_only(path: &Path, kind: FileKind) -> Result<SessionTable, TableError> {
        SessionTable::attach(&Region::open_read_only(path, kind)?)
    }

    fn attach(region: &Arc<Region>) -> Result<SessionTable, TableError> {
        let shape = TableShape::of(region)?;
        Ok(SessionTable {
            control: Mapped::new(region, CONTROL_OFFSET)?,
            readers: Arc::new(Readers::new(region, EPOCH_OFFSET, READERS_OFFSET)?),
            addresses: Addresses::new(region, ADDRESSES_OFFSET, shape.addresses())?,
            index: Index::new(Mapped::slice(region, shape.buckets_offset(), shape.buckets())?),
            slab: Slab::new(Mapped::slice(region, shape.slab_offset(), u64::from(shape.capacity()))?),
            key: region.header().hash_key(),
            hasher: region.header().hash_key().hasher(),
            records_stay: false,
        })
    }

    /// The key of the table's hash.
    pub fn hash_key(&self) -> HashKey {
        self.key
    }

    /// The hash of a key in this table.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.hasher.hash(key)
    }

    /// The hash, in this table, of a key that is given as its [`FlowKey::words`].
    #[inline]
    pub fn hash_words(&self, key: &[u64; 5]) -> FlowHash {
        self.hasher.hash_words(key)
    }

    /// Has the buckets of a hash brought near, for a lookup soon.
    #[inline]
    pub fn prefetch(&self, hash: FlowHash) {
        self.index.prefetch(&self.index.candidates(hash.0));
    }

    /// Whether one look tells that no key with this hash is in the table. If not, one may be.
    #[inline(always)]
    pub fn lacks(&self, hash: FlowHash) -> bool {
        let candidates = self.index.candidates(hash.0);
        self.index.bucket(candidates.buckets[0]).glance(candidates.tag) == Glance::Absent
    }

    /// Whether a session may have a key with this destination: a virtual or a local address of the table's sessions.
    pub fn may_have_destination(&self, address: Address) -> bool {
        self.addresses.may_have(address)
    }

    /// Has a slot brought near, for a look at its session soon.
    #[inline]
    pub fn prefetch_slot(&self, index: RecordIndex) {
        self.slab.prefetch(index.0);
    }

    /// Finds the session that packets with `key` belong to.
    #[inline(always)]
    pub fn lookup(&self, key: &FlowKey) -> Lookup {
        self.lookup_hashed(self.hash(key), key)
    }

    /// Finds the session that packets with `key`, whose hash in this table is `hash`, belong to.
    #[inline(always)]
    pub fn lookup_hashed(&self, hash: FlowHash, key: &FlowKey) -> Lookup {
        let candidates = self.index.candidates(hash.0);
        let glance = self.index.glance(&candidates);
        self.lookup_sought(&Sought { candidates, glance }, key)
    }

    /// Finds the session that packets with `key`, which may stand at `candidates`, belong to.
    #[inline(never)]
    fn lookup_at(&self, candidates: &Candidates, key: &FlowKey) -> Lookup {
        let key_words = key.words();
        // What was found stays where it is: as a result it would be copied from one place to the next on its way out.
        let mut hit = record::Resolved::NONE;
        let found = self.index.read(candidates, self.records_stay, |number| {
            hit = self.resolve(number)?;
            hit.direction_of(&key_words).map(|direction| (number, direction))
        });
        match found {
            Found::Here((number, direction)) => match hit.session() {
                Some(session) => Lookup::Hit { index: RecordIndex(number), direction, session },
                None => Lookup::Contended,
            },
            Found::Absent => Lookup::Miss,
            Found::Contended => Lookup::Contended,
        }
    }

    /// A record in use and its addresses, for who knows or finds out later that it stays what it is.
    #[inline(always)]
    fn resolve(&self, number: u32) -> Option<record::Resolved> {
        record::Resolved::new(record::read(self.slab.record(number)?)?, &self.addresses)
    }

    /// The session in a record, if one is there.
    #[inline(always)]
    pub fn session(&self, index: RecordIndex) -> Option<Session> {
        match self.read_slot(index) {
            Found::Here(session) => session,
            Found::Absent | Found::Contended => None,
        }
    }

    /// Visits the sessions in at most `budget` slots from `from_slot` on. Sessions that come, go or change meanwhile are
    /// visited or not, but each as it was at one time.
    pub fn scan(&self, from_slot: u32, budget: u32, mut visit: impl FnMut(RecordIndex, Session)) -> Scanned {
        let next_slot = from_slot.saturating_add(budget).min(self.capacity());
        let mut scanned = Scanned { next_slot, sessions: 0, unreadable: 0 };
        for slot in from_slot..next_slot {
            match self.read_slot(RecordIndex(slot)) {
                Found::Here(Some(session)) => {
                    scanned.sessions += 1;
                    visit(RecordIndex(slot), session);
                }
                Found::Absent => {}
                Found::Here(None) | Found::Contended => scanned.unreadable += 1,
            }
        }
        scanned
    }

    /// What stands in a slot, whatever the index says. `Here(None)` is a record whose contents mean nothing.
    #[inline(always)]
    fn read_slot(&self, index: RecordIndex) -> Found<Option<Session>> {
        let Some(record) = self.slab.record(index.0) else { return Found::Absent };
        for _ in 0..READ_ATTEMPTS {
            match record::read_alone(record, |words| record::decode(words, &self.addresses)) {
                Ok(Some(session)) => return Found::Here(session),
                Ok(None) => return Found::Absent,
                Err(record::Reused) => {}
            }
        }
        Found::Contended
    }

    /// Sessions in the table.
    pub fn len(&self) -> u32 {
        self.control.live.load(Ordering::Relaxed).min(u64::from(self.capacity())) as u32
    }

    /// Whether there is no session in the table.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions that the table has room for; also the number of its slots.
    pub fn capacity(&self) -> u32 {
        self.slab.len()
    }

    #[inline]
    fn candidates(&self, key: &FlowKey) -> Candidates {
        self.index.candidates(self.hash(key).0)
    }
}

/// Takes readers whose processes are gone offline, so that the writer need not wait for them; how many there were. For a
/// process that saw another one die: no writer and no reader has to be involved.
///
/// # Errors
/// The file is missing or no such table.
pub fn reset_dead_readers(path: &Path, kind: FileKind) -> Result<u32, TableError> {
    let table = SessionTable::attach(&Region::open(path, kind)?)?;
    Ok(table.readers.reset_dead())
}
