//! Own sessions: what this node's workers report, and what the peers are told of it.

use super::digest::{key_hash, word_of};
use super::mutation::Mutation;
use super::{Held, OwnerSlot, Place, Protocol, Tables, Turn};
use crate::counter::Counter;
use crate::id::Generation;
use crate::session::{Session, tcp};
use crate::sync::ageing;
use crate::sync::event::{Event, EventKind};
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Ended, Refreshed, Reported};
use crate::time::{Micros, Millis};

/// The "last sent" of a session that is told without a packet of it at hand. The peers hear how old it is; a worker is to tell them of
/// the next packet as soon as if they had heard of the last one then.
pub(super) fn told_at(session: &Session) -> Millis {
    Millis(session.last_seen.0.max(1))
}

impl Protocol<'_> {
    /// Takes what a worker says of the session in a place.
    ///
    /// What stands in the table counts: an event may be older than news of a peer's that has been applied since.
    pub fn on_event<T: Tables, X: Transmit>(
        &mut self,
        event: &Event,
        place: Place,
        now: Micros,
        tables: &mut T,
        out: &mut X,
    ) {
        let mut turn = Turn { tables, out, now };
        let session = event.session;
        if session.owner != self.node {
            self.count(Counter::EventsForeign);
            return;
        }
        let present = turn.tables.session(place).filter(|present| {
            present.client_key() == session.client_key() && present.server_key() == session.server_key()
        });
        if present.is_some_and(|present| present.owner != session.owner) {
            self.count(Counter::EventsForeign);
            return;
        }
        match event.kind {
            EventKind::Delete => {
                let generation = present.map_or(session.generation, |present| present.generation);
                self.tell_end(place, &Session { generation, ..session }, &mut turn);
            }
            // Gone again: its end follows, or was never worth telling.
            _ if present.is_none() => {}
            // Its end follows, or was told because of what a peer said of it.
            EventKind::Upsert | EventKind::Refresh
                if present.is_some_and(|present| tcp::is_closed(present.state)) => {}
            EventKind::Claim if self.breaks(Mutation::ClaimsAreKept) => {}
            EventKind::Upsert | EventKind::Claim | EventKind::Refresh => {
                let generation = present.map_or(session.generation, |present| present.generation);
                self.tell(event.kind, place, &Session { generation, ..session }, &mut turn);
            }
        }
    }

    /// Tells of a session of this node's own that is new, has changed or lives on.
    pub(super) fn tell<T: Tables, X: Transmit>(
        &mut self,
        kind: EventKind,
        place: Place,
        session: &Session,
        turn: &mut Turn<'_, T, X>,
    ) {
        let now = turn.millis();
        // What is claimed is told even if it has ended: the old owner must learn which session ends.
        if tcp::is_closed(session.state) && kind != EventKind::Claim {
            return;
        }
        let ended = self.tombstones.generation(key_hash(&session.client_key()), now);
        if let Some(ended) = ended.filter(|ended| *ended >= session.generation) {
            let held = Held { place, direction: crate::session::Direction::Inbound, session: *session };
            self.raise(&held, ended, turn);
            return;
        }
        let known = self.ledger.entry(place);
        let is_known =
            known.is_some_and(|entry| entry.owner == OwnerSlot::SELF && entry.word == word_of(session));
        if kind == EventKind::Refresh && is_known {
            let body = Body::Refresh(self.refreshed(session, now));
            self.courier.tell(&body, turn.now, turn.out);
            return;
        }
        self.enter(place, session, OwnerSlot::SELF);
        let body = Body::Upsert(self.reported(session, now));
        self.courier.tell(&body, turn.now, turn.out);
    }

    /// Claims a session whose owner is gone, and tells everyone.
    pub(super) fn take_over<T: Tables, X: Transmit>(
        &mut self,
        place: Place,
        session: &Session,
        turn: &mut Turn<'_, T, X>,
    ) {
        let generation = session.generation.of_next_owner();
        let session = Session { owner: self.node, generation, ..*session };
        turn.tables.set_owner(place, self.node, generation);
        turn.tables.set_last_sent(place, told_at(&session));
        self.tell(EventKind::Claim, place, &session, turn);
    }

    /// Tells that a session of this node's own has ended.
    pub(super) fn tell_end<T: Tables, X: Transmit>(
        &mut self,
        place: Place,
        session: &Session,
        turn: &mut Turn<'_, T, X>,
    ) {
        let key = session.client_key();
        if self.ledger.entry(place).is_some_and(|entry| entry.word == word_of(session)) {
            self.ledger.clear(place);
        }
        self.bury(&key, session.generation, turn.millis());
        let Session { generation, state, client, vip, .. } = *session;
        let body = Body::Delete(Ended { generation, state, client, vip });
        self.courier.tell(&body, turn.now, turn.out);
    }

    /// Tells of a session that was claimed in order to end it, if its old owner still counts as its owner: both events were lost.
    pub(super) fn tell_unheard_end<T: Tables, X: Transmit>(
        &mut self,
        place: Place,
        session: &Session,
        turn: &mut Turn<'_, T, X>,
    ) {
        let is_anothers = self.ledger.entry(place).is_some_and(|entry| entry.owner != OwnerSlot::SELF);
        if session.owner == self.node && is_anothers && tcp::is_closed(session.state) {
            self.tell(EventKind::Claim, place, session, turn);
            self.tell_end(place, session, turn);
        }
    }

    /// Makes this node's session newer than what the peers may know under its key, and tells them.
    pub(super) fn raise<T: Tables, X: Transmit>(
        &mut self,
        held: &Held,
        above: Generation,
        turn: &mut Turn<'_, T, X>,
    ) {
        let generation = above.max(held.session.generation).of_next_session();
        turn.tables.set_owner(held.place, self.node, generation);
        self.count(Counter::GenerationsRaised);
        let session = Session { owner: self.node, generation, ..held.session };
        self.enter(held.place, &session, OwnerSlot::SELF);
        let body = Body::Upsert(self.reported(&session, turn.millis()));
        self.courier.tell(&body, turn.now, turn.out);
    }

    /// Tells again of a session that a peer takes for its own. Bounded in rate: digests find the rest.
    pub(super) fn assert_again<T: Tables, X: Transmit>(&mut self, held: &Held, turn: &mut Turn<'_, T, X>) {
        if self.is_reported(&held.session) && self.housekeeping.may_assert() {
            let body = Body::Upsert(self.reported(&held.session, turn.millis()));
            self.courier.tell(&body, turn.now, turn.out);
        }
    }

    /// Compares places with what the peers were told, and tells what they were not: after events were lost. `first` and the
    /// next `count` places; the caller bounds it.
    pub fn audit<T: Tables, X: Transmit>(
        &mut self,
        first: Place,
        count: u32,
        now: Micros,
        tables: &mut T,
        out: &mut X,
    ) {
        let mut turn = Turn { tables, out, now };
        for place in (first.0..first.0.saturating_add(count).min(turn.tables.places())).map(Place) {
            self.audit_place(place, &mut turn);
        }
    }

    pub(super) fn audit_place<T: Tables, X: Transmit>(&mut self, place: Place, turn: &mut Turn<'_, T, X>) {
        let known = self.ledger.entry(place);
        match turn.tables.session(place) {
            None if known.is_some() => self.ledger.clear(place),
            None => {}
            Some(session) if self.is_reported(&session) => {
                let word = word_of(&session);
                let is_known =
                    known.is_some_and(|entry| entry.owner == OwnerSlot::SELF && entry.word == word);
                let kind = if is_known { EventKind::Refresh } else { EventKind::Upsert };
                self.tell(kind, place, &session, turn);
            }
            // Its close was not told.
            Some(session)
                if session.owner == self.node
                    && known.is_some_and(|entry| entry.owner == OwnerSlot::SELF) =>
            {
                self.tell_end(place, &session, turn);
                self.ledger.clear(place);
            }
            Some(session) => self.tell_unheard_end(place, &session, turn),
        }
    }

    pub(super) fn reported(&self, session: &Session, now: Millis) -> Reported {
        let Session { generation, state, client, vip, local, server, .. } = *session;
        let remaining_ms = ageing::remaining_ms(session, &self.config.timeouts, now);
        Reported { generation, state, remaining_ms, client, vip, local, server }
    }

    fn refreshed(&self, session: &Session, now: Millis) -> Refreshed {
        let Session { generation, state, client, vip, .. } = *session;
        let remaining_ms = ageing::remaining_ms(session, &self.config.timeouts, now);
        Refreshed { generation, state, remaining_ms, client, vip }
    }
}
