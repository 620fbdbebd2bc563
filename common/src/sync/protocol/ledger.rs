//! The ledger: what each owner is known to have, place by place, and the digests over it.
//!
//! It stands beside the tables, in the secondary's own memory: eleven bytes a place and four for the register, made once, rebuilt by one scan. A place is a
//! slot of the remote table or of one of the workers' tables. The ledger holds what was *reported*: of this node's
//! own sessions what the peers were told, of the others' what they said. What workers change in place does not touch it.

use super::digest::{Digest, range_of};
use super::register::Register;
use super::tables::Place;
use crate::shm::index::prefetch_read;
use crate::shm::pages::prefer_huge;
use crate::sync::wire::RangeId;

/// Whose sessions these are: [`OwnerSlot::SELF`], or the peer with this number. Never leaves the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerSlot(pub u8);

impl OwnerSlot {
    /// This node.
    pub const SELF: OwnerSlot = OwnerSlot(0);
}

/// Owners that can be told apart, this node included.
pub const OWNERS_MAX: usize = 128;

/// What the ledger knows of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the session adds to its owner's digest.
    pub word: u64,
    /// Its owner.
    pub owner: OwnerSlot,
    /// When its owner last spoke of it, by the resync's clock.
    pub stamp: u16,
}

/// What an owner has in a range.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    digest: Digest,
    /// The number of its confirmation, from 1 on; 0 if it has none.
    confirmation: u32,
}

/// A range of an owner's that is being sent as a whole: the digest of what was confirmed since.
#[derive(Clone, Copy, Debug)]
struct Confirmation {
    owner: OwnerSlot,
    range: RangeId,
    since: u16,
    confirmed: Digest,
}

/// Whether a stamp is `since` or later. Stamps wrap; half of them count as later.
#[inline]
pub fn is_since(stamp: u16, since: u16) -> bool {
    stamp.wrapping_sub(since) < 1 << 15
}

/// What each owner has in each range.
pub struct Ledger {
    ranges: u16,
    words: Vec<u64>,
    owners: Vec<u8>,
    stamps: Vec<u16>,
    /// Per owner, then per range; empty for an owner that never had any.
    tallies: Vec<Vec<Tally>>,
    totals: Vec<Digest>,
    confirmations: Vec<Confirmation>,
    register: Register,
}

impl Ledger {
    /// An empty ledger of this many places.
    pub fn new(places: u32, ranges: u16) -> Ledger {
        let register = Register::new(places, OWNERS_MAX);
        let places = places as usize;
        let (mut words, mut owners) = (vec![0; places], vec![0; places]);
        prefer_huge(&mut words);
        prefer_huge(&mut owners);
        Ledger {
            ranges,
            words,
            owners,
            stamps: vec![0; places],
            tallies: vec![Vec::new(); OWNERS_MAX],
            totals: vec![Digest::default(); OWNERS_MAX],
            confirmations: Vec::with_capacity(64),
            register,
        }
    }

    /// Makes room for an owner's digests. Allocates, once an owner.
    pub fn open(&mut self, owner: OwnerSlot) {
        let tallies = &mut self.tallies[usize::from(owner.0)];
        if tallies.is_empty() {
            tallies.resize(usize::from(self.ranges), Tally::default());
        }
        self.register.open_owner(owner, self.ranges);
    }

    /// Ranges of the key space.
    pub fn ranges(&self) -> u16 {
        self.ranges
    }

    /// Places that there are.
    pub fn places(&self) -> u32 {
        self.words.len() as u32
    }

    /// The range of a session's word.
    #[inline]
    pub fn range_of(&self, word: u64) -> RangeId {
        range_of(word, self.ranges)
    }

    /// What is known of a place; `None` if nothing is.
    #[inline]
    pub fn entry(&self, place: Place) -> Option<Entry> {
        let at = place.0 as usize;
        let word = *self.words.get(at)?;
        (word != 0).then(|| Entry { word, owner: OwnerSlot(self.owners[at]), stamp: self.stamps[at] })
    }

    /// Has what is known of a place brought near.
    #[inline]
    pub fn prefetch(&self, place: Place) {
        let at = place.0 as usize;
        if let (Some(word), Some(owner)) = (self.words.get(at), self.owners.get(at)) {
            prefetch_read(word);
            prefetch_read(owner);
        }
    }

    /// Enters that `owner` has the session with `word` in a place, whatever was known of the place before.
    #[inline(always)]
    pub fn set(&mut self, place: Place, entry: Entry) {
        let at = place.0 as usize;
        if at >= self.words.len() || usize::from(entry.owner.0) >= OWNERS_MAX {
            self.clear(place);
            return;
        }
        if self.words[at] != 0 {
            return self.replace(place, entry);
        }
        self.write(at, entry);
        self.register.note(entry.owner, self.range_of(entry.word), place);
    }

    /// [`Ledger::set`] where something was known of the place before.
    #[inline(never)]
    fn replace(&mut self, place: Place, entry: Entry) {
        let range = self.range_of(entry.word);
        let stands_there = self
            .entry(place)
            .is_some_and(|before| before.owner == entry.owner && self.range_of(before.word) == range);
        self.clear(place);
        self.write(place.0 as usize, entry);
        if !stands_there {
            self.register.note(entry.owner, range, place);
        }
    }

    /// Writes to a place of which nothing is known.
    #[inline(always)]
    fn write(&mut self, at: usize, entry: Entry) {
        self.words[at] = entry.word;
        self.owners[at] = entry.owner.0;
        self.stamps[at] = entry.stamp;
        self.count(entry, |digest, word| digest + word);
    }

    /// Strikes a place out.
    pub fn clear(&mut self, place: Place) {
        let Some(entry) = self.entry(place) else { return };
        self.words[place.0 as usize] = 0;
        self.count(entry, |digest, word| digest - word);
    }

    #[inline(always)]
    fn count(&mut self, entry: Entry, change: impl Fn(Digest, u64) -> Digest) {
        let owner = usize::from(entry.owner.0);
        let range = range_of(entry.word, self.ranges);
        self.totals[owner] = change(self.totals[owner], entry.word);
        let Some(tally) = self.tallies[owner].get_mut(usize::from(range.0)) else { return };
        tally.digest = change(tally.digest, entry.word);
        if tally.confirmation > 0
            && let Some(one) = self.confirmations.get_mut(tally.confirmation as usize - 1)
            && is_since(entry.stamp, one.since)
        {
            one.confirmed = change(one.confirmed, entry.word);
        }
    }

    fn tally(&self, owner: OwnerSlot, range: RangeId) -> Option<&Tally> {
        self.tallies[usize::from(owner.0)].get(usize::from(range.0))
    }

    fn tally_mut(&mut self, owner: OwnerSlot, range: RangeId) -> Option<&mut Tally> {
        self.tallies[usize::from(owner.0)].get_mut(usize::from(range.0))
    }

    /// An owner's sessions in a range.
    pub fn digest(&self, owner: OwnerSlot, range: RangeId) -> Digest {
        self.tally(owner, range).map(|tally| tally.digest).unwrap_or_default()
    }

    /// All of an owner's sessions.
    pub fn total(&self, owner: OwnerSlot) -> Digest {
        self.totals[usize::from(owner.0)]
    }

    /// Begins to count what of an owner's range is confirmed from the stamp `since` on.
    pub fn begin_confirming(&mut self, owner: OwnerSlot, range: RangeId, since: u16) {
        self.end_confirming(owner, range);
        let number = self.confirmations.len() as u32 + 1;
        let Some(tally) = self.tally_mut(owner, range) else { return };
        tally.confirmation = number;
        self.confirmations.push(Confirmation { owner, range, since, confirmed: Digest::default() });
    }

    /// What was confirmed of an owner's range; `None` if nobody counts.
    pub fn confirmed(&self, owner: OwnerSlot, range: RangeId) -> Option<Digest> {
        let number = self.tally(owner, range)?.confirmation as usize;
        self.confirmations.get(number.checked_sub(1)?).map(|one| one.confirmed)
    }

    /// Counts no longer.
    pub fn end_confirming(&mut self, owner: OwnerSlot, range: RangeId) {
        let Some(tally) = self.tally_mut(owner, range) else { return };
        let number = std::mem::take(&mut tally.confirmation);
        let Some(at) = (number as usize).checked_sub(1) else { return };
        self.confirmations.swap_remove(at);
        // The last one has its number now.
        if let Some(&Confirmation { owner, range, .. }) = self.confirmations.get(at)
            && let Some(moved) = self.tally_mut(owner, range)
        {
            moved.confirmation = number;
        }
    }

    /// What is known of the `budget` places from `from` on: for a pass over the whole ledger.
    pub fn scan(&self, from: u32, budget: u32) -> impl Iterator<Item = (Place, Entry)> + use<'_> {
        let end = from.saturating_add(budget).min(self.places());
        (from..end).filter_map(|place| self.entry(Place(place)).map(|entry| (Place(place), entry)))
    }

    /// The places by owner and range, as they were found so far.
    pub(super) fn register(&self) -> &Register {
        &self.register
    }

    /// Goes on making the register, or begins to: at most `budget` places.
    pub(super) fn fill_register(&mut self, budget: u32) {
        let Ledger { register, tallies, words, owners, ranges, .. } = self;
        let Some(from) = register.fills_from() else {
            register.begin(|owner, range| {
                tallies[usize::from(owner.0)]
                    .get(usize::from(range.0))
                    .map_or_else(Digest::default, |tally| tally.digest)
            });
            return;
        };
        let end = from.saturating_add(budget).min(words.len() as u32);
        let found = words[from as usize..end as usize].iter().zip(&owners[from as usize..end as usize]);
        for ((word, owner), place) in found.zip(from..) {
            if *word != 0 {
                register.fill(OwnerSlot(*owner), range_of(*word, *ranges), Place(place));
            }
        }
        register.filled_to(end);
    }

    /// Nobody needs the register for now.
    pub(super) fn close_register(&mut self) {
        self.register.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::fixture::session_v4;
    use crate::sync::protocol::digest::word_of;

    const PEER: OwnerSlot = OwnerSlot(3);

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(100, 16);
        ledger.open(OwnerSlot::SELF);
        ledger.open(PEER);
        ledger
    }

    fn entry(number: u8, owner: OwnerSlot, stamp: u16) -> Entry {
        Entry { word: word_of(&session_v4(number)), owner, stamp }
    }

    #[test]
    fn a_place_counts_for_its_present_owner_only() {
        let mut ledger = ledger();
        let mine = entry(1, OwnerSlot::SELF, 0);
        let range = ledger.range_of(mine.word);
        ledger.set(Place(5), mine);
        assert_eq!(ledger.digest(OwnerSlot::SELF, range).sessions, 1);

        ledger.set(Place(5), Entry { owner: PEER, ..mine });

        assert_eq!(ledger.total(OwnerSlot::SELF), Digest::default());
        assert_eq!(ledger.digest(PEER, range), Digest { sessions: 1, sum: mine.word });
        ledger.clear(Place(5));
        ledger.clear(Place(5));
        assert_eq!(ledger.total(PEER), Digest::default());
        assert_eq!(ledger.entry(Place(5)), None);
    }

    #[test]
    fn equal_sets_in_other_places_have_equal_digests() {
        let (mut one, mut other) = (ledger(), ledger());
        for number in 1..40 {
            one.set(Place(number.into()), entry(number, OwnerSlot::SELF, 0));
            other.set(Place(u32::from(100 - number)), entry(number, PEER, 9));
        }
        for range in (0..16).map(RangeId) {
            assert_eq!(one.digest(OwnerSlot::SELF, range), other.digest(PEER, range));
        }
    }

    #[test]
    fn confirmed_is_what_was_said_since_the_beginning() {
        let mut ledger = ledger();
        let old = entry(1, PEER, 6);
        let range = ledger.range_of(old.word);
        ledger.set(Place(1), old);
        ledger.begin_confirming(PEER, range, 7);
        assert_eq!(ledger.confirmed(PEER, range), Some(Digest::default()));

        ledger.set(Place(1), Entry { stamp: 7, ..old });
        assert_eq!(ledger.confirmed(PEER, range), Some(Digest::default() + old.word));

        ledger.clear(Place(1));
        assert_eq!(ledger.confirmed(PEER, range), Some(Digest::default()));
        ledger.end_confirming(PEER, range);
        assert_eq!(ledger.confirmed(PEER, range), None);
    }

    #[test]
    fn stamps_wrap() {
        assert!(is_since(5, 5) && is_since(6, 5) && !is_since(4, 5));
        assert!(is_since(2, u16::MAX) && !is_since(u16::MAX, 2));
    }

    #[test]
    fn a_place_that_is_none_changes_nothing() {
        let mut ledger = ledger();
        ledger.set(Place(100), entry(1, PEER, 0));
        ledger.clear(Place(u32::MAX));
        assert_eq!(ledger.total(PEER), Digest::default());
    }
}
