//! News: what a peer says of a session, and whether it is believed.

use super::digest::{key_hash, word_of, word_with};
use super::inbox::Origin;
use super::ledger::Entry;
use super::mutation::Mutation;
use super::own::told_at;
use super::{HELD, Held, KeyHash, OwnerSlot, Place, Protocol, Tables, Turn};
use crate::flow::FlowKey;
use crate::id::{Generation, NodeId};
use crate::session::tcp::{is_closed, merge, timeout_ms};
use crate::session::{Direction, Session, SessionState, told};
use crate::sync::event::EventKind;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Ended, Refreshed, Reported};
use crate::sync::{Reject, address, ageing};
use crate::time::Millis;

/// An upsert, and what its keys lead to.
#[derive(Clone, Copy)]
pub(super) struct Upsert {
    pub(super) reported: Reported,
    /// Of the client-side and of the server-side key.
    pub(super) hashes: [KeyHash; 2],
    /// Of the client-side key, the same on all machines.
    pub(super) key_hash: u64,
}

impl Upsert {
    #[inline(always)]
    pub(super) fn new(reported: Reported, tables: &impl Tables) -> Upsert {
        let (client, server) = (reported.client_key(), reported.server_key());
        let hashes = [tables.hash(&client), tables.hash(&server)];
        Upsert { reported, hashes, key_hash: key_hash(&client) }
    }
}

/// A session that is to be added.
struct Newcomer<'n> {
    session: &'n Session,
    upsert: &'n Upsert,
    /// Whether nothing stands under its client-side key.
    is_unknown: bool,
}

impl Protocol<'_> {
    /// There is such a session.
    #[inline(always)]
    pub(super) fn on_upsert<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        upsert: &Upsert,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let reported = &upsert.reported;
        let held = self.held_hashed(upsert.hashes[0], &reported.client_key(), turn)?;
        let keeps_out_until = turn.millis() + u64::from(self.config.tombstone_ms);
        let ended = self.tombstones.generation(upsert.key_hash, keeps_out_until);
        if held.is_none() && ended.is_none() && origin.stream != HELD {
            let session = self.session_of(origin, reported, turn.millis());
            return self.add(origin, &Newcomer { session: &session, upsert, is_unknown: true }, turn);
        }
        self.on_known_upsert(origin, upsert, held, ended, turn)
    }

    /// There is such a session, and something is known under its client-side key already.
    #[inline(never)]
    fn on_known_upsert<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        upsert: &Upsert,
        held: Option<Held>,
        ended: Option<Generation>,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let reported = &upsert.reported;
        let server_key = reported.server_key();
        if let Some(ended) = ended.filter(|ended| *ended >= reported.generation) {
            return self.on_late_upsert(ended, reported, held, turn);
        }
        let session = self.session_of(origin, reported, turn.millis());
        if origin.stream == HELD {
            return self.on_own_given_back(origin, upsert, session, held, turn);
        }
        let newcomer = Newcomer { session: &session, upsert, is_unknown: held.is_none() };
        let Some(held) = held else { return self.add(origin, &newcomer, turn) };
        let same_endpoints = held.session.server_key() == server_key;
        let mine = held.session.owner == self.node;
        if mine && self.is_overdue(&held.session, turn.millis()) {
            // The sweep has not come by yet. The peer hears of the end, and makes its session newer than this one.
            self.tell_end(held.place, &held.session, turn);
            self.give_up(held.place, turn);
            return Err(Reject::Ended);
        }
        // What no peer was told of gives way to what one has told, unless it came after that on the same endpoints.
        let came_after = same_endpoints && session.generation < held.session.generation;
        let gives_way = mine && !told::is_told(held.session.last_sent) && !came_after;
        if !gives_way && !self.wins(session.owner, session.generation, &held.session) {
            if mine {
                if same_endpoints && session.generation == held.session.generation {
                    self.learn_state(&held, session.state, turn);
                }
                self.assert_again(&held, turn);
            } else if held.session.owner == session.owner && held.session.generation > session.generation {
                self.contradict(origin, &held, turn);
            }
            return Err(Reject::Stale);
        }
        let same_version =
            (session.owner, session.generation) == (held.session.owner, held.session.generation);
        if origin.late && same_version && !same_endpoints {
            return Err(Reject::Stale);
        }
        if same_endpoints {
            self.bring_up_to_date(origin, session, &held, turn);
            return Ok(());
        }
        self.give_up(held.place, turn);
        self.add(origin, &newcomer, turn)
    }

    /// Whether a session of this node's own was idle for its timeout.
    fn is_overdue(&self, session: &Session, now: Millis) -> bool {
        session.last_seen + u64::from(timeout_ms(session.state, &self.config.timeouts)) <= now
    }

    /// News of a session that has ended changes nothing; but it may show that a session which is thought to be this node's own
    /// is the one that ended.
    fn on_late_upsert<T: Tables, X: Transmit>(
        &mut self,
        ended: Generation,
        reported: &Reported,
        held: Option<Held>,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if let Some(held) = held
            && held.session.owner == self.node
            && held.session.generation < reported.generation
            && held.session.generation <= ended
            && held.session.server_key() == reported.server_key()
        {
            self.give_up(held.place, turn);
        }
        Err(Reject::Ended)
    }

    /// Who has lost a claim to this node may have claimed for a FIN that this node has not seen.
    fn learn_state<T: Tables, X: Transmit>(
        &mut self,
        held: &Held,
        theirs: SessionState,
        turn: &mut Turn<'_, T, X>,
    ) {
        let state = merge(theirs, held.session.state);
        if state == held.session.state || is_closed(state) {
            return;
        }
        turn.tables.set_state(held.place, state);
        self.tell(EventKind::Refresh, held.place, &Session { state, ..held.session }, turn);
    }

    /// An owner has a session under this key that is older than the one which this node holds of it: that one's end was not heard
    /// here, and the owner has since forgotten how new it was. It is told, and makes its session newer.
    fn contradict<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        held: &Held,
        turn: &mut Turn<'_, T, X>,
    ) {
        if !origin.late && self.housekeeping.may_assert() {
            self.give_back(origin.peer, held, turn);
        }
    }

    /// Changes a session in place: the endpoints are the same.
    fn bring_up_to_date<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        session: Session,
        held: &Held,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Held { place, session: old, .. } = *held;
        if (session.owner, session.generation) != (old.owner, old.generation)
            && !(old.owner == self.node && self.breaks(Mutation::LoserGoesOn))
        {
            turn.tables.set_owner(place, session.owner, session.generation);
            turn.tables.set_last_sent(place, Millis(0));
        }
        // A newer session on the same endpoints, or of what has ended here; otherwise another owner has taken it over as it was.
        let anew = !session.generation.is_of_one_session(old.generation) || is_closed(old.state);
        let reopened = session.generation > old.generation && anew;
        let backwards = origin.late && self.breaks(Mutation::LateNewsSetsBack);
        let state = if reopened || backwards { session.state } else { merge(session.state, old.state) };
        if state != old.state {
            turn.tables.set_state(place, state);
        }
        if session.last_seen > old.last_seen {
            turn.tables.touch(place, session.last_seen);
        }
        self.enter(place, &session, self.peers[origin.peer].slot);
        if old.owner == self.node && is_closed(state) && !reopened && !is_closed(session.state) {
            // One node saw the client's FIN and claimed for it, this one the server's: only here it is known that both are gone.
            self.take_over(place, &session, turn);
            let generation = session.generation.of_next_owner();
            self.tell_end(place, &Session { state, generation, owner: self.node, ..session }, turn);
        }
    }

    /// Enters what an owner has in the ledger.
    pub(super) fn enter(&mut self, place: Place, session: &Session, owner: OwnerSlot) {
        self.ledger.set(place, Entry { word: word_of(session), owner, stamp: self.resync.clock() });
    }

    /// Adds a session under a client-side key that is free.
    #[inline(always)]
    fn add<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        newcomer: &Newcomer<'_>,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let place = self.insert(origin, newcomer, turn)?;
        let session = newcomer.session;
        let word = word_with(newcomer.upsert.key_hash, session);
        let (owner, stamp) = (self.peers[origin.peer].slot, self.resync.clock());
        self.ledger.set(place, Entry { word, owner, stamp });
        if self.breaks(Mutation::NewsIsPassedOn) {
            let body = crate::sync::wire::Body::Upsert(self.reported(session, turn.millis()));
            self.courier.tell(&body, turn.now, turn.out);
        }
        Ok(())
    }

    /// Puts a session into the remote table. Another one with its server-side flow goes if its end was evidently missed:
    /// a local endpoint serves one session towards a server at a time.
    #[inline(always)]
    fn insert<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        newcomer: &Newcomer<'_>,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<Place, Reject> {
        let Newcomer { session, upsert, is_unknown } = *newcomer;
        let [client_hash, server_hash] = upsert.hashes;
        // A worker's session hides one of the remote table under the same key: when it is given up that one comes to light.
        while !is_unknown && let Some(other) = turn.tables.find_hashed(client_hash, &session.client_key()) {
            self.give_up(other.place, turn);
        }
        while let Some(other) = turn.tables.find_hashed(server_hash, &session.server_key()) {
            if other.direction != Direction::Outbound || !self.may_displace(origin, &other, turn) {
                return Err(Reject::Conflict);
            }
            if other.session.owner == self.node && self.is_reported(&other.session) {
                self.tell_end(other.place, &other.session, turn);
            }
            self.give_up(other.place, turn);
        }
        turn.tables.insert_hashed(session, upsert.hashes).map_err(|_| Reject::TableFull)
    }

    /// Whether a session has to make way for news of another one that has its server-side flow.
    ///
    /// The node whose local address it is gives the flow out, and only when it knows of no session that has it: so the later news
    /// is right, and the session that it meets has ended unheard. Except if that is one of this node's workers' own: then the
    /// address is this node's.
    fn may_displace<T: Tables, X>(&self, origin: &Origin, other: &Held, turn: &Turn<'_, T, X>) -> bool {
        let given_out_here = other.session.owner == self.node && !turn.tables.is_remote(other.place);
        is_closed(other.session.state) || !origin.late && !given_out_here
    }

    /// A session has ended.
    pub(super) fn on_delete<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        ended: &Ended,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let now = turn.millis();
        let client_key = ended.client_key();
        let peer = &self.peers[origin.peer];
        let (sender, is_whole) = (peer.node, peer.state.position(origin.stream).is_whole());
        let held = self.held(&client_key, turn)?;
        let stale = held.filter(|held| !self.wins(sender, ended.generation, &held.session));
        if let Some(held) = stale {
            if held.session.owner == self.node {
                self.assert_again(&held, turn);
            }
            return Err(Reject::Stale);
        }
        self.bury(&client_key, ended.generation, now);
        let held = held.ok_or(Reject::UnknownSession)?;
        if held.session.owner == self.node {
            // Had it claimed this very session, this node would know, if it has heard everything: then this is a new session
            // under an old key. Otherwise the claim may still come, and will tell.
            if is_whole && told::is_told(held.session.last_sent) {
                self.raise(&held, ended.generation, turn);
            }
            return Err(Reject::Stale);
        }
        // By the state that its owner let it age in: this node may not have heard of that one.
        let session = Session { state: merge(ended.state, held.session.state), ..held.session };
        if !is_closed(ended.state) && self.is_in_use_here(&session, now) {
            // Its owner has seen nothing of it for too long, but this node has: it goes on here.
            let generation = ended.generation.of_next_owner();
            let session = Session { owner: self.node, generation, ..session };
            turn.tables.set_owner(held.place, self.node, generation);
            turn.tables.set_last_sent(held.place, told_at(&session));
            if session.state != held.session.state {
                turn.tables.set_state(held.place, session.state);
            }
            self.tell(EventKind::Claim, held.place, &session, turn);
            return Ok(());
        }
        self.give_up(held.place, turn);
        Ok(())
    }

    /// Whether packets of a session whose owner has let it age came through here lately. What the owner said of its age is not
    /// exact; so much less than the timeout is allowed for it.
    fn is_in_use_here(&self, session: &Session, now: Millis) -> bool {
        let timeout = u64::from(timeout_ms(session.state, &self.config.timeouts));
        !is_closed(session.state) && session.last_seen + (timeout - timeout / 16) > now
    }

    /// Leaves a tombstone. It keeps late news out for a while, and is remembered for as long again: whoever opens a session under
    /// this key anew must know at least what any of its peers may still know.
    pub(super) fn bury(&mut self, client_key: &FlowKey, generation: Generation, now: Millis) {
        if self.breaks(Mutation::NoTombstones) {
            return;
        }
        let evicted = self.tombstones.add(key_hash(client_key), generation, self.config.tombstone_ms, now);
        if evicted {
            self.count(crate::counter::Counter::TombstonesEvicted);
        }
    }

    /// A session lives on.
    pub(super) fn on_refresh<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        refreshed: &Refreshed,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let sender = self.peers[origin.peer].node;
        let held = self.held(&refreshed.client_key(), turn)?.ok_or(Reject::UnknownSession)?;
        // It does not name the session's other half: of a session that has changed hands since, the endpoints may be others.
        if (held.session.owner, held.session.generation) != (sender, refreshed.generation) {
            let newer = self.wins(sender, refreshed.generation, &held.session);
            return Err(if newer { Reject::UnknownSession } else { Reject::Stale });
        }
        if self.breaks(Mutation::RefreshIsIgnored) {
            return Ok(());
        }
        let seen =
            ageing::last_seen(refreshed.state, refreshed.remaining_ms, &self.config.timeouts, turn.millis());
        let state = merge(refreshed.state, held.session.state);
        if state != held.session.state {
            turn.tables.set_state(held.place, state);
        }
        if seen > held.session.last_seen {
            turn.tables.touch(held.place, seen);
        }
        // Its owner sees packets of it: who waits for it to fall silent begins anew.
        turn.tables.set_last_sent(held.place, Millis(0));
        self.enter(held.place, &held.session, self.peers[origin.peer].slot);
        Ok(())
    }

    /// A session of this node's own comes back to it, from a peer that held it.
    fn on_own_given_back<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        upsert: &Upsert,
        session: Session,
        held: Option<Held>,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        let Some(held) = held else {
            if !self.is_missed(origin.peer, &session, turn) {
                return Err(Reject::Ended);
            }
            let newcomer = Newcomer { session: &session, upsert, is_unknown: true };
            let place = self.insert(origin, &newcomer, turn)?;
            self.enter(place, &session, OwnerSlot::SELF);
            return Ok(());
        };
        let same_endpoints = held.session.server_key() == session.server_key();
        if held.session.owner != self.node {
            if !same_endpoints || !self.wins(self.node, session.generation, &held.session) {
                return Err(Reject::Stale);
            }
            turn.tables.set_owner(held.place, self.node, session.generation);
            turn.tables.set_last_sent(held.place, told_at(&session));
            self.enter(held.place, &session, OwnerSlot::SELF);
            return Ok(());
        }
        if held.session.generation >= session.generation && same_endpoints
            || held.session.generation > session.generation
        {
            return Err(Reject::Stale);
        }
        // The peers hold an older session of this node's under the same key: this one is newer, and says so.
        if told::is_told(held.session.last_sent) && !is_closed(held.session.state) {
            self.raise(&held, session.generation, turn);
        }
        Err(Reject::Stale)
    }

    /// Whether a session that this node lacks may be one that it has lost: it has not everything back yet, or has asked for it.
    fn is_missed<T: Tables, X>(&self, peer: usize, session: &Session, turn: &Turn<'_, T, X>) -> bool {
        let asked = |key: &FlowKey| self.queries.was_asked(key, turn.millis());
        !self.peers[peer].state.gave_back() || asked(&session.client_key()) || asked(&session.server_key())
    }

    /// Takes a session out, or has its worker do so.
    pub(super) fn give_up<T: Tables, X: Transmit>(&mut self, place: Place, turn: &mut Turn<'_, T, X>) {
        self.ledger.clear(place);
        if turn.tables.is_remote(place) {
            turn.tables.remove(place);
        } else {
            turn.tables.set_owner(place, NodeId(0), Generation(0));
        }
    }

    /// The session that a client-side key belongs to.
    pub(super) fn held<T: Tables, X>(
        &self,
        client_key: &FlowKey,
        turn: &Turn<'_, T, X>,
    ) -> Result<Option<Held>, Reject> {
        self.held_hashed(turn.tables.hash(client_key), client_key, turn)
    }

    /// The session that a client-side key with this hash belongs to.
    #[inline(always)]
    fn held_hashed<T: Tables, X>(
        &self,
        hash: KeyHash,
        client_key: &FlowKey,
        turn: &Turn<'_, T, X>,
    ) -> Result<Option<Held>, Reject> {
        match turn.tables.find_hashed(hash, client_key) {
            None => Ok(None),
            Some(held) if held.direction == Direction::Inbound => Ok(Some(held)),
            // A real server talks to a local address: a client that has the same addresses is in somebody's way.
            Some(_) => Err(Reject::Conflict),
        }
    }

    /// Whether a statement of this owner and generation is to be believed over what the table has.
    pub(super) fn wins(&self, owner: NodeId, generation: Generation, held: &Session) -> bool {
        if self.breaks(Mutation::AnyGenerationWins) {
            return true;
        }
        let tie = owner <= held.owner || self.breaks(Mutation::LastOwnerWins);
        generation > held.generation || generation == held.generation && tie
    }

    #[inline(always)]
    fn session_of(&self, origin: &Origin, reported: &Reported, now: Millis) -> Session {
        let timeouts = &self.config.timeouts;
        let own = origin.stream == HELD;
        let last_seen = ageing::last_seen(reported.state, reported.remaining_ms, timeouts, now);
        let session = Session {
            protocol: address::protocol_of(reported.state),
            client: reported.client,
            vip: reported.vip,
            local: reported.local,
            server: reported.server,
            owner: if own { self.node } else { self.peers[origin.peer].node },
            generation: reported.generation,
            state: reported.state,
            last_seen,
            last_sent: Millis(0),
        };
        if own { Session { last_sent: told_at(&session), ..session } } else { session }
    }
}
