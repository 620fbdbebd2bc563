//! Housekeeping: what is done by the clock. Sweeps, heartbeats, and asking for what is missing.

use super::digest::word_of;
use super::mutation::Mutation;
use super::peer::Gap;
use super::{CONTROL, OwnerSlot, Place, Protocol, Tables, Turn};
use crate::counter::Counter;
use crate::id::NodeId;
use crate::session::tcp::{is_closed, timeout_ms};
use crate::sync::ageing;
use crate::sync::event::EventKind;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Nack, StreamId};
use crate::time::Millis;

/// How long a pass over the remote table takes, milliseconds.
const SWEEP_MS: u64 = 4000;

/// Most slots looked at in one call.
const SWEEP_SLOTS_MAX: u64 = 8192;

/// How often a peer is told how this node is, milliseconds.
const HELLO_MS: u64 = 1000;

/// How often, at most, the digest of everything is told because somebody waits for it, milliseconds.
const TOTAL_SOON_MS: u64 = 100;

/// How long a skipped number may be late before it is asked for, milliseconds.
const GAP_PATIENCE_MS: u64 = 2;

/// How long to wait for it before asking again, milliseconds.
const GAP_RETRY_MS: u64 = 40;

/// Times to ask for the same numbers.
const GAP_TRIES: u32 = 8;

/// Runs of missing numbers in one question.
const GAP_RUNS: usize = 32;

/// After which time an event that has not come was lost, milliseconds.
const UNHEARD_MS: u64 = 500;

/// How often a peer may be told again in a second that a session is this node's.
const ASSERTIONS: u32 = 256;

/// How many sessions of nodes that are gone may be adopted in a second.
const ADOPTIONS: u32 = 16_384;

/// When what was done last.
#[derive(Default)]
pub(super) struct Housekeeping {
    swept: Option<Millis>,
    next_slot: u32,
    told_total: Option<Millis>,
    said_hello: Option<Millis>,
    assertions_left: u32,
    adoptions_left: u32,
}

impl Housekeeping {
    /// Somebody waits for the digest of everything: it is told now, unless that was done a moment ago.
    pub(super) fn tell_total_soon(&mut self, now: Millis) {
        self.told_total = self.told_total.filter(|told| now.since(*told) < TOTAL_SOON_MS);
    }

    /// Whether one more session may be told again.
    pub(super) fn may_assert(&mut self) -> bool {
        let may = self.assertions_left > 0;
        self.assertions_left = self.assertions_left.saturating_sub(1);
        may
    }
}

impl Protocol<'_> {
    pub(super) fn keep_house<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        let is_due = |last: Option<Millis>, period: u64| {
            last.is_none_or(|last| now.since(last) >= period || now < last)
        };
        if is_due(self.housekeeping.said_hello, HELLO_MS) {
            let first = self.housekeeping.said_hello.is_none();
            self.housekeeping.said_hello = Some(now);
            self.housekeeping.assertions_left = ASSERTIONS;
            self.housekeeping.adoptions_left = ADOPTIONS;
            for peer in 0..self.peers.len() {
                if self.is_member(self.peers[peer].node) {
                    self.say_hello(peer, first, turn);
                    self.tell_outdated(peer, turn);
                }
            }
        }
        if is_due(self.housekeeping.told_total, self.config.digest_ms.into()) {
            self.housekeeping.told_total = Some(now);
            self.tell_total(turn);
        }
        self.sweep(turn);
    }

    /// Goes on looking through the tables: claims whose event was lost, sessions whose time is over, and others' sessions that a
    /// worker has let go.
    fn sweep<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        let slots = turn.tables.places();
        let passed = self.housekeeping.swept.map_or(0, |swept| now.since(swept));
        let budget = (passed * u64::from(slots) / SWEEP_MS).min(SWEEP_SLOTS_MAX) as u32;
        if self.housekeeping.swept.is_some() && budget == 0 {
            return;
        }
        self.housekeeping.swept = Some(now);
        for _ in 0..budget.min(slots) {
            let place = Place(self.housekeeping.next_slot);
            self.housekeeping.next_slot = (place.0 + 1) % slots;
            self.sweep_place(place, turn);
        }
    }

    fn sweep_place<T: Tables, X: Transmit>(&mut self, place: Place, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        self.adopt(place, turn);
        if !turn.tables.is_remote(place) {
            self.sweep_local_place(place, turn);
            return;
        }
        let Some(session) = turn.tables.session(place) else {
            self.ledger.clear(place);
            return;
        };
        if session.owner == NodeId(0) {
            self.give_up(place, turn);
            return;
        }
        if session.last_seen > now {
            // Nonsense, and it would keep the session for ever.
            turn.tables.touch(place, now);
        }
        let entry = self.ledger.entry(place);
        let is_known = entry.is_some_and(|entry| entry.owner == OwnerSlot::SELF);
        if session.owner != self.node {
            if ageing::remote_deadline(&session, &self.config.timeouts) <= now {
                self.count(Counter::RemoteExpired);
                self.give_up(place, turn);
            }
            return;
        }
        let own_deadline = session.last_seen + u64::from(timeout_ms(session.state, &self.config.timeouts));
        let expired = own_deadline <= now;
        if is_known && (expired || is_closed(session.state)) {
            if !self.breaks(Mutation::AgeingIsSilent) {
                self.tell_end(place, &session, turn);
            }
            self.ledger.clear(place);
        } else if !is_known && self.is_reported(&session) && !self.breaks(Mutation::ClaimsAreKept) {
            // The event of a claim was lost.
            self.tell(EventKind::Claim, place, &session, turn);
        } else if now.since(session.last_sent) >= UNHEARD_MS {
            self.tell_unheard_end(place, &session, turn);
        }
        if expired {
            self.count(Counter::OwnExpired);
            self.give_up(place, turn);
        }
    }

    /// Takes over a session whose owner takes no part any more: nobody else would tell a node that joins of it. The member with the
    /// lowest number does so.
    fn adopt<T: Tables, X: Transmit>(&mut self, place: Place, turn: &mut Turn<'_, T, X>) {
        let is_first = self.members.iter().all(|member| member.node > self.node) && !self.courier.silent;
        if !is_first || self.housekeeping.adoptions_left == 0 || self.breaks(Mutation::OrphansStaySo) {
            return;
        }
        let Some(session) = turn.tables.session(place) else { return };
        let is_orphan =
            session.owner != NodeId(0) && session.owner != self.node && !self.is_member(session.owner);
        let is_over = ageing::remote_deadline(&session, &self.config.timeouts) <= turn.millis();
        if is_orphan && !is_over && !is_closed(session.state) {
            self.housekeeping.adoptions_left -= 1;
            self.take_over(place, &session, turn);
        }
    }

    /// A session of a worker's table that another node owns goes when its worker lets it age; nobody is told of that.
    fn sweep_local_place<T: Tables, X: Transmit>(&mut self, place: Place, turn: &mut Turn<'_, T, X>) {
        let Some(entry) = self.ledger.entry(place).filter(|entry| entry.owner != OwnerSlot::SELF) else {
            return;
        };
        if turn.tables.session(place).is_none_or(|session| word_of(&session) != entry.word) {
            self.ledger.clear(place);
        }
    }

    /// Asks for what is missing of the peers' change streams.
    pub(super) fn ask_for_gaps<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let now = turn.millis();
        for at in 0..self.peers.len() {
            let peer = &mut self.peers[at];
            let position = peer.state.position(StreamId::CHANGES);
            if position.is_whole() {
                peer.gap = None;
                continue;
            }
            let gap = peer.gap.get_or_insert(Gap {
                ask_at: now + GAP_PATIENCE_MS,
                tries: 0,
                up_to: position.highest(),
            });
            if now < gap.ask_at {
                continue;
            }
            if gap.tries >= GAP_TRIES {
                // The digests will find what was in them.
                let given_up = position.give_up(gap.up_to);
                peer.gap = None;
                self.counters.add(Counter::GapsGivenUp, given_up);
                continue;
            }
            gap.tries += 1;
            gap.ask_at = now + GAP_RETRY_MS;
            let (to, node) = (peer.addressee(), peer.node);
            if !self.is_member(node) || self.breaks(Mutation::NoNacks) {
                continue;
            }
            let position = self.peers[at].state.position(StreamId::CHANGES);
            for (first, count) in position.missing().take(GAP_RUNS) {
                let nack = Nack { stream: StreamId::CHANGES, first, count };
                self.courier.write(to, CONTROL, &Body::Nack(nack), turn.out);
                self.counters.add(Counter::GapsAsked, count.into());
                self.peers[at].gaps_asked += u64::from(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::id::Generation;
    use crate::session::{Session, SessionState};
    use crate::sync::protocol::net::{Net, durables};
    use crate::sync::protocol::{Held, Tables};
    use crate::time::Micros;

    /// Node 1's worker claims a session of node 2's and ends it, and the ring has no room for the events.
    fn end_unheard(net: &mut Net<'_>, session: &Session) -> Held {
        let held = net.held(0, session).unwrap();
        let tables = &mut net.hosts[0].tables;
        tables.set_owner(held.place, crate::id::NodeId(1), Generation(held.session.generation.0 + 1));
        tables.set_state(held.place, SessionState::TcpReset);
        tables.touch(held.place, Micros(net.now).millis());
        tables.set_last_sent(held.place, Micros(net.now).millis());
        held
    }

    #[test]
    fn the_end_of_a_session_that_was_claimed_to_end_it_is_found_though_its_events_were_lost() {
        let durables = durables(2);
        let mut net = Net::new(&durables, 64, None);
        let (session, other) = (net.open(1), net.open(1));
        net.run(1000);

        let held = end_unheard(&mut net, &session);
        assert!(net.hosts[0].tables.is_remote(held.place));
        net.run(4900);

        let at_its_owner = net.held(1, &session);
        assert!(at_its_owner.is_none(), "{at_its_owner:?}");
        net.run(10_000);
        assert!(net.held(0, &session).is_none(), "nor does it come back");
        assert!(net.held(0, &other).is_some() && net.held(1, &other).is_some());
    }

    #[test]
    fn the_same_in_a_workers_own_table() {
        let durables = durables(2);
        let mut net = Net::new(&durables, 64, None);
        // Node 2 claims it from node 1, and node 1 claims it back.
        let session = net.open(0);
        net.run(100);
        net.claim(1, &session);
        net.run(1000);
        assert_eq!(net.held(0, &session).unwrap().session.owner, crate::id::NodeId(2));

        let held = end_unheard(&mut net, &session);
        assert!(!net.hosts[0].tables.is_remote(held.place));
        net.run(10);
        net.act(0, |protocol, tables, now, out| protocol.audit(held.place, 1, now, tables, out));
        net.run(100);

        let at_its_owner = net.held(1, &session);
        assert!(at_its_owner.is_none(), "{at_its_owner:?}");
    }
}
