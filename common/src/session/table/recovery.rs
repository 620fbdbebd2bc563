//! Recovery: what a new writer does before it begins, so that its predecessor may have died anywhere.

use super::SessionTable;
use super::writer::take_out;
use crate::flow::FlowKey;
use crate::id::RecordIndex;
use crate::session::record;
use crate::shm::atomic::{Ordering, fence};
use crate::shm::bucket::BUCKET_SLOTS;
use crate::shm::index::{Candidates, Index, Place, prefetch_read};

/// The structural change that a writer is about to make, one word so that it is there whole or not at all:
/// `operation << 32 | record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// A record is being put into the index.
    Insert(RecordIndex),
    /// A record is being taken out of the index.
    Remove(RecordIndex),
    /// One of a record's entries is being moved to its key's second bucket.
    Move(RecordIndex),
}

const INSERT: u64 = 1;
const REMOVE: u64 = 2;
const MOVE: u64 = 3;

impl Intent {
    /// Writes the intent down, before the change.
    #[inline]
    pub(super) fn declare(self, table: &SessionTable) {
        let (operation, RecordIndex(number)) = match self {
            Intent::Insert(record) => (INSERT, record),
            Intent::Remove(record) => (REMOVE, record),
            Intent::Move(record) => (MOVE, record),
        };
        table.control.intent.store(operation << 32 | u64::from(number), Ordering::Relaxed);
        // SYNC intent-first: the change's stores stay behind this one. Who reads the word is the successor of a dead writer;
        // the kernel, which gives it the file's lock, orders the rest.
        fence(Ordering::Release);
    }

    /// Strikes the intent out, after the change.
    #[inline]
    pub(super) fn done(table: &SessionTable) {
        // SYNC intent-first: the change's stores stay before this one.
        table.control.intent.store(0, Ordering::Release);
    }

    /// The intent that a dead writer left. A word that is none counts as none: the checks put all else right.
    fn left(table: &SessionTable) -> Option<Intent> {
        let word = table.control.intent.load(Ordering::Relaxed);
        let number = RecordIndex(word as u32);
        match word >> 32 {
            INSERT => Some(Intent::Insert(number)),
            REMOVE => Some(Intent::Remove(number)),
            MOVE => Some(Intent::Move(number)),
            _ => None,
        }
    }
}

/// What a new writer found and put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Sessions that are in the table.
    pub sessions: u32,
    /// Slots that are not in use.
    pub vacant: u32,
    /// Whether the last writer died in a structural change.
    pub change_interrupted: bool,
    /// Buckets whose lock was odd.
    pub odd_buckets: u32,
    /// Index entries that led to no session of theirs, or led to it twice.
    pub entries_dropped: u32,
    /// Sessions that were not under both their keys, or whose record meant nothing, or whose key another session has.
    pub sessions_dropped: u32,
}

/// Makes the table whole: every session in use stands under both its keys exactly once, nothing else stands in the index, all
/// locks are even, strays are counted right, and there is no intent.
///
/// Readers go on meanwhile. If this dies too, the next one starts over: nothing here needs to be done only once.
pub(super) fn recover(table: &SessionTable) -> Recovery {
    let intent = Intent::left(table);
    let mut check = Check::new(table);
    check.recovery.change_interrupted = intent.is_some();
    if let Some(Intent::Insert(record) | Intent::Remove(record)) = intent {
        check.finish(record);
    }
    check.buckets();
    check.records();
    if check.entries != 2 * u64::from(check.recovery.sessions) {
        check.entries();
    }
    check.strays();
    table.control.live.store(u64::from(check.recovery.sessions), Ordering::Relaxed);
    Intent::done(table);
    check.recovery
}

/// Records whose buckets are asked for before the first of them is looked at.
const AHEAD: usize = 16;

/// A record in use, on its way through the check.
#[derive(Clone, Copy)]
struct Checked {
    number: u32,
    /// Its keys and where they may stand; `None` if the record means nothing.
    keys: Option<[(FlowKey, Candidates); 2]>,
}

/// A whole table under check.
struct Check<'a> {
    table: &'a SessionTable,
    recovery: Recovery,
    /// Entries in the index.
    entries: u64,
    /// For each bucket, how many keys that have it as their first stand in their second.
    strays: Vec<u8>,
}

impl<'a> Check<'a> {
    fn new(table: &'a SessionTable) -> Check<'a> {
        let strays = vec![0; table.index.len() as usize];
        Check { table, recovery: Recovery::default(), entries: 0, strays }
    }

    /// Takes the entries of a record that is not in use out: it was not yet, or it is no longer. Only saves [`Check::entries`]
    /// from having to look for them.
    fn finish(&self, RecordIndex(number): RecordIndex) {
        let Some(record) = self.table.slab.record(number).filter(|record| !record::is_in_use(record)) else {
            return;
        };
        if let Some(keys) = record::keys(&record.copy(), &self.table.addresses) {
            take_out(self.table, &keys.map(|key| self.table.candidates(&key)), number);
        }
    }

    /// Makes all locks even and counts entries.
    fn buckets(&mut self) {
        for number in 0..self.table.index.len() {
            let bucket = self.table.index.bucket(number);
            if bucket.is_odd() {
                self.recovery.odd_buckets += 1;
                bucket.mend();
            }
            self.entries += bucket.load() as u64;
        }
    }

    /// Checks every record in use against the index.
    fn records(&mut self) {
        let mut waiting = [None; AHEAD];
        for turn in 0..self.table.capacity() as usize + AHEAD {
            let coming = u32::try_from(turn).ok().and_then(|number| self.begin_record(number));
            if let Some(checked) = std::mem::replace(&mut waiting[turn % AHEAD], coming) {
                self.record(checked);
            }
        }
        self.recovery.vacant = self.table.capacity() - self.recovery.sessions;
    }

    fn begin_record(&self, number: u32) -> Option<Checked> {
        let words = record::read(self.table.slab.record(number)?)?;
        let session = record::decode(&words, &self.table.addresses);
        let keys = session.map(|session| {
            [session.client_key(), session.server_key()].map(|key| (key, self.table.candidates(&key)))
        });
        for (_, candidates) in keys.iter().flatten() {
            for bucket in candidates.buckets {
                prefetch_read(self.table.index.bucket(bucket));
            }
        }
        Some(Checked { number, keys })
    }

    fn record(&mut self, Checked { number, keys }: Checked) {
        let index = &self.table.index;
        let kept = keys.and_then(|keys| {
            let [client, server] = keys.map(|(_, candidates)| candidates);
            let alone = keys.iter().all(|(key, candidates)| !self.is_doubled(key, candidates, number));
            both_places(index, client, server, number).filter(|_| alone)
        });
        let all = keys.into_iter().flatten().flat_map(|(_, candidates)| places(index, candidates, number));
        for place in all {
            // A place that is in both keys' buckets comes up twice.
            let is_there = index.bucket(place.bucket).record(place.slot) == Some(number);
            if is_there && !kept.is_some_and(|kept| kept.contains(&place)) {
                index.clear_at(place);
                self.entries -= 1;
                self.recovery.entries_dropped += 1;
            }
        }
        let (Some(keys), Some(kept)) = (keys, kept) else {
            if let Some(record) = self.table.slab.record(number) {
                record::retire(record);
            }
            self.recovery.sessions_dropped += 1;
            return;
        };
        self.recovery.sessions += 1;
        for ((_, candidates), place) in keys.into_iter().zip(kept) {
            if place.bucket == candidates.buckets[1] {
                let strays = &mut self.strays[candidates.buckets[0] as usize];
                *strays = strays.saturating_add(1);
            }
        }
    }

    /// Whether another record in use, which was checked before, has the key too.
    fn is_doubled(&self, key: &FlowKey, candidates: &Candidates, number: u32) -> bool {
        let index = &self.table.index;
        let others = candidates
            .buckets
            .into_iter()
            .flat_map(|bucket| index.bucket(bucket).records_with(candidates.tag))
            .filter(|(_, record)| *record < number);
        others.into_iter().any(|(_, other)| {
            let words = self.table.slab.record(other).and_then(record::read);
            let other = words.and_then(|words| record::Resolved::new(words, &self.table.addresses));
            other.is_some_and(|other| other.direction_of(&key.words()).is_some())
        })
    }

    /// Clears every entry that does not lead to a record in use which can stand there.
    fn entries(&mut self) {
        for bucket in 0..self.table.index.len() {
            for place in (0..BUCKET_SLOTS).map(|slot| Place { bucket, slot }) {
                let Some(number) = self.table.index.bucket(bucket).record(place.slot) else { continue };
                if !self.belongs(place, number) {
                    self.table.index.clear_at(place);
                    self.recovery.entries_dropped += 1;
                }
            }
        }
    }

    fn belongs(&self, place: Place, number: u32) -> bool {
        let words = self.table.slab.record(number).and_then(record::read);
        let keys = words.and_then(|words| record::keys(&words, &self.table.addresses));
        keys.into_iter().flatten().any(|key| {
            let candidates = self.table.candidates(&key);
            let tag = self.table.index.bucket(place.bucket).tag(place.slot);
            candidates.tag == tag && candidates.buckets.contains(&place.bucket)
        })
    }

    /// Notes the right number of strays where it is another. One too many is what an interrupted change leaves.
    fn strays(&self) {
        for (number, strays) in (0..).zip(&self.strays) {
            let bucket = self.table.index.bucket(number);
            if bucket.strays() != *strays {
                bucket.set_strays(*strays);
            }
        }
    }
}

/// A place for each of a record's keys: not the same one, where the keys share a bucket and a tag.
fn both_places(index: &Index, client: Candidates, server: Candidates, number: u32) -> Option<[Place; 2]> {
    places(index, client, number).find_map(|client_place| {
        let server_place = places(index, server, number).find(|place| *place != client_place)?;
        Some([client_place, server_place])
    })
}

/// Where entries for a record stand that can be a key's, those in its first bucket first.
fn places(index: &Index, candidates: Candidates, number: u32) -> impl Iterator<Item = Place> + use<'_> {
    candidates.buckets.into_iter().flat_map(move |bucket| {
        let records = index.bucket(bucket).records_with(candidates.tag);
        records.filter(move |(_, record)| *record == number).map(move |(slot, _)| Place { bucket, slot })
    })
}
