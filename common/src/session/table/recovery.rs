//! Recovery: what a new writer does before it begins, so that its predecessor may have died anywhere.

use std::sync::atomic::{Ordering, fence};

use super::SessionTable;
use crate::id::RecordIndex;
use crate::session::record;
use crate::shm::index::{BUCKET_SLOTS, Place};

/// The structural change that a writer is about to make, one word so that it is there whole or not at all:
/// `operation << 32 | record`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// A record is being put into the index.
    Insert(RecordIndex),
    /// A record is being taken out of the index.
    Remove(RecordIndex),
}

const INSERT: u64 = 1;
const REMOVE: u64 = 2;

impl Intent {
    /// Writes the intent down, before the change.
    #[inline]
    pub(super) fn declare(self, table: &SessionTable) {
        let word = match self {
            Intent::Insert(RecordIndex(number)) => INSERT << 32 | u64::from(number),
            Intent::Remove(RecordIndex(number)) => REMOVE << 32 | u64::from(number),
        };
        table.control.intent.store(word, Ordering::Relaxed);
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

    /// The intent that a dead writer left. A word that is none counts as none: the scan puts all else right.
    fn left(table: &SessionTable) -> Option<Intent> {
        let word = table.control.intent.load(Ordering::Relaxed);
        let number = RecordIndex(word as u32);
        match word >> 32 {
            INSERT => Some(Intent::Insert(number)),
            REMOVE => Some(Intent::Remove(number)),
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
    /// Buckets whose lock word was odd.
    pub odd_buckets: u32,
    /// Index entries that led to no session of theirs.
    pub entries_dropped: u32,
    /// Sessions that were not under both their keys, or half removed.
    pub sessions_dropped: u32,
}

/// The entries that were found of one record: how many, and the sides that they can be.
#[derive(Clone, Copy, Default)]
struct Entries {
    count: u8,
    sides: u8,
}

const CLIENT_SIDE: u8 = 1;
const SERVER_SIDE: u8 = 2;

impl Entries {
    /// Whether the record is found by both its keys. An entry in a bucket that both keys share, under a tag that they share,
    /// can be either side, so sides alone do not tell.
    fn are_both(self) -> bool {
        self.count == 2 && self.sides == CLIENT_SIDE | SERVER_SIDE
    }
}

/// Makes the table whole: every session under both its keys exactly once, all lock words even, no intent. Calls `vacant`
/// with each slot that is not in use and `live` with each that is.
///
/// Readers go on meanwhile. If this dies too, the next one starts over: nothing here needs to be done only once.
pub(super) fn recover(
    table: &SessionTable,
    mut live: impl FnMut(u32),
    mut vacant: impl FnMut(u32),
) -> Recovery {
    let intent = Intent::left(table);
    let mut recovery = Recovery { change_interrupted: intent.is_some(), ..Recovery::default() };
    let seen = check_entries(table, &mut recovery);
    for (number, seen) in (0..table.capacity()).zip(seen) {
        let removal = intent == Some(Intent::Remove(RecordIndex(number)));
        if seen.are_both() && !removal {
            recovery.sessions += 1;
            live(number);
            continue;
        }
        if seen.count != 0 {
            drop_entries(table, number);
            recovery.sessions_dropped += 1;
        }
        let Some(record) = table.slab.record(number) else { continue };
        if !record::is_marked_vacant(record) {
            record::mark_vacant(record);
        }
        recovery.vacant += 1;
        vacant(number);
    }
    table.control.live.store(u64::from(recovery.sessions), Ordering::Relaxed);
    Intent::done(table);
    recovery
}

/// Clears every entry that is not one of the two of a whole record, makes lock words even, and says for each record which
/// of its entries are there.
fn check_entries(table: &SessionTable, recovery: &mut Recovery) -> Vec<Entries> {
    let mut seen = vec![Entries::default(); table.capacity() as usize];
    for number in 0..table.index.len() {
        let bucket = table.index.bucket(number);
        let was_odd = bucket.is_odd();
        for slot in 0..BUCKET_SLOTS {
            let Some(record) = bucket.record(slot) else { continue };
            let place = Place { bucket: number, slot };
            match seen.get_mut(record as usize).zip(sides_of(table, place, record)) {
                Some((seen, sides)) if sides != 0 && seen.count < 2 => {
                    seen.count += 1;
                    seen.sides |= sides;
                }
                _ => {
                    table.index.clear(place);
                    recovery.entries_dropped += 1;
                }
            }
        }
        if was_odd {
            recovery.odd_buckets += 1;
            bucket.begin_change();
            bucket.end_change();
        }
    }
    seen
}

/// Which sides of a whole record the entry at `place` can be, by its bucket and its tag.
fn sides_of(table: &SessionTable, place: Place, number: u32) -> Option<u8> {
    let words = table.slab.record(number)?.copy();
    let session = record::decode(&words)?;
    let tag = table.index.bucket(place.bucket).tag(place.slot);
    let fits = |key| {
        let candidates = table.candidates(&key);
        candidates.tag == tag && candidates.buckets.contains(&place.bucket)
    };
    let client_side = if fits(session.client_key()) { CLIENT_SIDE } else { 0 };
    let server_side = if fits(session.server_key()) { SERVER_SIDE } else { 0 };
    Some(client_side | server_side)
}

/// Takes whatever entries a record has out of the index.
fn drop_entries(table: &SessionTable, number: u32) {
    let Some([client, server]) = table.slab.record(number).and_then(|record| record::keys(&record.copy()))
    else {
        return;
    };
    for key in [client, server] {
        table.index.clear_record(&table.candidates(&key), number);
    }
}
