//! Dirty ranges: which parts of a table have changes that found their event ring full.
//!
//! The worker marks, its secondary takes and, when a range has been sent again, finishes. A range that was taken but not
//! finished when the secondary died is the first that its successor gets.

use std::ops::Range;

use super::atomic::{AtomicU64, Ordering};
use super::shared::shared_struct;

/// Ranges that a table is divided into.
pub const DIRTY_RANGES: u32 = 1024;

const WORDS: usize = DIRTY_RANGES as usize / 64;

/// A range of a table's slots, 0..[`DIRTY_RANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirtyRange(u32);

impl DirtyRange {
    /// The range that `slot` of a table of `slots_total` lies in.
    pub fn of(slot: u32, slots_total: u32) -> DirtyRange {
        let range = u64::from(slot) * u64::from(DIRTY_RANGES) / u64::from(slots_total.max(1));
        DirtyRange((range as u32).min(DIRTY_RANGES - 1))
    }

    /// The slots of a table of `slots_total` that lie in this range; none if the table has fewer slots than ranges and
    /// this one got none.
    pub fn slots(self, slots_total: u32) -> Range<u32> {
        let first =
            |range: u32| (u64::from(range) * u64::from(slots_total)).div_ceil(u64::from(DIRTY_RANGES)) as u32;
        first(self.0)..first(self.0 + 1)
    }

    /// The range's number.
    pub fn number(self) -> u32 {
        self.0
    }

    fn word_and_bit(self) -> (usize, u64) {
        (self.0 as usize / 64, 1 << (self.0 % 64))
    }
}

shared_struct! {
    /// The bitmaps as they lie in the ring's file: 256 bytes.
    #[repr(C, align(64))]
    pub struct DirtyRanges {
        /// Set by the worker, cleared by its secondary.
        marked: [AtomicU64; WORDS],
        /// Written by the secondary only.
        taken: [AtomicU64; WORDS],
    }
}

const _: () = assert!(size_of::<DirtyRanges>() == 256 && align_of::<DirtyRanges>() == 64);

impl DirtyRanges {
    /// Bitmaps with nothing marked, for tests and tools that have no shared memory.
    pub const fn new() -> DirtyRanges {
        DirtyRanges {
            marked: [const { AtomicU64::new(0) }; WORDS],
            taken: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// Worker only: marks the range that `slot` of a table of `slots_total` lies in. Called after the slot was changed:
    /// who takes the range sees the change.
    pub fn mark(&self, slot: u32, slots_total: u32) {
        let (word, bit) = DirtyRange::of(slot, slots_total).word_and_bit();
        // SYNC range-marked: pairs with the acquire of `take_next`. Always written, even if the bit is set: otherwise the
        // taker could clear it without seeing the change.
        self.marked[word].fetch_or(bit, Ordering::Release);
    }

    /// Marks every range.
    pub fn mark_all(&self) {
        for word in &self.marked {
            word.fetch_or(u64::MAX, Ordering::Release);
        }
    }

    /// Secondary only: a range to send again, if there is one. The same one until it is finished.
    pub fn take_next(&self) -> Option<DirtyRange> {
        if let Some(range) = first_set(&self.taken) {
            return Some(range);
        }
        let range = first_set(&self.marked)?;
        let (word, bit) = range.word_and_bit();
        self.taken[word].store(self.taken[word].load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        // SYNC range-marked: pairs with the release of `mark`. Release as well, so that a secondary that dies has the range
        // in `taken` before it is out of `marked`.
        self.marked[word].fetch_and(!bit, Ordering::AcqRel);
        Some(range)
    }

    /// Secondary only: the range was sent. Marks that came since it was taken stay.
    pub fn finish(&self, range: DirtyRange) {
        let (word, bit) = range.word_and_bit();
        self.taken[word].store(self.taken[word].load(Ordering::Relaxed) & !bit, Ordering::Release);
    }

    /// Ranges marked or taken now.
    pub fn count(&self) -> u32 {
        let words = self.marked.iter().zip(&self.taken);
        words
            .map(|(marked, taken)| {
                (marked.load(Ordering::Relaxed) | taken.load(Ordering::Relaxed)).count_ones()
            })
            .sum()
    }
}

impl Default for DirtyRanges {
    fn default() -> Self {
        DirtyRanges::new()
    }
}

fn first_set(words: &[AtomicU64; WORDS]) -> Option<DirtyRange> {
    words.iter().enumerate().find_map(|(number, word)| {
        let word = word.load(Ordering::Relaxed);
        (word != 0).then(|| DirtyRange(number as u32 * 64 + word.trailing_zeros()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_lies_in_its_own_range_only() {
        for slots_total in [1, 2, 1000, 1024, 1025, 65_536, 1_000_003] {
            let mut next = 0;
            for number in 0..DIRTY_RANGES {
                let slots = DirtyRange(number).slots(slots_total);
                assert_eq!(slots.start, next);
                next = slots.end;
                if let (Some(first), Some(last)) = (slots.clone().next(), slots.clone().last()) {
                    assert_eq!(DirtyRange::of(first, slots_total).0, number);
                    assert_eq!(DirtyRange::of(last, slots_total).0, number);
                }
            }
            assert_eq!(next, slots_total);
        }
    }

    #[test]
    fn a_taken_range_comes_again_until_it_is_finished() {
        let ranges = DirtyRanges::new();
        ranges.mark(5, 1024);
        assert_eq!(ranges.take_next().unwrap().number(), 5);
        assert_eq!(ranges.take_next().unwrap().number(), 5);
        ranges.finish(DirtyRange(5));
        assert_eq!(ranges.take_next(), None);
    }

    #[test]
    fn a_mark_that_comes_while_its_range_is_sent_is_kept() {
        let ranges = DirtyRanges::new();
        ranges.mark(700, 1024);
        let range = ranges.take_next().unwrap();
        ranges.mark(700, 1024);
        ranges.finish(range);
        assert_eq!(ranges.take_next(), Some(range));
        assert_eq!(ranges.count(), 1);
    }

    #[test]
    fn a_slot_that_is_none_still_marks_a_range() {
        let ranges = DirtyRanges::new();
        ranges.mark(u32::MAX, 10);
        ranges.mark(3, 0);
        assert_eq!(ranges.count(), 1);
    }
}
