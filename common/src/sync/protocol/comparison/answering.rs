//! Answering a peer's comparison: digests of ranges, and single sessions. Its lists of sessions are served like any other range.

use super::{DIGESTS, Kind, SINGLES, kind_of, unmarked};
use crate::sync::Reject;
use crate::sync::protocol::inbox::Origin;
use crate::sync::protocol::{CONTROL, HELD, OwnerSlot, Protocol, Tables, Turn};
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, RangeBegin, RangeDigest, RangeId, RangeRequest, Sought, StreamId};
use crate::time::Millis;

/// Digests and sessions told in a millisecond; who gets no answer asks again.
const ANSWERS_PER_MS: u32 = 2048;

/// How much was answered.
#[derive(Default)]
pub(super) struct Allowance {
    at: Millis,
    used: u32,
}

impl Allowance {
    fn take(&mut self, now: Millis, count: u32) -> bool {
        if self.at != now {
            *self = Allowance { at: now, used: 0 };
        }
        let fits = self.used + count <= ANSWERS_PER_MS;
        self.used += if fits { count } else { 0 };
        fits
    }
}

/// The stream that a question of this stream is answered in: this node's own sessions in `RANGES`, the asker's in `HELD`.
fn answering(asked: StreamId) -> Result<StreamId, Reject> {
    match asked {
        CONTROL => Ok(StreamId::RANGES),
        HELD => Ok(HELD),
        _ => Err(Reject::RecordField),
    }
}

impl Protocol<'_> {
    /// A peer compares: it asks for ranges' digests, or for their sessions.
    pub(super) fn on_compare_request<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        request: &RangeRequest,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let stream = answering(origin.stream)?;
        if kind_of(request.first) != Some(Kind::Digests) {
            return self.on_request(origin, request);
        }
        let first = unmarked(request.first).0;
        let end = first.saturating_add(request.count).min(self.config.ranges);
        if !self.comparing.answers.take(turn.millis(), u32::from(end.saturating_sub(first))) {
            return Ok(());
        }
        let to = self.peers[origin.peer].addressee();
        let owner = if stream == HELD { to.slot } else { OwnerSlot::SELF };
        if stream == StreamId::RANGES {
            // What the digests count must not be on its way behind them, nor be lost unnoticed.
            if first == 0 {
                self.tell_total(turn);
            }
            self.courier.flush_changes(turn.out);
        }
        let begin = Body::RangeBegin(RangeBegin { range: request.first, nonce: request.nonce });
        self.courier.write(to, stream, &begin, turn.out);
        for range in first..end {
            let digest = self.ledger.digest(owner, RangeId(range));
            let body = Body::RangeDigest(RangeDigest {
                range: RangeId(range | DIGESTS),
                sessions: digest.sessions,
                digest: digest.sum,
            });
            if !self.courier.try_write(to, stream, &body, turn.out) {
                self.courier.post(turn.out);
                self.courier.write(to, stream, &begin, turn.out);
                self.courier.write(to, stream, &body, turn.out);
            }
        }
        // No other record may stand behind these: it would be taken for one of them.
        self.courier.post(turn.out);
        Ok(())
    }

    /// A peer compares: it asks for one session, that this node owns or holds of the peer's.
    pub(super) fn on_compare_query<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        sought: &Sought,
        nonce: u32,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let stream = answering(origin.stream)?;
        if !self.comparing.answers.take(turn.millis(), 1) {
            return Ok(());
        }
        let to = self.peers[origin.peer].addressee();
        let held = turn.tables.find(&sought.key).filter(|held| held.direction == sought.direction);
        let counts = held.filter(|held| match stream {
            HELD => held.session.owner == to.node,
            _ => self.is_reported(&held.session),
        });
        let body = match counts {
            Some(held) => Body::Upsert(self.reported(&held.session, turn.millis())),
            None => Body::NotMine(*sought),
        };
        let begin = Body::RangeBegin(RangeBegin { range: SINGLES, nonce });
        self.courier.write(to, stream, &begin, turn.out);
        if !self.courier.try_write(to, stream, &body, turn.out) {
            self.courier.post(turn.out);
            self.courier.write(to, stream, &begin, turn.out);
            self.courier.write(to, stream, &body, turn.out);
        }
        Ok(())
    }
}
