//! The index: buckets of one cache line that say, by a tag, which records may hold a key.
//!
//! One process writes it, any number read it. A bucket's lock word is a sequence lock: odd while the writer changes the
//! bucket. Each store alone also leaves a bucket that can be read, for whether a slot is taken is decided by its record
//! number only, and that is published last and taken away first.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use super::shared::{Mapped, shared_struct};

/// Slots of a bucket.
pub const BUCKET_SLOTS: usize = 10;

/// Times that a reader looks at a bucket before it gives up.
pub const READ_ATTEMPTS: u32 = 32;

/// Most buckets of an index: up to here a hash's two places and its tag share no bits.
pub const BUCKETS_MAX: u64 = 1 << 24;

shared_struct! {
    /// One bucket.
    #[repr(C, align(64))]
    pub struct Bucket {
        /// Odd while the writer changes the bucket; two higher after each change.
        lock: AtomicU32,
        tags: [AtomicU16; BUCKET_SLOTS],
        /// Record number plus one; zero is an empty slot, whatever its tag.
        records: [AtomicU32; BUCKET_SLOTS],
    }
}

const _: () = {
    assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
    assert!(std::mem::offset_of!(Bucket, tags) == 4);
    assert!(std::mem::offset_of!(Bucket, records) == 24);
};

/// Where a key may stand: either of two buckets, under a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The two buckets, never the same.
    pub buckets: [u32; 2],
    /// The tag.
    pub tag: u16,
}

/// A slot of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: u32,
    /// The slot in it.
    pub slot: usize,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// The key stands here.
    Here(T),
    /// The key does not stand here.
    Absent,
    /// The bucket did not stand still within [`READ_ATTEMPTS`], or its writer died in it.
    Contended,
}

impl Bucket {
    /// The record in a slot.
    #[inline]
    pub fn record(&self, slot: usize) -> Option<u32> {
        self.records[slot].load(Ordering::Relaxed).checked_sub(1)
    }

    /// The tag of a slot; means nothing if the slot is empty.
    #[inline]
    pub fn tag(&self, slot: usize) -> u16 {
        self.tags[slot].load(Ordering::Relaxed)
    }

    /// Whether a writer is in the bucket, or died in it.
    #[inline]
    pub fn is_odd(&self) -> bool {
        self.lock.load(Ordering::Relaxed) % 2 == 1
    }

    /// Slots taken.
    pub fn load(&self) -> usize {
        (0..BUCKET_SLOTS).filter(|slot| self.record(*slot).is_some()).count()
    }

    /// Reads the bucket: what `examine` makes of the first record under `tag` that it makes something of.
    ///
    /// With `records_stay`, the caller knows that no record it examines is used again for another key meanwhile (it is the
    /// writer, or a registered reader). What it finds is then right whatever the lock says, and only "not here" needs a
    /// bucket that stands still: so a writer's death takes nothing away that was there. Without, `examine` may see a record
    /// in the making, and what it says counts only if the bucket stood still.
    #[inline]
    pub fn read<T>(
        &self,
        tag: u16,
        records_stay: bool,
        mut examine: impl FnMut(u32) -> Option<T>,
    ) -> Found<T> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.lock.load(Ordering::Relaxed);
            // SYNC bucket-changed: pairs with the release fence of `end_change`.
            fence(Ordering::Acquire);
            let found = self.first(tag, &mut examine);
            if records_stay && let Some(value) = found {
                return Found::Here(value);
            }
            // SYNC bucket-changing: pairs with the release fence of `begin_change`, and for record contents with
            // record-reused in `Record::write`.
            fence(Ordering::Acquire);
            let after = self.lock.load(Ordering::Relaxed);
            if before == after && before.is_multiple_of(2) {
                return found.map_or(Found::Absent, Found::Here);
            }
            spin_loop();
        }
        Found::Contended
    }

    #[inline]
    fn first<T>(&self, tag: u16, examine: &mut impl FnMut(u32) -> Option<T>) -> Option<T> {
        for slot in 0..BUCKET_SLOTS {
            if self.tag(slot) != tag {
                continue;
            }
            let Some(record) = self.record(slot) else { continue };
            // SYNC record-published: pairs with the release store of `put`.
            fence(Ordering::Acquire);
            if let Some(value) = examine(record) {
                return Some(value);
            }
        }
        None
    }

    /// Writer only: makes the lock word odd. It stays odd if it was, after a writer died here.
    pub fn begin_change(&self) {
        let word = self.lock.load(Ordering::Relaxed);
        self.lock.store(word | 1, Ordering::Relaxed);
        // SYNC bucket-changing: pairs with the second acquire fence of `read`.
        fence(Ordering::Release);
    }

    /// Writer only: makes the lock word even again.
    pub fn end_change(&self) {
        let word = self.lock.load(Ordering::Relaxed);
        // SYNC bucket-changed: pairs with the first acquire fence of `read`.
        fence(Ordering::Release);
        self.lock.store((word | 1).wrapping_add(1), Ordering::Relaxed);
    }

    /// Writer only, in a change: lets a slot point to a whole record.
    pub fn put(&self, slot: usize, tag: u16, record: u32) {
        self.tags[slot].store(tag, Ordering::Relaxed);
        // SYNC record-published: pairs with the acquire fence of `first`.
        self.records[slot].store(record + 1, Ordering::Release);
    }

    /// Writer only, in a change: empties a slot.
    pub fn clear(&self, slot: usize) {
        self.records[slot].store(0, Ordering::Relaxed);
    }
}

/// All buckets of a table.
pub struct Index {
    buckets: Mapped<[Bucket]>,
}

impl Index {
    /// The index over these buckets, at least two and at most [`BUCKETS_MAX`].
    pub fn new(buckets: Mapped<[Bucket]>) -> Index {
        Index { buckets }
    }

    /// Number of buckets.
    pub fn len(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// Whether there is no bucket at all.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// A bucket by its number, which must be below [`Index::len`].
    #[inline]
    pub fn bucket(&self, number: u32) -> &Bucket {
        &self.buckets[number as usize]
    }

    /// Where the key with this hash may stand. Each half of the hash chooses a bucket with its upper bits; the lower bits
    /// of both make the tag.
    #[inline]
    pub fn candidates(&self, hash: u64) -> Candidates {
        let count = self.buckets.len() as u64;
        let choose = |half: u32| ((u64::from(half) * count) >> 32) as u32;
        let (low, high) = (hash as u32, (hash >> 32) as u32);
        let first = choose(low);
        let mut second = choose(high);
        if second == first {
            second = if first + 1 == count as u32 { 0 } else { first + 1 };
        }
        let tag = (low & 0xff) as u16 | ((high & 0xff) << 8) as u16;
        Candidates { buckets: [first, second], tag }
    }

    /// Has the key's buckets brought near, for a lookup soon.
    #[inline]
    pub fn prefetch(&self, candidates: &Candidates) {
        for number in candidates.buckets {
            prefetch_read(self.bucket(number));
        }
    }

    /// Reads the key's buckets, as [`Bucket::read`] does.
    #[inline]
    pub fn read<T>(
        &self,
        candidates: &Candidates,
        records_stay: bool,
        mut examine: impl FnMut(u32) -> Option<T>,
    ) -> Found<T> {
        let mut outcome = Found::Absent;
        for number in candidates.buckets {
            match self.bucket(number).read(candidates.tag, records_stay, &mut examine) {
                Found::Here(value) => return Found::Here(value),
                Found::Absent => {}
                Found::Contended => outcome = Found::Contended,
            }
        }
        outcome
    }

    /// Writer only: an empty slot for a key, in the emptier of its buckets, other than `except`.
    pub fn empty_place(&self, candidates: &Candidates, except: Option<Place>) -> Option<Place> {
        let [first, second] = candidates.buckets;
        let (first_load, second_load) = (self.bucket(first).load(), self.bucket(second).load());
        let order = if first_load <= second_load { [first, second] } else { [second, first] };
        order.into_iter().find_map(|bucket| {
            (0..BUCKET_SLOTS)
                .map(|slot| Place { bucket, slot })
                .find(|place| self.bucket(bucket).record(place.slot).is_none() && Some(*place) != except)
        })
    }

    /// Writer only: empties every place where a key can stand and that points to `record`, whatever its tag: where both
    /// keys of a record can stand in one bucket, it does not matter which entry is whose.
    pub fn clear_record(&self, candidates: &Candidates, record: u32) {
        for bucket in candidates.buckets {
            for slot in 0..BUCKET_SLOTS {
                if self.bucket(bucket).record(slot) == Some(record) {
                    self.clear(Place { bucket, slot });
                }
            }
        }
    }

    /// Writer only: lets a place point to a whole record.
    pub fn put(&self, place: Place, tag: u16, record: u32) {
        let bucket = self.bucket(place.bucket);
        bucket.begin_change();
        bucket.put(place.slot, tag, record);
        bucket.end_change();
    }

    /// Writer only: empties a place.
    pub fn clear(&self, place: Place) {
        let bucket = self.bucket(place.bucket);
        bucket.begin_change();
        bucket.clear(place.slot);
        bucket.end_change();
    }
}

/// Has the cache line of a value brought near.
#[inline]
pub fn prefetch_read<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86_64, and a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    const TAG: u16 = 7;

    fn bucket_with(records: &[u32]) -> Bucket {
        let bucket = Bucket::new_zeroed();
        for (slot, record) in records.iter().enumerate() {
            bucket.put(slot, TAG, *record);
        }
        bucket
    }

    #[test]
    fn what_was_read_of_a_bucket_that_changed_meanwhile_counts_for_nothing() {
        let bucket = bucket_with(&[1]);
        let mut looks = 0;
        let found = bucket.read(TAG, false, |record| {
            looks += 1;
            if looks == 1 {
                bucket.begin_change();
                bucket.clear(0);
                bucket.end_change();
                bucket.begin_change();
                bucket.put(0, TAG, 2);
                bucket.end_change();
            }
            Some(record)
        });
        assert_eq!((found, looks), (Found::Here(2), 2));
    }

    #[test]
    fn nothing_found_in_a_bucket_that_changed_meanwhile_is_looked_for_again() {
        let bucket = bucket_with(&[1, 2]);
        let mut looks = 0;
        let found = bucket.read(TAG, true, |record| {
            looks += 1;
            if looks == 1 {
                bucket.begin_change();
                bucket.put(0, TAG, 3);
                bucket.end_change();
            }
            (record == 3).then_some(record)
        });
        assert_eq!(found, Found::Here(3));
    }

    #[test]
    fn a_bucket_whose_writer_died_in_it_is_contended_for_who_finds_nothing() {
        let bucket = bucket_with(&[1]);
        bucket.begin_change();
        assert_eq!(bucket.read(TAG, false, Some), Found::Contended);
        assert_eq!(bucket.read(TAG, true, Some), Found::Here(1));
        assert_eq!(bucket.read(TAG + 1, true, Some), Found::Contended);
        bucket.begin_change();
        bucket.end_change();
        assert_eq!(bucket.read(TAG, false, Some), Found::Here(1));
        assert_eq!(bucket.read(TAG + 1, false, Some), Found::Absent);
    }

    #[test]
    fn a_bucket_that_never_stands_still_is_given_up() {
        let bucket = bucket_with(&[1]);
        let mut looks = 0;
        let found = bucket.read(TAG, false, |_| {
            looks += 1;
            bucket.begin_change();
            bucket.end_change();
            Some(())
        });
        assert_eq!((found, looks), (Found::Contended, READ_ATTEMPTS));
    }

    #[test]
    fn a_tag_without_a_record_is_an_empty_slot() {
        let bucket = bucket_with(&[1]);
        bucket.clear(0);
        assert_eq!((bucket.tag(0), bucket.load()), (TAG, 0));
        assert_eq!(bucket.read(TAG, false, Some), Found::Absent);
    }
}
