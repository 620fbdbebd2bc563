//! The bucket: one cache line that says, by a tag, which records may hold a key.
//!
//! Its first word is a sequence lock: odd while the structural writer changes the bucket. Each store alone also leaves a
//! bucket that can be read, for whether a slot is taken is decided by its tag only, and that is published last and taken
//! away first.

use std::hint::spin_loop;

use super::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use super::shared::shared_struct;

/// Slots of a bucket.
pub const BUCKET_SLOTS: usize = 10;

/// Times that a reader looks at a bucket before it gives up.
pub const READ_ATTEMPTS: u32 = if cfg!(loom) { 1 } else { 32 };

/// Highest number of strays that a bucket counts. One that has been there stays there: it may stand for more.
pub const STRAYS_MAX: u8 = u8::MAX;

/// Bits of the head that are the sequence lock; the strays follow, then the tags of slots 8 and 9.
const SEQUENCE_BITS: u32 = 24;
const SEQUENCE_MASK: u64 = (1 << SEQUENCE_BITS) - 1;
const STRAYS_MASK: u64 = 0xff << SEQUENCE_BITS;
const TAG_BITS: usize = 16;
/// Tags in a whole word.
const WORD_TAGS: usize = 4;
/// Slots whose tags do not stand in the head.
const TAIL_SLOTS: usize = 2 * WORD_TAGS;

shared_struct! {
    /// One bucket.
    #[repr(C, align(64))]
    pub struct Bucket {
        /// `tag 9 << 48 | tag 8 << 32 | strays << 24 | sequence`. The sequence is odd while the writer changes the bucket,
        /// and two higher after each change.
        head: AtomicU64,
        /// Tags of slots 0 to 3 and 4 to 7, lowest first. Zero is an empty slot, whatever its record.
        tags: [AtomicU64; 2],
        /// Record numbers.
        records: [AtomicU32; BUCKET_SLOTS],
    }
}

const _: () = {
    assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
    assert!(std::mem::offset_of!(Bucket, tags) == 8);
    assert!(std::mem::offset_of!(Bucket, records) == 24);
    assert!(TAIL_SLOTS + 2 == BUCKET_SLOTS);
};

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

/// What one look at a key's first bucket tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Glance {
    /// If the key stands here, this is probably its record. It may be another key's by now.
    Likely(u32),
    /// The key stands nowhere.
    Absent,
    /// Only [`Bucket::read`] can tell.
    #[default]
    Unknown,
}

/// What one look at a bucket came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look<T> {
    /// What was found.
    pub found: Found<T>,
    /// Whether keys whose first bucket this is may stand in their second.
    pub has_strays: bool,
}

impl Bucket {
    /// The record in a slot.
    #[inline]
    pub fn record(&self, slot: usize) -> Option<u32> {
        (self.tag(slot) != 0).then(|| self.records[slot].load(Ordering::Relaxed))
    }

    /// The tag of a slot; zero if the slot is empty.
    #[inline]
    pub fn tag(&self, slot: usize) -> u16 {
        let (word, shift) = self.tag_word(slot);
        (word.load(Ordering::Relaxed) >> shift) as u16
    }

    /// Keys whose first bucket this is and that stand in their second, at least; at most one too many after a death.
    #[inline]
    pub fn strays(&self) -> u8 {
        (self.head.load(Ordering::Relaxed) >> SEQUENCE_BITS) as u8
    }

    /// Whether a writer is in the bucket, or died in it.
    #[inline]
    pub fn is_odd(&self) -> bool {
        self.head.load(Ordering::Relaxed) % 2 == 1
    }

    /// Slots taken.
    #[inline]
    pub fn load(&self) -> usize {
        BUCKET_SLOTS - self.slots_with(0).count_ones() as usize
    }

    /// An empty slot, if there is one.
    #[inline]
    pub fn empty_slot(&self) -> Option<usize> {
        let empty = self.slots_with(0);
        (empty != 0).then(|| empty.trailing_zeros() as usize)
    }

    /// The records under a tag, in the order of their slots.
    #[inline]
    pub fn records_with(&self, tag: u16) -> impl Iterator<Item = (usize, u32)> + use<'_> {
        let mut slots = self.slots_with(tag);
        std::iter::from_fn(move || {
            let slot = (slots != 0).then(|| slots.trailing_zeros() as usize)?;
            slots &= slots - 1;
            Some((slot, self.records[slot].load(Ordering::Relaxed)))
        })
    }

    /// A bit for each slot that has this tag, or is empty if `tag` is zero.
    #[inline]
    fn slots_with(&self, tag: u16) -> u32 {
        self.words().slots_with(tag)
    }

    #[inline]
    fn words(&self) -> TagWords {
        TagWords {
            head: self.head.load(Ordering::Relaxed),
            tail: [self.tags[0].load(Ordering::Relaxed), self.tags[1].load(Ordering::Relaxed)],
        }
    }

    /// What one look tells of the keys under a tag that have this bucket as their first.
    #[inline]
    pub fn glance(&self, tag: u16) -> Glance {
        // SYNC bucket-changed: pairs with the release stores of `end_change` and `set_strays`.
        let before = self.head.load(Ordering::Acquire);
        let slots = self.slots_with(tag);
        // SYNC record-numbered: pairs with the release stores of `set_tag` and `end_change`.
        // SYNC bucket-changing: pairs with the release fence of `begin_change`.
        fence(Ordering::Acquire);
        if slots != 0 {
            return Glance::Likely(self.records[slots.trailing_zeros() as usize].load(Ordering::Relaxed));
        }
        let after = self.head.load(Ordering::Relaxed);
        let is_final = before == after && before & (STRAYS_MASK | 1) == 0;
        if is_final { Glance::Absent } else { Glance::Unknown }
    }

    /// Writer only: the slot for a key that is not in the table, if one look tells that it is not and that there is room.
    #[inline]
    pub fn slot_for_new(&self, tag: u16) -> Option<usize> {
        let words = self.words();
        let empty = words.slots_with(0);
        let is_new = words.head & STRAYS_MASK == 0 && words.slots_with(tag) == 0;
        (is_new && empty != 0).then(|| empty.trailing_zeros() as usize)
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
    ) -> Look<T> {
        for _ in 0..READ_ATTEMPTS {
            // SYNC bucket-changed: pairs with the release stores of `end_change` and `set_strays`.
            let before = self.head.load(Ordering::Acquire);
            let mut slots = self.slots_with(tag);
            // SYNC record-numbered: pairs with the release stores of `set_tag` and `end_change`.
            fence(Ordering::Acquire);
            let mut found = None;
            while slots != 0 && found.is_none() {
                found = examine(self.records[slots.trailing_zeros() as usize].load(Ordering::Relaxed));
                slots &= slots - 1;
            }
            let has_strays = before & STRAYS_MASK != 0;
            if records_stay && let Some(value) = found {
                return Look { found: Found::Here(value), has_strays };
            }
            // SYNC bucket-changing: pairs with the release fence of `begin_change`, and for record contents with
            // record-reused in `Record::write`.
            fence(Ordering::Acquire);
            let after = self.head.load(Ordering::Relaxed);
            if before == after && before.is_multiple_of(2) {
                return Look { found: found.map_or(Found::Absent, Found::Here), has_strays };
            }
            spin_loop();
        }
        Look { found: Found::Contended, has_strays: true }
    }

    /// Writer only: lets a slot point to a whole record, under a tag that is not zero.
    #[inline(always)]
    pub fn put(&self, slot: usize, tag: u16, record: u32) {
        let odd = self.begin_change();
        self.records[slot].store(record, Ordering::Relaxed);
        let head = self.set_tag(odd, slot, tag);
        self.end_change(head);
    }

    /// Writer only: empties a slot.
    #[inline]
    pub fn clear(&self, slot: usize) {
        let odd = self.begin_change();
        let head = self.set_tag(odd, slot, 0);
        self.end_change(head);
    }

    /// Writer only: makes the lock even if a writer died in the bucket. All that may be wrong in it was put right before.
    pub fn mend(&self) {
        self.end_change(self.head.load(Ordering::Relaxed));
    }

    /// Makes the lock odd, and returns the head as it is then. It stays odd if it was, after a writer died here.
    #[inline]
    fn begin_change(&self) -> u64 {
        let odd = self.head.load(Ordering::Relaxed) | 1;
        self.head.store(odd, Ordering::Relaxed);
        // SYNC bucket-changing: pairs with the acquire fences of `read` and `glance`.
        fence(Ordering::Release);
        odd
    }

    /// Makes the lock of `head` even, and stores it.
    #[inline]
    fn end_change(&self, head: u64) {
        let sequence = ((head & SEQUENCE_MASK) | 1) + 1;
        // SYNC bucket-changed: pairs with the acquire loads of `read` and `glance`.
        self.head.store(head & !SEQUENCE_MASK | sequence & SEQUENCE_MASK, Ordering::Release);
    }

    /// Sets a slot's tag; returns the head as it is to be then, for the tags in it are stored by the end of the change.
    #[inline]
    fn set_tag(&self, head: u64, slot: usize, tag: u16) -> u64 {
        let with_tag = |word: u64, lane: usize| {
            let shift = lane * TAG_BITS;
            word & !(0xffff << shift) | u64::from(tag) << shift
        };
        match slot.checked_sub(TAIL_SLOTS) {
            Some(in_head) => with_tag(head, 2 + in_head),
            None => {
                let word = &self.tags[slot / WORD_TAGS];
                // SYNC record-numbered: pairs with the acquire fences of `read` and `glance`, for the slot's record number.
                word.store(with_tag(word.load(Ordering::Relaxed), slot % WORD_TAGS), Ordering::Release);
                head
            }
        }
    }

    /// Writer only: notes how many keys whose first bucket this is stand in their second. One store, and a change of its own.
    #[inline]
    pub fn set_strays(&self, strays: u8) {
        let head = self.head.load(Ordering::Relaxed);
        let sequence = (head & SEQUENCE_MASK).wrapping_add(2) & SEQUENCE_MASK;
        let rest = head & !(SEQUENCE_MASK | STRAYS_MASK);
        // SYNC bucket-changed: pairs with the acquire loads of `read` and `glance`.
        self.head.store(rest | u64::from(strays) << SEQUENCE_BITS | sequence, Ordering::Release);
    }

    /// The word that a slot's tag stands in, and how far up.
    #[inline]
    fn tag_word(&self, slot: usize) -> (&AtomicU64, usize) {
        match slot.checked_sub(TAIL_SLOTS) {
            None => (&self.tags[slot / WORD_TAGS], slot % WORD_TAGS * TAG_BITS),
            Some(in_head) => (&self.head, (2 + in_head) * TAG_BITS),
        }
    }
}

/// A copy of the words with the tags.
#[derive(Clone, Copy)]
struct TagWords {
    head: u64,
    tail: [u64; 2],
}

impl TagWords {
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn slots_with(&self, tag: u16) -> u32 {
        // SAFETY: SSE2 is part of x86_64.
        unsafe { self.slots_with_sse2(tag) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "sse2")]
    fn slots_with_sse2(&self, tag: u16) -> u32 {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_cvtsi64_si128, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x,
            _mm_set1_epi16,
        };
        let tag = _mm_set1_epi16(tag as i16);
        let tail = _mm_cmpeq_epi16(_mm_set_epi64x(self.tail[1] as i64, self.tail[0] as i64), tag);
        let head = _mm_cmpeq_epi16(_mm_cvtsi64_si128(self.head as i64), tag);
        let lanes = _mm_movemask_epi8(_mm_packs_epi16(tail, head)) as u32;
        lanes & 0xff | lanes >> 2 & 0x300
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[inline]
    fn slots_with(&self, tag: u16) -> u32 {
        self.slots_with_portable(tag)
    }

    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn slots_with_portable(&self, tag: u16) -> u32 {
        let lanes = |word: u64| {
            (0..WORD_TAGS)
                .filter(|lane| (word >> (lane * TAG_BITS)) as u16 == tag)
                .fold(0, |bits, lane| bits | 1 << lane)
        };
        lanes(self.tail[0]) | lanes(self.tail[1]) << WORD_TAGS | lanes(self.head) >> 2 << TAIL_SLOTS
    }
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

    fn read<T>(
        bucket: &Bucket,
        tag: u16,
        records_stay: bool,
        examine: impl FnMut(u32) -> Option<T>,
    ) -> Found<T> {
        bucket.read(tag, records_stay, examine).found
    }

    #[test]
    fn slots_are_told_apart() {
        for slots in 0..1 << BUCKET_SLOTS {
            for (tag, other) in [(0, 1), (1, 0), (0xffff, 0x7fff), (0x8000, 0), (0x8000, 0x8001), (7, 0xffff)]
            {
                let lane = |slot: usize| u64::from(if slots >> slot & 1 == 1 { tag } else { other });
                let word = |first: usize, count: usize| {
                    (0..count).fold(0, |word, slot| word | lane(first + slot) << (slot * TAG_BITS))
                };
                let sequence = u64::from(tag) << TAG_BITS | u64::from(tag);
                let words = TagWords { head: word(8, 2) << 32 | sequence, tail: [word(0, 4), word(4, 4)] };
                assert_eq!(words.slots_with(tag), slots, "{tag:x}");
                assert_eq!(words.slots_with_portable(tag), slots, "{tag:x}");
            }
        }
    }

    #[test]
    fn every_slot_keeps_its_own_tag_and_record_beside_the_lock() {
        let bucket = Bucket::new_zeroed();
        bucket.set_strays(0xa5);
        for slot in 0..BUCKET_SLOTS {
            assert_eq!((bucket.empty_slot(), bucket.load()), (Some(slot), slot));
            bucket.put(slot, 100 + slot as u16, slot as u32);
        }
        assert_eq!((bucket.empty_slot(), bucket.load()), (None, BUCKET_SLOTS));
        for slot in 0..BUCKET_SLOTS {
            let found: Vec<_> = bucket.records_with(100 + slot as u16).collect();
            assert_eq!(found, [(slot, slot as u32)]);
        }
        bucket.clear(1);
        assert_eq!((bucket.record(1), bucket.tag(1), bucket.empty_slot()), (None, 0, Some(1)));
        assert_eq!((bucket.strays(), bucket.is_odd()), (0xa5, false));
    }

    #[test]
    fn the_sequence_runs_round_without_touching_its_neighbours() {
        let bucket = Bucket::new_zeroed();
        bucket.put(8, 8, 1);
        bucket.put(9, 9, 2);
        bucket.set_strays(3);
        bucket.head.fetch_or(SEQUENCE_MASK, Ordering::Relaxed);
        bucket.mend();
        assert_eq!((bucket.head.load(Ordering::Relaxed) & SEQUENCE_MASK, bucket.strays()), (0, 3));
        bucket.head.fetch_or(SEQUENCE_MASK - 1, Ordering::Relaxed);
        bucket.set_strays(STRAYS_MAX);
        assert_eq!((bucket.head.load(Ordering::Relaxed) & SEQUENCE_MASK, bucket.strays()), (0, STRAYS_MAX));
        assert_eq!((bucket.tag(8), bucket.tag(9)), (8, 9));
    }

    #[test]
    fn what_was_read_of_a_bucket_that_changed_meanwhile_counts_for_nothing() {
        let bucket = bucket_with(&[1]);
        let mut looks = 0;
        let found = read(&bucket, TAG, false, |record| {
            looks += 1;
            if looks == 1 {
                bucket.clear(0);
                bucket.put(0, TAG, 2);
            }
            Some(record)
        });
        assert_eq!((found, looks), (Found::Here(2), 2));
    }

    #[test]
    fn nothing_found_in_a_bucket_that_changed_meanwhile_is_looked_for_again() {
        let bucket = bucket_with(&[1, 2]);
        let mut looks = 0;
        let found = read(&bucket, TAG, true, |record| {
            looks += 1;
            if looks == 1 {
                bucket.put(0, TAG, 3);
            }
            (record == 3).then_some(record)
        });
        assert_eq!(found, Found::Here(3));
    }

    #[test]
    fn a_bucket_whose_key_strays_meanwhile_is_looked_at_again() {
        let bucket = bucket_with(&[1]);
        let mut looks = 0;
        let look = bucket.read(TAG, true, |_| {
            looks += 1;
            bucket.set_strays(1);
            None::<()>
        });
        assert_eq!((look.found, look.has_strays), (Found::Contended, true));
        assert_eq!(looks, READ_ATTEMPTS);
    }

    #[test]
    fn a_bucket_whose_writer_died_in_it_is_contended_for_who_finds_nothing() {
        let bucket = bucket_with(&[1]);
        bucket.begin_change();
        assert_eq!(read(&bucket, TAG, false, Some), Found::Contended);
        assert_eq!(read(&bucket, TAG, true, Some), Found::Here(1));
        assert_eq!(read(&bucket, TAG + 1, true, Some), Found::Contended);
        bucket.mend();
        assert_eq!(read(&bucket, TAG, false, Some), Found::Here(1));
        assert_eq!(read(&bucket, TAG + 1, false, Some), Found::Absent);
    }

    #[test]
    fn a_bucket_that_never_stands_still_is_given_up() {
        let bucket = bucket_with(&[1]);
        let mut looks = 0;
        let found = read(&bucket, TAG, false, |_| {
            looks += 1;
            bucket.clear(1);
            Some(())
        });
        assert_eq!((found, looks), (Found::Contended, READ_ATTEMPTS));
    }

    #[test]
    fn a_record_without_a_tag_is_an_empty_slot() {
        let bucket = bucket_with(&[1]);
        bucket.clear(0);
        assert_eq!((bucket.records[0].load(Ordering::Relaxed), bucket.load()), (1, 0));
        assert_eq!(read(&bucket, TAG, false, Some), Found::Absent);
    }
}
