//! The interner: the dictionary as a writer keeps it. It gives every entry its number, and writes it down once.

use super::dictionary::ENTRIES_MAX;
use super::entry::{Entry, Groups};

/// Slots of the hash table: twice the entries, so that a search is short.
const SLOTS: usize = 2 * ENTRIES_MAX;

/// The stamp stands above the entry's number in a slot.
const STAMP_SHIFT: u32 = 8;
const STAMP_MAX: u32 = u32::MAX >> STAMP_SHIFT;

/// Entries of one kind that stand in the datagram so far.
#[derive(Debug)]
pub(super) struct Interner {
    groups: Groups,
    count: usize,
    entries: [Entry; ENTRIES_MAX],
    /// Open addressing: the number of an entry under its datagram's stamp. A slot of another stamp is free, so a new
    /// datagram costs no clearing.
    slots: [u32; SLOTS],
    stamp: u32,
    /// The entries as they stand in the datagram, and room behind them.
    encoded: Box<[u8]>,
    encoded_bytes: usize,
}

/// How far an interner was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    count: usize,
    encoded: usize,
}

#[inline]
fn slot_of(entry: &Entry) -> usize {
    let mixed = entry[0] ^ entry[1].rotate_left(29) ^ entry[2].rotate_left(47);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOTS.ilog2())) as usize
}

/// Word by word: what was just put together from words would stall a comparison by vectors.
#[inline]
fn is_same(one: &Entry, other: &Entry) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) == 0
}

impl Interner {
    pub(super) fn new(groups: Groups) -> Interner {
        Interner {
            groups,
            count: 0,
            entries: [[0; 3]; ENTRIES_MAX],
            slots: [0; SLOTS],
            stamp: 1,
            encoded: vec![0; ENTRIES_MAX * groups.encoded_max() + size_of::<u64>()].into_boxed_slice(),
            encoded_bytes: 0,
        }
    }

    /// The entries, as they stand in the datagram.
    #[inline]
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded[..self.encoded_bytes]
    }

    /// The entry's slot if it has one, or the one that it would get.
    #[inline]
    fn search(&self, entry: &Entry) -> (usize, Option<u8>) {
        let mut slot = slot_of(entry);
        loop {
            let word = self.slots[slot % SLOTS];
            if word >> STAMP_SHIFT != self.stamp {
                return (slot % SLOTS, None);
            }
            // There are never more slots in use than half of them, so the loop ends.
            if is_same(&self.entries[usize::from(word as u8)], entry) {
                return (slot % SLOTS, Some(word as u8));
            }
            slot += 1;
        }
    }

    /// The number of an entry that stands in the datagram.
    #[cfg(test)]
    fn number_of(&self, entry: &Entry) -> Option<u8> {
        self.search(entry).1
    }

    /// The number of an entry, which is added if it is new. `None` if there is no number left.
    #[inline(always)]
    pub(super) fn intern(&mut self, entry: &Entry) -> Option<u8> {
        let (slot, found) = self.search(entry);
        if found.is_some() {
            return found;
        }
        let number = u8::try_from(self.count).ok()?;
        let previous = self.count.checked_sub(1).map_or([0; 3], |last| self.entries[last]);
        self.encoded_bytes += self.groups.encode(&previous, entry, &mut self.encoded[self.encoded_bytes..]);
        self.entries[self.count] = *entry;
        self.slots[slot] = self.stamp << STAMP_SHIFT | u32::from(number);
        self.count += 1;
        Some(number)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { count: self.count, encoded: self.encoded_bytes }
    }

    /// Takes back what was added since the mark.
    pub(super) fn roll_back(&mut self, mark: Mark) {
        while self.count > mark.count {
            // The last one added is the end of every search that it is part of: its slot can just be freed.
            let (slot, _) = self.search(&self.entries[self.count - 1]);
            self.slots[slot] = 0;
            self.count -= 1;
        }
        self.encoded_bytes = mark.encoded;
    }

    /// Forgets all entries.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.encoded_bytes = 0;
        self.stamp += 1;
        if self.stamp > STAMP_MAX {
            self.slots.fill(0);
            self.stamp = 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        [10 | number << 24, 0, 0]
    }

    fn interner() -> Interner {
        Interner::new(Groups::V4_ENDPOINT)
    }

    #[test]
    fn an_entry_stands_once_and_keeps_its_number() {
        let mut interner = interner();
        for _ in 0..2 {
            for number in 0..256 {
                assert_eq!(interner.intern(&entry(number)), Some(number as u8));
            }
        }
        assert_eq!(interner.number_of(&entry(77)), Some(77));
        assert_eq!(interner.intern(&entry(256)), None, "numbers have eight bits");
        assert_eq!(interner.number_of(&entry(256)), None);
    }

    #[test]
    fn what_was_rolled_back_was_never_there() {
        let mut interner = interner();
        for number in 0..100 {
            interner.intern(&entry(number));
        }
        let (mark, encoded) = (interner.mark(), interner.encoded().to_vec());

        for number in 100..256 {
            interner.intern(&entry(number));
        }
        interner.roll_back(mark);

        assert_eq!(interner.encoded(), encoded);
        assert!((0..100).all(|number| interner.number_of(&entry(number)) == Some(number as u8)));
        assert!((100..256).all(|number| interner.number_of(&entry(number)).is_none()));
        assert_eq!(interner.intern(&entry(1000)), Some(100));
    }

    #[test]
    fn a_cleared_interner_knows_nothing_even_when_stamps_begin_anew() {
        let mut interner = interner();
        interner.intern(&entry(1));
        interner.stamp = STAMP_MAX;
        interner.intern(&entry(2));

        interner.clear();

        assert_eq!(interner.stamp, 1);
        assert!(interner.encoded().is_empty());
        assert_eq!((interner.number_of(&entry(1)), interner.number_of(&entry(2))), (None, None));
        assert_eq!(interner.intern(&entry(2)), Some(0));
    }
}
