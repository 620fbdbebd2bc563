//! Batches: many operations at once, with what each will need brought near while others are under way.
//!
//! A batch runs as a ring: each turn takes one item one step further at each stage, so that a cache line is asked for a few
//! turns before it is needed, and never many at a time. Each item's last step is the single operation itself, one item
//! after the other: the prefetching steps only look, and may be wrong.

use super::writer::InsertError;
use super::{Lookup, SessionTable, TableWriter};
use crate::flow::{FlowHash, FlowKey};
use crate::id::RecordIndex;
use crate::session::{Direction, Session, record};
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

impl SessionTable {
    /// Finds the sessions that packets with `keys` belong to: calls `found` with each key's position and result, in their
    /// order.
    #[inline]
    pub fn lookup_batch(&self, keys: &[FlowKey], mut found: impl FnMut(usize, Lookup)) {
        let mut ring = Ring([FlowHash(0); RING]);
        for turn in 0..keys.len() + 2 * DISTANCE {
            if let Some(item) = due(turn, 0, keys.len()) {
                let hash = self.hash(&keys[item]);
                self.prefetch(hash);
                *ring.at(item) = hash;
            }
            if let Some(item) = due(turn, 1, keys.len()) {
                self.prefetch_record(&self.index.candidates(ring.at(item).0));
            }
            if let Some(item) = due(turn, 2, keys.len()) {
                found(item, self.lookup_hashed(*ring.at(item), &keys[item]));
            }
        }
    }

    #[inline]
    fn prefetch_record(&self, candidates: &Candidates) {
        if let Some(record) = self.index.likely_record(candidates) {
            self.slab.prefetch(record);
        }
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
        let mut ring = Ring([Candidates::default(); RING]);
        let mut refreshed = 0;
        for turn in 0..keys.len() + 2 * DISTANCE {
            if let Some(item) = due(turn, 0, keys.len()) {
                *ring.at(item) = self.table.candidates(&keys[item]);
                self.table.index.prefetch(ring.at(item));
            }
            if let Some(item) = due(turn, 1, keys.len()) {
                self.table.prefetch_record(ring.at(item));
            }
            if let Some(item) = due(turn, 2, keys.len())
                && let Some((index, _)) = self.find(&keys[item], ring.at(item))
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
        let mut ring = Ring([([Candidates::default(); 2], None); RING]);
        let mut removed = 0;
        for turn in 0..client_keys.len() + 3 * DISTANCE {
            if let Some(item) = due(turn, 0, client_keys.len()) {
                let client = self.table.candidates(&client_keys[item]);
                self.table.index.prefetch(&client);
                *ring.at(item) = ([client, Candidates::default()], None);
            }
            if let Some(item) = due(turn, 1, client_keys.len()) {
                self.table.prefetch_record(&ring.at(item).0[0]);
            }
            if let Some(item) = due(turn, 2, client_keys.len()) {
                let (candidates, index) = ring.at(item);
                *index = self.find_inbound(&client_keys[item], &candidates[0]);
                if let Some(server) = index.and_then(|index| self.server_candidates(index)) {
                    self.table.index.prefetch(&server);
                    candidates[1] = server;
                }
            }
            if let Some(item) = due(turn, 3, client_keys.len())
                && let (candidates, Some(index)) = *ring.at(item)
                // An item before this one may have had the same key.
                && self.is_live(index)
            {
                self.remove_at(index, &candidates);
                removed += 1;
            }
        }
        removed
    }

    #[inline]
    fn find_inbound(&self, client_key: &FlowKey, candidates: &Candidates) -> Option<RecordIndex> {
        self.find(client_key, candidates)
            .filter(|(_, direction)| *direction == Direction::Inbound)
            .map(|(index, _)| index)
    }

    #[inline]
    fn server_candidates(&self, index: RecordIndex) -> Option<Candidates> {
        let [_, server] = record::keys(&self.table.slab.record(index.0)?.copy(), &self.table.addresses)?;
        Some(self.table.candidates(&server))
    }
}
