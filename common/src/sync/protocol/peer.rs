//! A peer: what the protocol knows of one sender while this process lives.

use std::net::IpAddr;

use super::OwnerSlot;
use super::courier::Addressee;
use super::digest::Digest;
use crate::id::{NodeId, NumaId};
use crate::sync::state::PeerState;
use crate::sync::wire::{Hello, RangeId};
use crate::time::Millis;

/// A set of ranges.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeSet {
    words: Vec<u64>,
    count: u32,
}

impl RangeSet {
    pub(super) fn new(ranges: u16) -> RangeSet {
        RangeSet { words: vec![0; usize::from(ranges).div_ceil(64)], count: 0 }
    }

    pub(super) fn contains(&self, range: RangeId) -> bool {
        self.words.get(usize::from(range.0) / 64).is_some_and(|word| word >> (range.0 % 64) & 1 == 1)
    }

    /// Adds a range; whether it was not there.
    pub(super) fn insert(&mut self, range: RangeId) -> bool {
        let new = !self.contains(range) && usize::from(range.0) / 64 < self.words.len();
        if new {
            self.words[usize::from(range.0) / 64] |= 1 << (range.0 % 64);
            self.count += 1;
        }
        new
    }

    pub(super) fn remove(&mut self, range: RangeId) {
        if self.contains(range) {
            self.words[usize::from(range.0) / 64] &= !(1 << (range.0 % 64));
            self.count -= 1;
        }
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
        self.count = 0;
    }

    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RangeId> + use<'_> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(RangeId(at as u16 * 64 + bit as u16))
            })
        })
    }
}

/// A time of asking for what is missing of the change stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    /// When to ask, next.
    pub(super) ask_at: Millis,
    pub(super) tries: u32,
    /// What is asked for lies at or below this.
    pub(super) up_to: u64,
}

/// What is known of one sender: a node, or one NUMA node of it.
pub(super) struct Peer<'a> {
    pub(super) node: NodeId,
    pub(super) numa: NumaId,
    pub(super) slot: OwnerSlot,
    /// Where it was heard from last.
    pub(super) address: IpAddr,
    pub(super) state: &'a PeerState,
    /// When it was last heard in this process's life.
    pub(super) heard: Option<Millis>,
    pub(super) hello: Option<Hello>,
    /// Whether a datagram of an earlier life of its was refused since it was last told so.
    pub(super) is_outdated: bool,
    pub(super) gap: Option<Gap>,
    /// Datagrams of its change stream that were asked for, each as often as it was.
    pub(super) gaps_asked: u64,
    /// Ranges of its that differed and have been made equal.
    pub(super) repaired: u64,
    /// What it last said that it owns, all in all.
    pub(super) announced: Option<Digest>,
    /// Whether that was what this node held of it then.
    pub(super) equal: bool,
    /// Whether it was so once since this process began.
    pub(super) was_equal: bool,
    /// Ranges that differed when they were last compared.
    pub(super) suspect: RangeSet,
    /// Ranges to have again.
    pub(super) wanted: RangeSet,
    /// When its range digests were last asked for.
    pub(super) details_asked: Option<Millis>,
    /// Ranges before this one were given back.
    pub(super) next_returned: u16,
}

impl<'a> Peer<'a> {
    pub(super) fn new(
        node: NodeId,
        numa: NumaId,
        slot: OwnerSlot,
        address: IpAddr,
        ranges: u16,
        state: &'a PeerState,
    ) -> Peer<'a> {
        Peer {
            node,
            numa,
            slot,
            address,
            state,
            heard: None,
            hello: None,
            is_outdated: false,
            gap: None,
            gaps_asked: 0,
            repaired: 0,
            announced: None,
            equal: false,
            was_equal: false,
            suspect: RangeSet::new(ranges),
            wanted: RangeSet::new(ranges),
            details_asked: None,
            next_returned: 0,
        }
    }

    pub(super) fn addressee(&self) -> Addressee {
        Addressee { slot: self.slot, node: self.node, numa: self.numa, address: self.address }
    }

    /// Forgets what its last life said.
    pub(super) fn begin_anew(&mut self) {
        self.gap = None;
        self.hello = None;
        self.announced = None;
        self.equal = false;
        self.suspect.clear();
        self.wanted.clear();
        self.details_asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_ranges_counts_and_lists_what_is_in_it() {
        let mut set = RangeSet::new(128);
        for range in [3, 64, 127, 3] {
            set.insert(RangeId(range));
        }
        assert!(!set.insert(RangeId(128)) && !set.contains(RangeId(500)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 64, 127].map(RangeId));
        set.remove(RangeId(64));
        set.remove(RangeId(64));
        assert_eq!((set.len(), set.contains(RangeId(64))), (2, false));
        set.clear();
        assert_eq!(set.iter().count(), 0);
    }
}
