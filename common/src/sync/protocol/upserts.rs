//! Upserts in a row: what a datagram says of many sessions, most of which are news.
//!
//! Each is decoded a while before it is taken, and what it will need is brought near meanwhile. It is taken as the rules
//! say, by what the tables hold at its turn. Nearly always they hold nothing under either of its keys; then it is added in one
//! step, straight from the datagram's bytes and its dictionary. `news` decides about all others.

use super::digest::{hash_of, word_with};
use super::inbox::{Origin, Told};
use super::ledger::Entry;
use super::mutation::Mutation;
use super::news::Upsert;
use super::{HELD, KeyHash, Protocol, Tables, Turn};
use crate::session::Draft;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Brief, Upserts};
use crate::sync::{Reject, address, ageing};
use crate::time::Millis;

#[cfg(test)]
mod tests;

/// Upserts that are decoded one after the other, before as many others are taken.
const BLOCK: usize = 16;

/// An upsert that was decoded.
#[derive(Clone, Copy)]
struct Coming<'d> {
    brief: Result<Brief<'d>, Reject>,
    /// Of the client-side and of the server-side key.
    hashes: [KeyHash; 2],
    /// Of the client-side key, the same on all machines.
    key_hash: u64,
    /// What it adds to its owner's digest.
    word: u64,
}

impl Coming<'_> {
    const NONE: Coming<'static> = Coming {
        brief: Err(Reject::RecordSize),
        hashes: [KeyHash { hash: 0, workers: 0 }; 2],
        key_hash: 0,
        word: 0,
    };
}

impl Protocol<'_> {
    /// Takes upserts in a row, in their order.
    pub(super) fn take_upserts<U: Upserts, T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        upserts: &U,
        turn: &mut Turn<'_, T, X>,
        told: &mut Told,
    ) {
        let mut coming = [[Coming::NONE; BLOCK]; 2];
        let count = upserts.count();
        let mut waiting = 0;
        for (block, first) in (0..count + BLOCK).step_by(BLOCK).enumerate() {
            let [present, last] = match block % 2 {
                0 => [0, 1],
                _ => [1, 0],
            };
            let expected = count.saturating_sub(first).min(BLOCK);
            for (item, place) in coming[present][..expected].iter_mut().enumerate() {
                *place = self.expect(upserts.at(first + item), turn);
            }
            for coming in &coming[last][..waiting] {
                if self.add_new(origin, coming, turn) {
                    told.applied += 1;
                    told.upserts += 1;
                } else {
                    self.take_other(origin, coming, turn, told);
                }
            }
            waiting = expected;
        }
    }

    /// Has what an upsert will need brought near.
    #[inline(always)]
    fn expect<'d, T: Tables, X>(
        &self,
        brief: Result<Brief<'d>, Reject>,
        turn: &Turn<'_, T, X>,
    ) -> Coming<'d> {
        let Ok(news) = &brief else { return Coming { brief, ..Coming::NONE } };
        let keys = news.keys();
        let hashes = [turn.tables.hash(&keys[0]), turn.tables.hash(&keys[1])];
        turn.tables.prefetch(hashes[0]);
        turn.tables.prefetch(hashes[1]);
        turn.tables.prefetch_vacant(BLOCK);
        let key_hash = hash_of(&keys[0]);
        self.tombstones.prefetch(key_hash, turn.millis());
        Coming { brief, hashes, key_hash, word: word_with(key_hash, news.generation, &keys[0], &keys[1]) }
    }

    /// Adds a session if it is plain that it is news: it stands nowhere, has not ended, and what was decoded is believed. If not,
    /// nothing has changed.
    #[inline(always)]
    fn add_new<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        coming: &Coming<'_>,
        turn: &mut Turn<'_, T, X>,
    ) -> bool {
        let Ok(news) = &coming.brief else { return false };
        let is_believed = origin.stream != HELD && !origin.is_compared();
        if !is_believed || self.ended(coming.key_hash, turn.millis()).is_some() {
            return false;
        }
        if self.breaks(Mutation::NewsIsPassedOn) {
            return false;
        }
        let now = turn.millis();
        let peer = &self.peers[origin.peer];
        let draft = Draft {
            protocol: address::protocol_of(news.state),
            client: news.client(),
            vip: news.vip,
            local: news.local,
            local_port: news.local_port,
            server: news.server,
            owner: peer.node,
            generation: news.generation,
            state: news.state,
            last_seen: ageing::last_seen(news.state, news.remaining_ms, &self.config.timeouts, now),
            last_sent: Millis(0),
        };
        let Some(place) = turn.tables.insert_new(&draft, coming.hashes) else { return false };
        self.ledger.set(place, Entry { word: coming.word, owner: peer.slot, stamp: self.resync.clock() });
        #[cfg(test)]
        self.print(origin, &Body::Upsert(news.reported()), Ok(()));
        true
    }

    /// Takes an upsert that is not plainly news.
    #[inline(never)]
    fn take_other<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        coming: &Coming<'_>,
        turn: &mut Turn<'_, T, X>,
        told: &mut Told,
    ) {
        let outcome = coming.brief.and_then(|news| {
            let reported = news.reported();
            let outcome = if origin.is_compared() {
                self.take(origin, &Body::Upsert(reported), turn)
            } else {
                let upsert = Upsert { reported, hashes: coming.hashes, key_hash: coming.key_hash };
                self.take_upsert(origin, &upsert, turn, told)
            };
            #[cfg(test)]
            self.print(origin, &Body::Upsert(reported), outcome);
            outcome
        });
        self.note(outcome, told);
    }
}
