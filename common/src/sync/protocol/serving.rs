//! Serving: ranges that peers asked for, sent as a whole. The giving side.
//!
//! One pass over the ledger gathers the sessions of several ranges; then they are sent range by range. Whoever asks decides how
//! much it asks for; here the queue is bounded, and what does not fit is asked for again.

use super::inbox::Origin;
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

/// Sessions gathered in one pass; one range may have more.
const SESSIONS_MAX: u64 = 16_384;

/// Places looked at in one call.
const PLACES: u32 = 8192;

/// Sessions sent in one call.
const SESSIONS_PER_POLL: u32 = 512;

/// Digests told in one call.
const DIGESTS_PER_POLL: u16 = 256;

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

/// Where a pass stands.
#[derive(Clone, Copy, Debug, Default)]
enum Pass {
    /// Nothing is being served.
    #[default]
    Idle,
    /// Gathering, from this place on.
    Gathering(u32),
    /// Sending: which request, and which of what was gathered.
    Sending { request: usize, next: usize, sent: u32 },
}

/// What peers ask of this node.
#[derive(Default)]
pub(super) struct Serving {
    waiting: Vec<Request>,
    served: Vec<Request>,
    /// Which of `served`, and where.
    gathered: Vec<(u16, Place)>,
    pass: Pass,
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
        !matches!(self.serving.pass, Pass::Idle)
            || !self.serving.waiting.is_empty()
            || self.serving.details.is_some()
    }

    /// Goes on with what peers asked for.
    pub(super) fn poll_serving<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        self.tell_details(turn);
        match self.serving.pass {
            Pass::Idle if self.serving.waiting.is_empty() => {}
            Pass::Idle => {
                self.choose_requests();
                self.gather(0);
            }
            Pass::Gathering(next) => self.gather(next),
            Pass::Sending { .. } => {}
        }
        if let Pass::Sending { .. } = self.serving.pass {
            self.send_gathered(turn);
            self.courier.post(turn.out);
        }
    }

    /// Tells digests of ranges, in the change stream: there each is exact.
    fn tell_details<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let Some(first) = self.serving.details else { return };
        let now = turn.millis();
        if first == 0 {
            if now.since(self.serving.details_told) < u64::from(self.config.digest_ms) / 4 {
                return;
            }
            self.serving.details_told = now;
        }
        let end = first.saturating_add(DIGESTS_PER_POLL).min(self.config.ranges);
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

    /// Takes as many requests as one pass can serve.
    fn choose_requests(&mut self) {
        let serving = &mut self.serving;
        serving.served.clear();
        serving.gathered.clear();
        let mut sessions = 0;
        while let Some(request) = serving.waiting.first() {
            let owner = match request.stream {
                HELD => self.peers[request.peer].slot,
                _ => OwnerSlot::SELF,
            };
            sessions += u64::from(self.ledger.digest(owner, request.range).sessions);
            if sessions > SESSIONS_MAX && !serving.served.is_empty() {
                break;
            }
            let request = serving.waiting.remove(0);
            serving.served.push(request);
        }
    }

    fn gather(&mut self, first: u32) {
        let end = first.saturating_add(PLACES).min(self.ledger.places());
        for (place, entry) in self.ledger.scan(first, PLACES) {
            let range = self.ledger.range_of(entry.word);
            for (number, request) in self.serving.served.iter().enumerate() {
                let owner = match request.stream {
                    HELD => self.peers[request.peer].slot,
                    _ => OwnerSlot::SELF,
                };
                if request.range == range && owner == entry.owner {
                    self.serving.gathered.push((number as u16, place));
                }
            }
        }
        if end < self.ledger.places() {
            self.serving.pass = Pass::Gathering(end);
        } else {
            self.serving.gathered.sort_unstable();
            self.serving.pass = Pass::Sending { request: 0, next: 0, sent: 0 };
        }
    }

    fn send_gathered<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let Pass::Sending { mut request, mut next, mut sent } = self.serving.pass else { return };
        let mut budget = SESSIONS_PER_POLL;
        // Whether the datagram that is being written says which range it is about. What the last call wrote was posted.
        let mut begun = false;
        // What the digest at the end of a range counts must not be on its way behind it.
        self.courier.flush_changes(turn.out);
        while budget > 0 {
            let Some(&wanted) = self.serving.served.get(request) else {
                self.serving.pass = Pass::Idle;
                return;
            };
            budget -= 1;
            let place = self.serving.gathered.get(next).filter(|(of, _)| usize::from(*of) == request);
            if let Some(&(_, place)) = place {
                next += 1;
                let is_sent = self.send_one(&wanted, place, !begun, turn);
                begun |= is_sent;
                sent += u32::from(is_sent);
                continue;
            }
            self.send_end(&wanted, sent, turn);
            (request, sent, begun) = (request + 1, 0, false);
        }
        self.serving.pass = Pass::Sending { request, next, sent };
    }

    /// Sends one session of a range; whether it is still there.
    fn send_one<T: Tables, X: Transmit>(
        &mut self,
        wanted: &Request,
        place: Place,
        first: bool,
        turn: &mut Turn<'_, T, X>,
    ) -> bool {
        let Some(session) = turn.tables.session(place) else { return false };
        if self.ledger.entry(place).is_none_or(|entry| entry.word != word_of(&session)) {
            return false;
        }
        let to = self.peers[wanted.peer].addressee();
        let begin = Body::RangeBegin(RangeBegin { range: wanted.marked(), nonce: wanted.nonce });
        if first {
            self.courier.write(to, wanted.stream, &begin, turn.out);
        }
        let body = Body::Upsert(self.reported(&session, turn.millis()));
        if !self.courier.try_write(to, wanted.stream, &body, turn.out) {
            // Each datagram says for itself which range it is about.
            self.courier.post(turn.out);
            self.courier.write(to, wanted.stream, &begin, turn.out);
            self.courier.write(to, wanted.stream, &body, turn.out);
        }
        self.count(Counter::SyncTxUpserts);
        true
    }

    fn send_end<T: Tables, X: Transmit>(
        &mut self,
        wanted: &Request,
        sessions: u32,
        turn: &mut Turn<'_, T, X>,
    ) {
        let to = self.peers[wanted.peer].addressee();
        let end = Body::RangeEnd(RangeEnd { range: wanted.marked(), nonce: wanted.nonce, sessions });
        self.courier.write(to, wanted.stream, &end, turn.out);
        if wanted.stream == StreamId::RANGES && wanted.mark == 0 {
            let Digest { sessions, sum } = self.ledger.digest(OwnerSlot::SELF, wanted.range);
            let digest = RangeDigest { range: wanted.range, sessions, digest: sum };
            self.courier.write(to, wanted.stream, &Body::RangeDigest(digest), turn.out);
        }
    }
}
