//! Batches: many operations at once, with what each will need brought near while others are under way.
//!
//! A batch runs as a ring: each turn takes one item one step further at each stage, so that a cache line is asked for a few
//! turns before it is needed, and never many at a time. Items change the table in their last step only, one after the other.
//! The glance before it may settle that a key stands nowhere; that a record is the key's is checked in the last step.

use super::writer::InsertError;
use super::{Lookup, SessionTable, TableWriter};
use crate::flow::FlowKey;
use crate::id::RecordIndex;
use crate::session::{Direction, Session, record};
use crate::shm::bucket::Glance;
use crate::shm::index::Candidates;
use crate::time::Millis;

/// Turns from one step of an item to its next.
const DISTANCE: usize = 12;

/// Items under way at most, and some: a power of two, so that an item's place in the ring is its number's lowest bits.
const RING: usize = 64;

/// The items under way. Each stage of an item finds what the one before has left.
struct Ring<T>([T; RING]);

impl<T> Ring<T> {
    #[inline]
    fn at(&mut self, item: usize) -> &mut T {
        &mut self.0[item % RING]
    }
}

/// The item that is to take its `stage`th step in this turn.
#[inline]
fn due(turn: usize, stage: usize, items: usize) -> Option<usize> {
    turn.checked_sub(stage * DISTANCE).filter(|item| *item < items)
}

/// A key under way, and what one look at its first bucket told.
#[derive(Clone, Copy, Default)]
pub(super) struct Sought {
    pub(super) candidates: Candidates,
    pub(super) glance: Glance,
}

impl SessionTable {
    /// Finds the sessions that packets with `keys` belong to: calls `found` with each key's position and result, in their
    /// order.
    #[inline]
    pub fn lookup_batch(&self, keys: &[FlowKey], mut found: impl FnMut(usize, Lookup)) {
        let mut ring = Ring([Sought::default(); RING]);
        for turn in 0..keys.len() + 2 * DISTANCE {
            if let Some(item) = due(turn, 0, keys.len()) {
                self.begin(ring.at(item), &keys[item]);
            }
            if let Some(item) = due(turn, 1, keys.len()) {
                self.glance(ring.at(item));
            }
            if let Some(item) = due(turn, 2, keys.len()) {
                found(item, self.lookup_sought(ring.at(item), &keys[item]));
            }
        }
    }

    #[inline]
    fn begin(&self, sought: &mut Sought, key: &FlowKey) {
        sought.candidates = self.candidates(key);
        self.index.prefetch(&sought.candidates);
    }

    #[inline]
    fn glance(&self, sought: &mut Sought) {
        sought.glance = self.index.glance(&sought.candidates);
        if let Glance::Likely(record) = sought.glance {
            self.slab.prefetch(record);
        }
    }

    /// Finds the session that packets with `key` belong to, after a glance at the key's first bucket.
    #[inline(always)]
    pub(super) fn lookup_sought(&self, sought: &Sought, key: &FlowKey) -> Lookup {
        match sought.glance {
            Glance::Absent => return Lookup::Miss,
            // What is found in a record that stays is right, however it was come by.
            Glance::Likely(number) if self.records_stay => {
                if let Some(resolved) = self.resolve(number)
                    && let Some(direction) = resolved.direction_of(&key.words())
                    && let Some(session) = resolved.session()
                {
                    return Lookup::Hit { index: RecordIndex(number), direction, session };
                }
            }
            Glance::Likely(_) | Glance::Unknown => {}
        }
        self.lookup_at(&sought.candidates, key)
    }
}

impl TableWriter {
    /// Adds sessions: calls `done` with each one's position and result, in their order.
    #[inline]
    pub fn insert_batch(
        &mut self,
        sessions: &[Session],
        mut done: impl FnMut(usize, Result<RecordIndex, InsertError>),
    ) {
        let mut ring = Ring([[Candidates::default(); 2]; RING]);
        for turn in 0..sessions.len() + DISTANCE {
            if let Some(item) = due(turn, 0, sessions.len()) {
                let session = &sessions[item];
                let client = self.table.candidates(&session.client_key());
                self.table.index.prefetch(&client);
                let server = self.table.candidates(&session.server_key());
                self.table.index.prefetch(&server);
                *ring.at(item) = [client, server];
                if let Some(number) = self.slots.upcoming(DISTANCE) {
                    self.table.slab.prefetch(number);
                }
            }
            if let Some(item) = due(turn, 1, sessions.len()) {
                done(item, self.insert_at(&sessions[item], ring.at(item)));
            }
        }
    }

    /// Notes that packets of sessions were seen, found by their keys; how many were there.
    #[inline]
    pub fn refresh_batch(&mut self, keys: &[FlowKey], now: Millis) -> u32 {
        let mut ring = Ring([Sought::default(); RING]);
        let mut refreshed = 0;
        for turn in 0..keys.len() + 2 * DISTANCE {
            if let Some(item) = due(turn, 0, keys.len()) {
                self.table.begin(ring.at(item), &keys[item]);
            }
            if let Some(item) = due(turn, 1, keys.len()) {
                self.table.glance(ring.at(item));
            }
            if let Some(item) = due(turn, 2, keys.len())
                && let Some((index, _)) = self.find_sought(ring.at(item), &keys[item])
            {
                self.touch(index, now);
                refreshed += 1;
            }
        }
        refreshed
    }

    /// Removes sessions, found by their client-side keys; how many were there.
    #[inline]
    pub fn remove_batch(&mut self, client_keys: &[FlowKey]) -> u32 {
        let mut ring = Ring([(Sought::default(), Candidates::default(), None); RING]);
        let mut removed = 0;
        for turn in 0..client_keys.len() + 3 * DISTANCE {
            if let Some(item) = due(turn, 0, client_keys.len()) {
                self.table.begin(&mut ring.at(item).0, &client_keys[item]);
            }
            if let Some(item) = due(turn, 1, client_keys.len()) {
                self.table.glance(&mut ring.at(item).0);
            }
            if let Some(item) = due(turn, 2, client_keys.len()) {
                let (sought, server, index) = ring.at(item);
                *index = self
                    .find_sought(sought, &client_keys[item])
                    .filter(|(_, direction)| *direction == Direction::Inbound)
                    .map(|(index, _)| index);
                if let Some(found) = index.and_then(|index| self.server_candidates(index)) {
                    self.table.index.prefetch(&found);
                    *server = found;
                }
            }
            if let Some(item) = due(turn, 3, client_keys.len())
                && let (sought, server, Some(index)) = *ring.at(item)
                // An item before this one may have had the same key.
                && self.is_live(index)
            {
                self.remove_at(index, &[sought.candidates, server]);
                removed += 1;
            }
        }
        removed
    }

    #[inline(always)]
    fn find_sought(&self, sought: &Sought, key: &FlowKey) -> Option<(RecordIndex, Direction)> {
        match sought.glance {
            Glance::Absent => return None,
            Glance::Likely(number) => {
                if let Some(direction) =
                    self.table.resolve(number).and_then(|found| found.direction_of(&key.words()))
                {
                    return Some((RecordIndex(number), direction));
                }
            }
            Glance::Unknown => {}
        }
        self.find(key, &sought.candidates)
    }

    #[inline]
    fn server_candidates(&self, index: RecordIndex) -> Option<Candidates> {
        let [_, server] = record::keys(&self.table.slab.record(index.0)?.copy(), &self.table.addresses)?;
        Some(self.table.candidates(&server))
    }
}
