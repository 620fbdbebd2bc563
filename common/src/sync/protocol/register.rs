//! The register: all places by owner and range, so that a range can be served without looking for it.
//!
//! A counting sort in bounded steps: how many sessions an owner has in a range is known from the digests. What is entered
//! later, or did not fit because its range grew meanwhile, stands in a list beside. An entry is a hint: the place may be
//! another session's by now, or named twice, and the ledger decides. When the list is full the register is made anew.

use super::digest::Digest;
use super::ledger::OwnerSlot;
use super::tables::Place;
use crate::shm::pages::prefer_huge;
use crate::sync::wire::RangeId;

/// Places that may be entered late.
const LATE_MAX: usize = 1 << 20;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// Where an owner's range stands.
#[derive(Clone, Copy, Debug)]
struct Shelf {
    first: u32,
    filled: u32,
    room: u32,
    /// The first that came late.
    late: u32,
}

impl Shelf {
    const EMPTY: Shelf = Shelf { first: 0, filled: 0, room: 0, late: NONE };
}

#[derive(Clone, Copy, Debug)]
struct Late {
    place: Place,
    next: u32,
}

/// How far a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody needs it.
    Closed,
    /// Places below this one were looked at.
    Filling(u32),
    Open,
}

/// Where the next place of a range is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    /// The so manieth of those that were there when the register was made.
    Sorted(u32),
    /// One of those that came late; none if there is none.
    Late(u32),
}

/// All places by owner and range.
pub(super) struct Register {
    /// The numbers of the places.
    places: Vec<u32>,
    /// Per owner, then per range.
    shelves: Vec<Vec<Shelf>>,
    late: Vec<Late>,
    stage: Stage,
    overflowed: bool,
}

impl Register {
    /// A closed register of this many places. Its memory is taken when it is first filled.
    pub(super) fn new(places: u32, owners: usize) -> Register {
        let late = Vec::with_capacity(LATE_MAX.min(places as usize));
        let mut places = vec![0; places as usize];
        prefer_huge(&mut places);
        Register { places, shelves: vec![Vec::new(); owners], late, stage: Stage::Closed, overflowed: false }
    }

    /// Makes room for an owner's ranges.
    pub(super) fn open_owner(&mut self, owner: OwnerSlot, ranges: u16) {
        let shelves = &mut self.shelves[usize::from(owner.0)];
        if shelves.is_empty() {
            shelves.resize(usize::from(ranges), Shelf::EMPTY);
        }
    }

    /// Begins anew: `digest` tells how many sessions an owner has in a range.
    pub(super) fn begin(&mut self, digest: impl Fn(OwnerSlot, RangeId) -> Digest) {
        let mut first = 0;
        for (owner, shelves) in self.shelves.iter_mut().enumerate() {
            for (range, shelf) in shelves.iter_mut().enumerate() {
                let room = digest(OwnerSlot(owner as u8), RangeId(range as u16)).sessions;
                let room = room.min((self.places.len() as u32).saturating_sub(first));
                *shelf = Shelf { first, filled: 0, room, late: NONE };
                first += room;
            }
        }
        self.late.clear();
        self.overflowed = false;
        self.stage = Stage::Filling(0);
    }

    /// Where filling goes on; `None` if it is not under way.
    pub(super) fn fills_from(&self) -> Option<u32> {
        match self.stage {
            Stage::Filling(next) => Some(next),
            Stage::Closed | Stage::Open => None,
        }
    }

    /// Everything below `next` was entered. The register is open when that is all.
    pub(super) fn filled_to(&mut self, next: u32) {
        let all = next as usize >= self.places.len();
        self.stage = if all { Stage::Open } else { Stage::Filling(next) };
    }

    /// Enters what stands in a place.
    #[inline]
    pub(super) fn fill(&mut self, owner: OwnerSlot, range: RangeId, place: Place) {
        let Some(shelf) = self.shelves[usize::from(owner.0)].get_mut(usize::from(range.0)) else { return };
        if shelf.filled < shelf.room {
            self.places[(shelf.first + shelf.filled) as usize] = place.0;
            shelf.filled += 1;
        } else {
            self.add_late(owner, range, place);
        }
    }

    /// Notes that a place has become an owner's in a range.
    #[inline]
    pub(super) fn note(&mut self, owner: OwnerSlot, range: RangeId, place: Place) {
        match self.stage {
            Stage::Closed => {}
            Stage::Filling(next) if place.0 >= next => {}
            Stage::Filling(_) | Stage::Open => self.add_late(owner, range, place),
        }
    }

    #[cold]
    fn add_late(&mut self, owner: OwnerSlot, range: RangeId, place: Place) {
        let Some(shelf) = self.shelves[usize::from(owner.0)].get_mut(usize::from(range.0)) else { return };
        if self.late.len() == self.late.capacity() {
            self.overflowed = true;
            return;
        }
        self.late.push(Late { place, next: shelf.late });
        shelf.late = self.late.len() as u32 - 1;
    }

    /// Whether it can be read, and lacks nothing.
    pub(super) fn is_whole(&self) -> bool {
        self.stage == Stage::Open && !self.overflowed
    }

    /// Whether it is neither being filled nor can be read.
    pub(super) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// Nobody needs it any more.
    pub(super) fn close(&mut self) {
        self.stage = Stage::Closed;
        self.late.clear();
    }

    /// The place at a cursor, and the cursor behind it.
    #[inline]
    pub(super) fn next(&self, owner: OwnerSlot, range: RangeId, cursor: Cursor) -> Option<(Place, Cursor)> {
        let shelf = self.shelves[usize::from(owner.0)].get(usize::from(range.0))?;
        let late = match cursor {
            Cursor::Sorted(at) if at < shelf.filled => {
                let place = *self.places.get((shelf.first + at) as usize)?;
                return Some((Place(place), Cursor::Sorted(at + 1)));
            }
            Cursor::Sorted(_) => shelf.late,
            Cursor::Late(at) => at,
        };
        let Late { place, next } = *self.late.get(late as usize)?;
        Some((place, Cursor::Late(next)))
    }

    /// The place so many behind a sorted cursor: to have it brought near.
    #[inline]
    pub(super) fn ahead(&self, owner: OwnerSlot, range: RangeId, cursor: Cursor, by: u32) -> Option<Place> {
        let Cursor::Sorted(at) = cursor else { return None };
        let shelf = self.shelves[usize::from(owner.0)].get(usize::from(range.0))?;
        // Behind the end there is the next range, which is probably next.
        self.places.get((shelf.first + at + by) as usize).map(|place| Place(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: OwnerSlot = OwnerSlot(0);
    const RANGE: RangeId = RangeId(3);

    fn read(register: &Register, range: RangeId) -> Vec<u32> {
        let mut cursor = Cursor::Sorted(0);
        let mut read = Vec::new();
        while let Some((place, next)) = register.next(MINE, range, cursor) {
            read.push(place.0);
            cursor = next;
        }
        read.sort_unstable();
        read
    }

    fn filling(room: u32) -> Register {
        let mut register = Register::new(100, 2);
        register.open_owner(MINE, 8);
        register.begin(|_, range| Digest { sessions: if range == RANGE { room } else { 1 }, sum: 0 });
        register
    }

    #[test]
    fn a_range_has_what_was_there_and_what_came_late() {
        let mut register = filling(2);
        register.fill(MINE, RANGE, Place(1));
        register.fill(MINE, RangeId(4), Place(2));
        register.filled_to(50);
        register.note(MINE, RANGE, Place(70));
        register.note(MINE, RANGE, Place(10));
        register.fill(MINE, RANGE, Place(70));
        register.fill(MINE, RANGE, Place(71));
        assert!(!register.is_whole());
        register.filled_to(100);
        assert!(register.is_whole());
        assert_eq!(
            read(&register, RANGE),
            [1, 10, 70, 71],
            "70 once: the filling came by, 71 grew the range"
        );
        assert_eq!(read(&register, RangeId(4)), [2]);
        assert!(read(&register, RangeId(9)).is_empty());
    }

    #[test]
    fn a_closed_register_notes_nothing_and_a_full_list_makes_it_incomplete() {
        let mut register = Register::new(2, 1);
        register.open_owner(MINE, 8);
        register.note(MINE, RANGE, Place(0));
        register.begin(|_, _| Digest::default());
        register.filled_to(2);
        for place in 0..2 {
            register.note(MINE, RANGE, Place(place));
        }
        assert!(register.is_whole());
        let room = register.late.capacity();
        for _ in 2..=room {
            register.note(MINE, RANGE, Place(1));
        }
        assert!(!register.is_whole() && !register.is_closed());
        assert_eq!(read(&register, RANGE).len(), room);
    }
}
