//! Queries: a worker missed a session, and the peers are asked for that one.

use super::digest::key_hash;
use super::inbox::Origin;
use super::mutation::Mutation;
use super::own::told_at;
use super::peer::Peer;
use super::{CONTROL, Protocol, Tables, Turn};
use crate::counter::Counter;
use crate::flow::FlowKey;
use crate::id::Generation;
use crate::session::{Direction, Session, SessionState, tcp};
use crate::sync::Reject;
use crate::sync::event::EventKind;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Sought, StreamId};
use crate::time::{Micros, Millis};

/// Questions that are remembered, so that none is asked twice in a row.
const PENDING: usize = 1024;

/// How long a question is not asked again, milliseconds. A client sends again after 200 at the earliest.
const REPEAT_MS: u64 = 150;

/// How long an answer is waited for, milliseconds.
const ANSWER_MS: u64 = 2000;

/// Questions asked in a second, and answered in a second.
const PER_SECOND: u32 = 2000;

/// So much may be done in a second.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    second: u64,
    used: u32,
}

impl Allowance {
    fn take(&mut self, now: Millis) -> bool {
        let second = now.0 / 1000;
        if second != self.second {
            *self = Allowance { second, used: 0 };
        }
        self.used += 1;
        self.used <= PER_SECOND
    }
}

/// What was asked, and how much may be.
pub(super) struct Queries {
    /// By the lower bits of the key's hash: the hash, and when it was asked.
    asked: Vec<(u64, Millis)>,
    asking: Allowance,
    answering: Allowance,
}

impl Default for Queries {
    fn default() -> Self {
        Queries {
            asked: vec![(0, Millis(0)); PENDING],
            asking: Allowance::default(),
            answering: Allowance::default(),
        }
    }
}

impl Queries {
    /// Whether the peers were asked for the session of this key a moment ago.
    pub(super) fn was_asked(&self, key: &FlowKey, now: Millis) -> bool {
        let hash = key_hash(key);
        let (asked, at) = self.asked[hash as usize % PENDING];
        asked == hash && now.since(at) < ANSWER_MS
    }
}

impl Protocol<'_> {
    /// A worker missed the session of a packet with this key, which came the way that `direction` says.
    pub fn on_miss<T: Tables, X: Transmit>(
        &mut self,
        direction: Direction,
        key: &FlowKey,
        now: Micros,
        tables: &mut T,
        out: &mut X,
    ) {
        let turn = Turn { tables, out, now };
        let hash = key_hash(key);
        let asked = &mut self.queries.asked[hash as usize % PENDING];
        let repeated = asked.0 == hash && turn.millis().since(asked.1) < REPEAT_MS;
        if repeated || turn.tables.find(key).is_some() || self.breaks(Mutation::NoQueries) {
            self.count(Counter::QueriesMerged);
            return;
        }
        if !self.queries.asking.take(turn.millis()) {
            self.count(Counter::QueriesRefused);
            return;
        }
        self.queries.asked[hash as usize % PENDING] = (hash, turn.millis());
        self.count(Counter::QueriesSent);
        let query = Body::Query(Sought { direction, key: *key });
        for at in 0..self.peers.len() {
            if self.is_member(self.peers[at].node) {
                self.courier.write(self.peers[at].addressee(), CONTROL, &query, turn.out);
            }
        }
        self.courier.post(turn.out);
    }

    /// A peer asks for a session. Its owner answers, with one whose handshake is not done to everyone; a session of the asker's own is given back; one whose owner is gone becomes
    /// this node's, for the asker has traffic of it and nobody else could tell it.
    pub(super) fn on_query<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        sought: &Sought,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if !self.queries.answering.take(turn.millis()) {
            self.count(Counter::QueriesRefused);
            return Ok(());
        }
        let to = self.peers[origin.peer].addressee();
        let held = turn.tables.find(&sought.key).filter(|held| held.direction == sought.direction);
        let Some(held) = held.filter(|held| !tcp::is_closed(held.session.state)) else {
            self.courier.write(to, CONTROL, &Body::NotMine(*sought), turn.out);
            return Ok(());
        };
        let owner = held.session.owner;
        if owner == self.node && self.is_reported(&held.session) {
            self.count(Counter::QueriesAnswered);
            if let Some(ended) = self.outlived(&held.session, turn.millis()) {
                self.raise(&held, ended, turn);
                return Ok(());
            }
            let body = Body::Upsert(self.reported(&held.session, turn.millis()));
            self.courier.write(to, StreamId::RANGES, &body, turn.out);
        } else if owner == self.node && self.awaits_client(&held.session) {
            self.count(Counter::QueriesAnswered);
            turn.tables.set_last_sent(held.place, told_at(&held.session));
            self.tell(EventKind::Upsert, held.place, &held.session, turn);
        } else if owner == to.node {
            self.count(Counter::QueriesAnswered);
            self.give_back(origin.peer, &held, turn);
        } else if owner != self.node && !self.is_member(owner) {
            self.count(Counter::QueriesAnswered);
            self.take_over(held.place, &held.session, turn);
        } else {
            self.courier.write(to, CONTROL, &Body::NotMine(*sought), turn.out);
        }
        Ok(())
    }

    /// Whether the server has answered the client, and what the client said to that has not come here. The client takes the connection
    /// for open, so if a peer asks, it went there: the router has changed its mind in between.
    fn awaits_client(&self, session: &Session) -> bool {
        session.state == SessionState::TcpSynAcked && !self.breaks(Mutation::HandshakesAreKept)
    }

    /// The generation of another session under this key that has ended since this one of the node's own was opened: the peers take
    /// this one for that, and keep it out. Everything that they said is known, so it was not this one.
    fn outlived(&self, session: &Session, now: Millis) -> Option<Generation> {
        let is_whole = |peer: &Peer<'_>| peer.state.position(StreamId::CHANGES).is_whole();
        let ended = self.tombstones.generation(key_hash(&session.client_key()), now)?;
        (ended >= session.generation && self.peers.iter().all(is_whole)).then_some(ended)
    }

    /// A peer does not have it.
    pub(super) fn on_not_mine(&mut self, _sought: &Sought) -> Result<(), Reject> {
        self.count(Counter::QueriesDenied);
        Ok(())
    }
}
