//! Resync: digests compared, and ranges that differ asked for as a whole. The asking side.
//!
//! A peer tells the digest of all that it owns every few seconds, as part of its change stream. Whoever has received everything
//! up to there and nothing beyond compares it with what it holds of that peer: then a difference is real, whatever is
//! on its way. Who differs asks for the digests of all ranges, and of ranges that differ twice in a row (at once, as long as
//! the node is not ready) for their sessions.
//!
//! A range is complete when what its owner has confirmed since it was asked for has the digest that the owner says: however
//! many datagrams of how many attempts it took. Only then does what was not confirmed go.

use super::inbox::Origin;
use super::ledger::is_since;
use super::mutation::Mutation;
use super::readiness::ReadyState;
use super::{CONTROL, OwnerSlot, Place, Protocol, Tables, Turn};
use crate::counter::Counter;
use crate::sync::Reject;
use crate::sync::protocol::digest::Digest;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, RangeDigest, RangeEnd, RangeId, RangeRequest, StreamId};
use crate::time::Millis;

/// The range that means all ranges together.
pub(super) const TOTAL: RangeId = RangeId(u16::MAX);

/// Asking for a range from here on asks for its digest.
pub(super) const DETAILS: u16 = 1 << 15;

/// Ranges asked for at a time, over all peers.
const PULLS_MAX: usize = 32;

/// Sessions asked for at a time, over all peers: what comes in one go fits the receive queue.
const SESSIONS_MAX: u64 = 24_576;

/// How long to wait for a range before asking again, milliseconds; longer with each attempt.
const RETRY_MS: u64 = 100;

/// Attempts at a range before it is left to the next comparison.
const TRIES_MAX: u32 = 12;

/// Places looked at in one call for what is to go.
const PURGE_PLACES: u32 = 4096;

/// Ranges to purge that there is room for.
const PURGES_MAX: usize = 256;

/// A range that was asked for.
#[derive(Clone, Copy, Debug)]
struct Pull {
    peer: usize,
    range: RangeId,
    nonce: u32,
    since: u16,
    retry_at: Millis,
    tries: u32,
    /// Sessions that are expected.
    sessions: u64,
}

/// What of an owner's range was not confirmed since goes.
#[derive(Clone, Copy, Debug)]
struct Purge {
    peer: usize,
    owner: OwnerSlot,
    range: RangeId,
    since: u16,
}

/// What this node asks of others.
#[derive(Default)]
pub(super) struct Resync {
    /// Counts the times that a range was asked for: sessions are stamped with it.
    clock: u16,
    nonce: u32,
    pulls: Vec<Pull>,
    /// Those of the pass under way, then those that wait for the next.
    purging: Vec<Purge>,
    to_purge: Vec<Purge>,
    next_place: u32,
}

impl Resync {
    /// The stamp of what is confirmed now.
    pub(super) fn clock(&self) -> u16 {
        self.clock
    }

    /// Ranges that were asked for of a peer and have not come.
    pub(super) fn asked_of(&self, peer: usize) -> usize {
        self.pulls.iter().filter(|pull| pull.peer == peer).count()
    }

    pub(super) fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }
}

impl Protocol<'_> {
    /// A peer says what it owns, in all or in a range.
    pub(super) fn on_digest<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        digest: &RangeDigest,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if self.breaks(Mutation::NoDigests) {
            return Ok(());
        }
        let theirs = Digest { sessions: digest.sessions, sum: digest.digest };
        match (origin.stream, digest.range) {
            (StreamId::RANGES, range) => self.on_range_sent(origin, range, theirs),
            (StreamId::CHANGES, TOTAL) => self.on_total(origin, theirs, turn),
            (StreamId::CHANGES, range) if range.0 < self.config.ranges => {
                self.on_detail(origin, range, theirs)
            }
            _ => return Err(Reject::RecordField),
        }
        Ok(())
    }

    fn on_total<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        theirs: Digest,
        turn: &mut Turn<'_, T, X>,
    ) {
        let (now, digest_ms) = (turn.millis(), self.config.digest_ms);
        let peer = &mut self.peers[origin.peer];
        peer.announced = Some(theirs);
        if !origin.exact || !peer.state.has_its_own() {
            return;
        }
        peer.equal = self.ledger.total(peer.slot) == theirs;
        if peer.equal {
            peer.was_equal = true;
            peer.suspect.clear();
            peer.wanted.clear();
            return;
        }
        let asked_lately =
            peer.details_asked.is_some_and(|asked| now.since(asked) < u64::from(digest_ms) / 2);
        if peer.wanted.len() > 0 || asked_lately {
            return;
        }
        peer.details_asked = Some(now);
        let to = peer.addressee();
        let nonce = self.resync.next_nonce();
        let request = RangeRequest { first: RangeId(DETAILS), count: self.config.ranges, nonce };
        self.courier.write(to, CONTROL, &Body::RangeRequest(request), turn.out);
    }

    fn on_detail(&mut self, origin: &Origin, range: RangeId, theirs: Digest) {
        let ready = self.readiness.state() == ReadyState::Ready;
        let peer = &mut self.peers[origin.peer];
        // With nothing to lose by it, a range is asked for though the difference may only be on its way.
        if !peer.state.has_its_own()
            || !origin.exact && (ready || self.ledger.digest(peer.slot, range) == theirs)
        {
            return;
        }
        if self.ledger.digest(peer.slot, range) == theirs {
            peer.suspect.remove(range);
            peer.wanted.remove(range);
        } else if !peer.suspect.insert(range) || !ready {
            // A second time, or there is nothing to wait for.
            peer.wanted.insert(range);
        }
    }

    /// A range has come to its end: the digest of all that its owner has there.
    fn on_range_sent(&mut self, origin: &Origin, range: RangeId, theirs: Digest) {
        let Some(at) =
            self.resync.pulls.iter().position(|pull| (pull.peer, pull.range) == (origin.peer, range))
        else {
            return;
        };
        let Pull { since, .. } = self.resync.pulls[at];
        let owner = self.peers[origin.peer].slot;
        let confirmed = self.ledger.confirmed(owner, range).unwrap_or_default();
        if confirmed != theirs && !self.breaks(Mutation::IncompleteRangesPurge) {
            return;
        }
        if self.ledger.digest(owner, range) != confirmed
            && self.resync.to_purge.len() < PURGES_MAX
            && !self.breaks(Mutation::NothingIsPurged)
        {
            self.resync.to_purge.push(Purge { peer: origin.peer, owner, range, since });
        }
        self.count(Counter::RangesRepaired);
        self.peers[origin.peer].repaired += 1;
        self.end_pull(at);
    }

    fn end_pull(&mut self, at: usize) {
        let Pull { peer, range, .. } = self.resync.pulls.swap_remove(at);
        self.ledger.end_confirming(self.peers[peer].slot, range);
        self.peers[peer].wanted.remove(range);
        self.peers[peer].suspect.remove(range);
    }

    /// The end of a range, by count: of sessions given back it is the only word there is.
    pub(super) fn on_end<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        end: &RangeEnd,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        origin.range = None;
        if origin.stream == super::HELD {
            self.on_end_given_back(origin.peer, end, turn);
        }
        Ok(())
    }

    /// Whether a pass is under way, or is to begin.
    pub(super) fn is_purging(&self) -> bool {
        !self.resync.purging.is_empty() || !self.resync.to_purge.is_empty()
    }

    /// Asks for ranges, asks again, and drops what complete ranges did not have.
    pub(super) fn poll_resync<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        self.ask_again(turn);
        self.ask_for_more(turn);
        self.purge(turn);
    }

    fn ask_again<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        let mut at = 0;
        while at < self.resync.pulls.len() {
            let Pull { peer, range, nonce, retry_at, tries, .. } = self.resync.pulls[at];
            if now >= retry_at && tries >= TRIES_MAX {
                self.count(Counter::RangesGivenUp);
                self.end_pull(at);
                continue;
            }
            if now >= retry_at {
                let pull = &mut self.resync.pulls[at];
                pull.tries += 1;
                pull.retry_at = now + RETRY_MS * u64::from(pull.tries);
                self.request(peer, range, nonce, turn);
            }
            at += 1;
        }
    }

    fn ask_for_more<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let mut expected: u64 = self.resync.pulls.iter().map(|pull| pull.sessions).sum();
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            if peer.wanted.len() == 0 || !self.is_member(peer.node) {
                continue;
            }
            let announced = peer.announced.map_or(0, |digest| u64::from(digest.sessions));
            let sessions = 1 + announced / u64::from(self.config.ranges);
            let pulls = &self.resync.pulls;
            let room = PULLS_MAX.saturating_sub(pulls.len());
            let next: Vec<RangeId> = peer
                .wanted
                .iter()
                .filter(|range| !pulls.iter().any(|pull| (pull.peer, pull.range) == (at, *range)))
                .take(room)
                .take_while(|_| {
                    let fits = expected == 0 || expected + sessions <= SESSIONS_MAX;
                    expected += if fits { sessions } else { 0 };
                    fits
                })
                .collect();
            for range in next {
                self.begin_pull(at, range, sessions, turn);
            }
        }
    }

    fn begin_pull<T: Tables, X: Transmit>(
        &mut self,
        peer: usize,
        range: RangeId,
        sessions: u64,
        turn: &mut Turn<'_, T, X>,
    ) {
        self.resync.clock = self.resync.clock.wrapping_add(1);
        let since = self.resync.clock;
        let nonce = self.resync.next_nonce();
        let retry_at = turn.millis() + RETRY_MS;
        self.ledger.begin_confirming(self.peers[peer].slot, range, since);
        self.resync.pulls.push(Pull { peer, range, nonce, since, retry_at, tries: 1, sessions });
        self.request(peer, range, nonce, turn);
    }

    fn request<T: Tables, X: Transmit>(
        &mut self,
        peer: usize,
        range: RangeId,
        nonce: u32,
        turn: &mut Turn<'_, T, X>,
    ) {
        self.count(Counter::RangesRequested);
        let request = Body::RangeRequest(RangeRequest { first: range, count: 1, nonce });
        self.courier.write(self.peers[peer].addressee(), CONTROL, &request, turn.out);
    }

    /// Goes on with the pass that takes out what complete ranges did not have.
    fn purge<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        if self.resync.purging.is_empty() {
            if self.resync.to_purge.is_empty() {
                return;
            }
            self.resync.purging = std::mem::take(&mut self.resync.to_purge);
            self.resync.next_place = 0;
        }
        let first = self.resync.next_place;
        let end = first.saturating_add(PURGE_PLACES).min(self.ledger.places());
        for place in (first..end).map(Place) {
            let Some(entry) = self.ledger.entry(place) else { continue };
            let range = self.ledger.range_of(entry.word);
            let to_go = self.resync.purging.iter().find(|purge| {
                purge.owner == entry.owner && purge.range == range && !is_since(entry.stamp, purge.since)
            });
            let Some(&Purge { peer, .. }) = to_go else { continue };
            let owner = self.peers[peer].node;
            // A worker may have claimed it meanwhile.
            if turn.tables.session(place).is_some_and(|session| session.owner == owner) {
                self.count(Counter::SessionsPurged);
                self.give_up(place, turn);
            }
        }
        self.resync.next_place = end;
        if end == self.ledger.places() {
            self.resync.purging.clear();
        }
    }
}
