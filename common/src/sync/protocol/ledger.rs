//! The ledger: what each owner is known to have, place by place, and the digests over it.
//!
//! It stands beside the tables, in the secondary's own memory: eleven bytes a place, made once, rebuilt by one scan. A place is a
//! slot of the remote table or of one of the workers' tables. The ledger holds what was *reported*: of this node's
//! own sessions what the peers were told, of the others' what they said. What workers change in place does not touch it.

use super::digest::{Digest, range_of};
use super::tables::Place;
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
    digests: Vec<Vec<Digest>>,
    totals: Vec<Digest>,
    confirmations: Vec<Confirmation>,
}

impl Ledger {
    /// An empty ledger of this many places.
    pub fn new(places: u32, ranges: u16) -> Ledger {
        let places = places as usize;
        Ledger {
            ranges,
            words: vec![0; places],
            owners: vec![0; places],
            stamps: vec![0; places],
            digests: vec![Vec::new(); OWNERS_MAX],
            totals: vec![Digest::default(); OWNERS_MAX],
            confirmations: Vec::with_capacity(64),
        }
    }

    /// Makes room for an owner's digests. Allocates, once an owner.
    pub fn open(&mut self, owner: OwnerSlot) {
        let digests = &mut self.digests[usize::from(owner.0)];
        if digests.is_empty() {
            digests.resize(usize::from(self.ranges), Digest::default());
        }
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

    /// Enters that `owner` has the session with `word` in a place, whatever was known of the place before.
    pub fn set(&mut self, place: Place, entry: Entry) {
        self.clear(place);
        let at = place.0 as usize;
        if at >= self.words.len() || usize::from(entry.owner.0) >= OWNERS_MAX {
            return;
        }
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

    fn count(&mut self, entry: Entry, change: impl Fn(Digest, u64) -> Digest) {
        let owner = usize::from(entry.owner.0);
        let range = range_of(entry.word, self.ranges);
        self.totals[owner] = change(self.totals[owner], entry.word);
        if let Some(digest) = self.digests[owner].get_mut(usize::from(range.0)) {
            *digest = change(*digest, entry.word);
        }
        for one in &mut self.confirmations {
            if one.owner == entry.owner && one.range == range && is_since(entry.stamp, one.since) {
                one.confirmed = change(one.confirmed, entry.word);
            }
        }
    }

    /// An owner's sessions in a range.
    pub fn digest(&self, owner: OwnerSlot, range: RangeId) -> Digest {
        self.digests[usize::from(owner.0)].get(usize::from(range.0)).copied().unwrap_or_default()
    }

    /// All of an owner's sessions.
    pub fn total(&self, owner: OwnerSlot) -> Digest {
        self.totals[usize::from(owner.0)]
    }

    /// Begins to count what of an owner's range is confirmed from the stamp `since` on.
    pub fn begin_confirming(&mut self, owner: OwnerSlot, range: RangeId, since: u16) {
        self.end_confirming(owner, range);
        self.confirmations.push(Confirmation { owner, range, since, confirmed: Digest::default() });
    }

    /// What was confirmed of an owner's range; `None` if nobody counts.
    pub fn confirmed(&self, owner: OwnerSlot, range: RangeId) -> Option<Digest> {
        let mut all = self.confirmations.iter();
        all.find(|one| one.owner == owner && one.range == range).map(|one| one.confirmed)
    }

    /// Counts no longer.
    pub fn end_confirming(&mut self, owner: OwnerSlot, range: RangeId) {
        self.confirmations.retain(|one| one.owner != owner || one.range != range);
    }

    /// The words of all places from `from` on, and their owners: for a pass over the whole ledger.
    pub fn scan(&self, from: u32, budget: u32) -> impl Iterator<Item = (Place, Entry)> + use<'_> {
        let end = from.saturating_add(budget).min(self.places());
        (from..end).filter_map(|place| self.entry(Place(place)).map(|entry| (Place(place), entry)))
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
