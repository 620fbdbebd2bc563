//! Serving: ranges that peers asked for, sent as a whole. The giving side.
//!
//! One pass over the ledger makes a register of all ranges (`register`); from then on each is sent as it is asked for. Whoever
//! asks decides how much it asks for; here the queue is bounded, and what does not fit is asked for again.

use super::courier::Addressee;
use super::inbox::Origin;
use super::register::Cursor;
use super::resync::{DETAILS, TOTAL};
use super::{CONTROL, HELD, OwnerSlot, Place, Protocol, Tables, Turn, comparison};
use crate::counter::Counter;
use crate::sync::Reject;
use crate::sync::protocol::digest::{Digest, word_of};
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Nack, RangeBegin, RangeDigest, RangeEnd, RangeId, RangeRequest, StreamId};
use crate::time::Millis;

/// Requests that wait.
const REQUESTS_MAX: usize = 128;

/// Places entered into the register in one call.
const PLACES: u32 = 8192;

/// Sessions sent in one call.
const SESSIONS_PER_POLL: u32 = 512;

/// Sessions between the one that is sent and the one whose record is brought near; its place is, twice as far ahead.
const DISTANCE: u32 = 12;

/// How long the register is kept when nobody asks for anything, milliseconds.
const REGISTER_KEPT_MS: u64 = 10_000;

/// Digests told in one go, about a datagram, and how long to wait before the next. Milliseconds. Whoever misses one of these
/// datagrams has it again before many more have come: what comes before that tells it nothing.
const DIGESTS_AT_ONCE: u16 = 96;
const DIGESTS_APART_MS: u64 = 2;

/// Datagrams of the change stream sent again for one NACK.
const AGAIN_MAX: u64 = 64;

/// A range to send.
#[derive(Clone, Copy, Debug)]
struct Request {
    peer: usize,
    /// `RANGES` for this node's own sessions, `HELD` for the peer's.
    stream: StreamId,
    range: RangeId,
    /// The mark of a comparison's request, to be repeated.
    mark: u16,
    nonce: u32,
}

impl Request {
    fn marked(&self) -> RangeId {
        RangeId(self.range.0 | self.mark)
    }
}

/// A range that is being sent.
#[derive(Clone, Copy, Debug)]
struct Sending {
    request: Request,
    owner: OwnerSlot,
    to: Addressee,
    cursor: Cursor,
    sent: u32,
}

/// What peers ask of this node.
#[derive(Default)]
pub(super) struct Serving {
    waiting: Vec<Request>,
    sending: Option<Sending>,
    /// When something was sent last.
    served: Millis,
    /// Range digests to tell from this range on; none if `None`.
    details: Option<u16>,
    details_told: Millis,
}

impl Serving {
    /// Ranges that a peer has asked for and that wait.
    pub(super) fn waiting_for(&self, peer: usize) -> usize {
        self.waiting.iter().filter(|request| request.peer == peer).count()
    }
}

impl Protocol<'_> {
    /// A peer asks for ranges, or for their digests.
    pub(super) fn on_request(&mut self, origin: &Origin, request: &RangeRequest) -> Result<(), Reject> {
        if request.first.0 >= DETAILS {
            self.serving.details = self.serving.details.or(Some(0));
            return Ok(());
        }
        let stream = match origin.stream {
            CONTROL => StreamId::RANGES,
            HELD => HELD,
            _ => return Err(Reject::RecordField),
        };
        let mark = request.first.0 & comparison::SESSIONS;
        let ranges = request.ranges().map(comparison::unmarked);
        for range in ranges.take_while(|range| range.0 < self.config.ranges) {
            let wanted = Request { peer: origin.peer, stream, range, mark, nonce: request.nonce };
            let same = |other: &Request| {
                (other.peer, other.stream, other.marked()) == (wanted.peer, wanted.stream, wanted.marked())
            };
            if let Some(waiting) = self.serving.waiting.iter_mut().find(|other| same(other)) {
                waiting.nonce = request.nonce;
            } else if self.serving.waiting.len() < REQUESTS_MAX {
                self.serving.waiting.push(wanted);
            } else {
                self.count(Counter::RequestsRefused);
            }
        }
        Ok(())
    }

    /// A peer lacks datagrams of the change stream.
    pub(super) fn on_nack<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        nack: &Nack,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if nack.stream != StreamId::CHANGES {
            return Err(Reject::RecordField);
        }
        let to = self.peers[origin.peer].address;
        for sequence in nack.first..nack.first.saturating_add(u64::from(nack.count).min(AGAIN_MAX)) {
            let sent = self.courier.send_again(to, sequence, turn.out);
            self.count(if sent { Counter::SyncTxAgain } else { Counter::SyncTxForgotten });
        }
        Ok(())
    }

    /// Whether a pass is under way, or is to begin.
    pub(super) fn is_serving(&self) -> bool {
        self.serving.sending.is_some() || !self.serving.waiting.is_empty()
    }

    /// Goes on with what peers asked for.
    pub(super) fn poll_serving<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        self.tell_details(turn);
        let now = turn.millis();
        if self.serving.sending.is_none() && self.serving.waiting.is_empty() {
            if now.since(self.serving.served) > REGISTER_KEPT_MS && !self.ledger.register().is_closed() {
                self.ledger.close_register();
            }
            return;
        }
        self.serving.served = now;
        if !self.ledger.register().is_whole() {
            self.ledger.fill_register(PLACES);
            return;
        }
        self.send_ranges(turn);
        self.courier.post(turn.out);
    }

    /// Tells digests of ranges, in the change stream: there each is exact.
    fn tell_details<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let Some(first) = self.serving.details else { return };
        let now = turn.millis();
        let pause = if first == 0 { u64::from(self.config.digest_ms) / 4 } else { DIGESTS_APART_MS };
        if now.since(self.serving.details_told) < pause {
            return;
        }
        self.serving.details_told = now;
        let end = first.saturating_add(DIGESTS_AT_ONCE).min(self.config.ranges);
        for range in (first..end).map(RangeId) {
            let digest = self.ledger.digest(OwnerSlot::SELF, range);
            self.tell_digest(range, digest, turn);
        }
        self.serving.details = (end < self.config.ranges).then_some(end);
    }

    fn tell_digest<T: Tables, X: Transmit>(
        &mut self,
        range: RangeId,
        digest: Digest,
        turn: &mut Turn<'_, T, X>,
    ) {
        let body = Body::RangeDigest(RangeDigest { range, sessions: digest.sessions, digest: digest.sum });
        self.courier.tell(&body, turn.now, turn.out);
    }

    /// Tells the digest of everything that this node owns.
    pub(super) fn tell_total<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let total = self.ledger.total(OwnerSlot::SELF);
        self.tell_digest(TOTAL, total, turn);
    }

    fn send_ranges<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let mut budget = SESSIONS_PER_POLL;
        // Whether the datagram that is being written says which range it is about. What the last call wrote was posted.
        let mut begun = false;
        // What the digest at the end of a range counts must not be on its way behind it.
        self.courier.flush_changes(turn.out);
        while budget > 0 {
            let Some(mut sending) = self.serving.sending.take().or_else(|| self.next_request()) else {
                return;
            };
            let Request { range, .. } = sending.request;
            let is_through = loop {
                if budget == 0 {
                    break false;
                }
                budget -= 1;
                let next = self.ledger.register().next(sending.owner, range, sending.cursor);
                let Some((place, behind)) = next else { break true };
                self.look_ahead(&sending, turn);
                sending.cursor = behind;
                let is_sent = self.send_one(&sending, place, !begun, turn);
                begun |= is_sent;
                sending.sent += u32::from(is_sent);
            };
            if is_through {
                self.send_end(&sending, turn);
                begun = false;
            } else {
                self.serving.sending = Some(sending);
            }
        }
    }

    /// The next range to send.
    fn next_request(&mut self) -> Option<Sending> {
        let serving = &mut self.serving;
        if serving.waiting.is_empty() {
            return None;
        }
        let request = serving.waiting.remove(0);
        let to = self.peers[request.peer].addressee();
        let owner = if request.stream == HELD { to.slot } else { OwnerSlot::SELF };
        Some(Sending { request, owner, to, cursor: Cursor::Sorted(0), sent: 0 })
    }

    /// Has what the next sessions need brought near.
    #[inline]
    fn look_ahead<T: Tables, X: Transmit>(&self, sending: &Sending, turn: &Turn<'_, T, X>) {
        let Sending { owner, request: Request { range, .. }, cursor, .. } = *sending;
        if let Some(place) = self.ledger.register().ahead(owner, range, cursor, DISTANCE) {
            turn.tables.prefetch_place(place);
            self.ledger.prefetch(place);
        }
    }

    /// Sends one session of a range; whether it is still there.
    #[inline(always)]
    fn send_one<T: Tables, X: Transmit>(
        &mut self,
        sending: &Sending,
        place: Place,
        first: bool,
        turn: &mut Turn<'_, T, X>,
    ) -> bool {
        let Sending { request, owner, to, .. } = *sending;
        let Request { stream, range, nonce, .. } = request;
        let Some(entry) = self.ledger.entry(place) else { return false };
        if entry.owner != owner || self.ledger.range_of(entry.word) != range {
            return false;
        }
        let Some(session) = turn.tables.session(place) else { return false };
        if entry.word != word_of(&session) {
            return false;
        }
        let begin = Body::RangeBegin(RangeBegin { range: request.marked(), nonce });
        if first {
            self.courier.write(to, stream, &begin, turn.out);
        }
        let reported = self.reported(&session, turn.millis());
        if !self.courier.try_write_upsert(to, stream, &reported, turn.out) {
            // Each datagram says for itself which range it is about.
            self.courier.post(turn.out);
            self.courier.write(to, stream, &begin, turn.out);
            self.courier.write(to, stream, &Body::Upsert(reported), turn.out);
        }
        self.count(Counter::SyncTxUpserts);
        true
    }

    fn send_end<T: Tables, X: Transmit>(&mut self, sending: &Sending, turn: &mut Turn<'_, T, X>) {
        let Sending { request, to, sent, .. } = *sending;
        let Request { stream, range, nonce, .. } = request;
        let end = RangeEnd { range: request.marked(), nonce, sessions: sent };
        self.courier.write(to, stream, &Body::RangeEnd(end), turn.out);
        if stream == StreamId::RANGES && request.mark == 0 {
            let Digest { sessions, sum } = self.ledger.digest(OwnerSlot::SELF, range);
            let digest = RangeDigest { range, sessions, digest: sum };
            self.courier.write(to, stream, &Body::RangeDigest(digest), turn.out);
        }
    }
}
