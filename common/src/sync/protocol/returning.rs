//! Returning: a node that has lost everything asks each peer for what it held of the node's own sessions.
//!
//! Until it has them, what it does not own means nothing: its peers drop nothing of its sessions. It says so by
//! the stream that it says hello on.

use super::inbox::Origin;
use super::mutation::Mutation;
use super::{CONTROL, HELD, Protocol, Tables, Turn};
use crate::session::Session;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Hello, RangeEnd, RangeId, RangeRequest, VERSION};
use crate::time::Millis;

use super::{Held, OwnerSlot};

/// Most ranges asked for at a time.
const SPAN_MAX: u16 = 64;

/// Sessions asked for at a time, of one peer: what comes in one go fits the receive queue.
const SESSIONS_MAX: u32 = 8192;

/// How long to wait for them before asking again, milliseconds.
const RETRY_MS: u64 = 150;

/// Ranges that were asked for of one peer.
#[derive(Clone, Debug)]
struct Span {
    peer: usize,
    first: u16,
    count: u16,
    nonce: u32,
    retry_at: Millis,
    /// What came of each range.
    got: [Got; SPAN_MAX as usize],
}

/// What came of a range.
#[derive(Clone, Copy, Debug, Default)]
struct Got {
    sessions: u32,
    /// How many there are to come, once that is known.
    all: Option<u32>,
}

impl Got {
    fn is_whole(self) -> bool {
        self.all.is_some_and(|all| self.sessions >= all)
    }
}

impl Span {
    fn got(&self) -> &[Got] {
        &self.got[..usize::from(self.count)]
    }

    /// Forgets what came of ranges that are not whole, and names them: first and count of each run.
    fn missing(&mut self) -> Vec<(u16, u16)> {
        let mut runs: Vec<(u16, u16)> = Vec::new();
        for (range, got) in (self.first..).zip(&mut self.got[..usize::from(self.count)]) {
            if got.is_whole() {
                continue;
            }
            *got = Got::default();
            match runs.last_mut().filter(|(first, count)| first + count == range) {
                Some((_, count)) => *count += 1,
                None => runs.push((range, 1)),
            }
        }
        runs
    }
}

/// What this node asks back.
#[derive(Default)]
pub(super) struct Returning {
    spans: Vec<Span>,
}

impl Protocol<'_> {
    /// A session of a range came back.
    pub(super) fn on_given_back(&mut self, origin: &Origin) {
        let Some((range, nonce)) = origin.range else { return };
        if let Some(got) = self.returning.got_mut(origin.peer, range, nonce) {
            got.sessions += 1;
        }
    }

    /// All sessions of a range were sent.
    pub(super) fn on_end_given_back<T: Tables, X: Transmit>(
        &mut self,
        peer: usize,
        end: &RangeEnd,
        turn: &mut Turn<'_, T, X>,
    ) {
        if let Some(got) = self.returning.got_mut(peer, end.range, end.nonce) {
            got.all = Some(end.sessions);
        }
        let complete = |span: &Span| span.got().iter().all(|got| got.is_whole());
        let Some(at) = self.returning.spans.iter().position(|span| span.peer == peer && complete(span))
        else {
            return;
        };
        let span = self.returning.spans.swap_remove(at);
        self.peers[peer].next_returned = span.first + span.count;
        self.ask_back(peer, turn);
    }

    /// Asks peers for what they hold of this node's sessions, and asks again.
    pub(super) fn poll_returning<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        for peer in 0..self.peers.len() {
            if self.peers[peer].state.gave_back() || !self.is_member(self.peers[peer].node) {
                continue;
            }
            match self.returning.spans.iter().position(|span| span.peer == peer) {
                None => self.ask_back(peer, turn),
                Some(at) if now >= self.returning.spans[at].retry_at => {
                    self.ask_again_for_span(at, turn);
                }
                Some(_) => {}
            }
        }
    }

    fn ask_back<T: Tables, X: Transmit>(&mut self, peer: usize, turn: &mut Turn<'_, T, X>) {
        let first = self.peers[peer].next_returned;
        if first >= self.config.ranges || self.breaks(Mutation::NothingIsGivenBack) {
            self.peers[peer].state.set_gave_back();
            self.say_hello(peer, false, turn);
            self.housekeeping.tell_total_soon(turn.millis());
            return;
        }
        let held = self.peers[peer].hello.map_or(0, |hello| hello.sessions_held);
        let in_a_range = held / u32::from(self.config.ranges) + 1;
        let count = (SESSIONS_MAX / in_a_range).clamp(1, SPAN_MAX.into()) as u16;
        let count = count.min(self.config.ranges - first);
        let got = [Got::default(); SPAN_MAX as usize];
        self.returning.spans.push(Span { peer, first, count, nonce: 0, retry_at: Millis(0), got });
        self.ask_again_for_span(self.returning.spans.len() - 1, turn);
    }

    /// Asks for the ranges of a span that have not come as a whole.
    fn ask_again_for_span<T: Tables, X: Transmit>(&mut self, at: usize, turn: &mut Turn<'_, T, X>) {
        let nonce = self.resync.next_nonce();
        let span = &mut self.returning.spans[at];
        (span.nonce, span.retry_at) = (nonce, turn.millis() + RETRY_MS);
        let to = self.peers[span.peer].addressee();
        for (first, count) in span.missing() {
            let request = Body::RangeRequest(RangeRequest { first: RangeId(first), count, nonce });
            self.courier.write(to, HELD, &request, turn.out);
        }
    }

    /// Says how this node is.
    pub(super) fn say_hello<T: Tables, X: Transmit>(
        &mut self,
        peer: usize,
        wants_answer: bool,
        turn: &mut Turn<'_, T, X>,
    ) {
        let owned = self.ledger.total(OwnerSlot::SELF).sessions;
        let held = self.peers.iter().map(|peer| self.ledger.total(peer.slot).sessions).sum();
        let hello = Hello {
            wants_answer,
            version: VERSION,
            state: self.ready_state().on_the_wire(),
            datagram_bytes_max: self.config.datagram_bytes_max.min(usize::from(u16::MAX)) as u16,
            config_digest: self.config.config_digest,
            sessions_owned: owned,
            sessions_held: held,
        };
        let stream = if self.peers[peer].state.gave_back() { HELD } else { CONTROL };
        self.courier.write(self.peers[peer].addressee(), stream, &Body::Hello(hello), turn.out);
    }

    /// Gives a session back that a peer asked for and is its own.
    pub(super) fn give_back<T: Tables, X: Transmit>(
        &mut self,
        peer: usize,
        held: &Held,
        turn: &mut Turn<'_, T, X>,
    ) {
        let session: &Session = &held.session;
        let body = Body::Upsert(self.reported(session, turn.millis()));
        self.courier.write(self.peers[peer].addressee(), HELD, &body, turn.out);
    }
}

impl Returning {
    fn got_mut(&mut self, peer: usize, range: RangeId, nonce: u32) -> Option<&mut Got> {
        let span = self.spans.iter_mut().find(|span| span.peer == peer && span.nonce == nonce)?;
        let at = range.0.checked_sub(span.first)?;
        if at < span.count { span.got.get_mut(usize::from(at)) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use crate::sync::protocol::Tables;
    use crate::sync::protocol::net::{Net, durables};
    use crate::sync::protocol::readiness::ReadyState;

    #[test]
    fn a_node_gets_ranges_of_thousands_of_sessions_back() {
        let durables = durables(2);
        let mut net = Net::new(&durables, 2, None);
        let sessions: Vec<_> = (0..3000)
            .map(|number: u32| {
                if number.is_multiple_of(100) {
                    net.run(1);
                }
                net.open(0)
            })
            .collect();
        net.run(100);

        net.reboot(0);
        net.run(5000);

        let back = |session: &crate::session::Session| {
            net.held(0, session).is_some_and(|held| held.session.owner == session.owner)
        };
        assert!(sessions.iter().all(back));
        assert_eq!(net.hosts[0].protocol.readiness().state(), ReadyState::Ready);
        assert_eq!(net.hosts[0].tables.iter().count(), net.hosts[1].tables.iter().count());
        assert!(net.hosts[1].tables.find(&sessions[0].client_key()).is_some());
    }
}
