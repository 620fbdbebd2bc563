//! The slots of a table that hold no session, as its writer keeps them: in its own memory, for the index says it all.

use crate::shm::readers::Readers;

/// Freed slots that are worth looking after the readers for.
const BATCH: usize = 64;

/// Slots without a session: those to use, and those that a reader may still hold the number of.
pub(super) struct FreeSlots {
    /// Nobody holds these numbers. The last one is used first.
    free: Vec<u32>,
    /// Unlinked before `waiting_epoch` began.
    waiting: Vec<u32>,
    waiting_epoch: u64,
    /// Unlinked since.
    freed: Vec<u32>,
}

impl FreeSlots {
    /// No slots, with memory for all of a table of `capacity`: nothing is allocated later.
    pub(super) fn new(capacity: u32) -> FreeSlots {
        let list = || Vec::with_capacity(capacity as usize);
        FreeSlots { free: list(), waiting: list(), waiting_epoch: 0, freed: list() }
    }

    /// Takes a slot to use. `None` if there is none, or readers hold all there are.
    #[inline]
    pub(super) fn take(&mut self, readers: &Readers) -> Option<u32> {
        if self.free.is_empty() {
            self.reclaim(readers);
        }
        self.free.pop()
    }

    /// The slot that will be taken when `ahead` others were, if none is given back meanwhile.
    #[inline]
    pub(super) fn upcoming(&self, ahead: usize) -> Option<u32> {
        self.free.len().checked_sub(ahead + 1).map(|place| self.free[place])
    }

    /// Takes back a slot that was taken and not used.
    pub(super) fn give_back(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Adds slots that were unlinked before this writer took over; the last one is used first.
    pub(super) fn begin(&mut self, readers: &Readers, slots: impl Iterator<Item = u32>) {
        self.freed.extend(slots);
        self.reclaim(readers);
    }

    /// Gives a slot back that was unlinked just now.
    pub(super) fn release(&mut self, readers: &Readers, slot: u32) {
        self.freed.push(slot);
        if self.freed.len().is_multiple_of(BATCH) {
            self.reclaim(readers);
        }
    }

    /// Finds out which slots the readers are through with.
    pub(super) fn reclaim(&mut self, readers: &Readers) {
        self.free_waiting(readers);
        if self.waiting.is_empty() && !self.freed.is_empty() {
            std::mem::swap(&mut self.waiting, &mut self.freed);
            self.waiting_epoch = readers.advance();
            self.free_waiting(readers);
        }
    }

    fn free_waiting(&mut self, readers: &Readers) {
        if self.waiting.is_empty() || !readers.have_passed(self.waiting_epoch) {
            return;
        }
        if self.free.is_empty() {
            std::mem::swap(&mut self.free, &mut self.waiting);
        } else {
            self.free.append(&mut self.waiting);
        }
    }

    /// Slots without a session, whether readers are through with them or not.
    pub(super) fn len(&self) -> u32 {
        (self.free.len() + self.waiting.len() + self.freed.len()) as u32
    }
}
