//! The tables of one simulated node, in plain memory, watching for states that go backwards.

use rustc_hash::FxHashMap;

use crate::flow::FlowKey;
use crate::id::{Generation, NodeId};
use crate::session::tcp::is_closed;
use crate::session::{Direction, Draft, Session, SessionState};
use crate::sync::protocol::{Held, KeyHash, Place, RemoteTableFull, Tables};
use crate::time::Millis;

/// Where the sessions of one node stand.
pub struct ModelTables {
    remote_slots: u32,
    sessions: Vec<Option<Session>>,
    /// Of the remote table, and of the worker's.
    keys: [FxHashMap<FlowKey, (Place, Direction)>; 2],
    free: [Vec<u32>; 2],
    /// Places whose session was opened anew in place since its state was written.
    reopened: Vec<bool>,
    /// Whether nothing is ever plainly new, so that every session is added on the long way.
    pub one_by_one: bool,
    /// The client's port whose sessions' changes are printed, and who prints them.
    pub trace: Option<(u16, String)>,
    /// What was done that must never be.
    pub violation: Option<String>,
}

impl ModelTables {
    /// Empty tables.
    pub fn new(remote_slots: u32, local_slots: u32) -> ModelTables {
        ModelTables {
            remote_slots,
            sessions: vec![None; (remote_slots + local_slots) as usize],
            keys: Default::default(),
            free: [
                (0..remote_slots).rev().collect(),
                (remote_slots..remote_slots + local_slots).rev().collect(),
            ],
            reopened: vec![false; (remote_slots + local_slots) as usize],
            one_by_one: false,
            trace: None,
            violation: None,
        }
    }

    fn print(&self, place: Place, what: &str) {
        if let (Some((port, who)), Some(session)) = (&self.trace, self.session(place))
            && session.client.port == *port
        {
            eprintln!(
                "{who} {what} {place:?} {:?} {} g{} {:?}",
                session.local, session.owner, session.generation, session.state
            );
        }
    }

    fn home(&self, place: Place) -> usize {
        usize::from(place.0 >= self.remote_slots)
    }

    /// The worker's own entry under a key, given up or not.
    pub fn find_local(&self, key: &FlowKey) -> Option<Held> {
        self.find_in(1, key)
    }

    fn find_in(&self, home: usize, key: &FlowKey) -> Option<Held> {
        let (place, direction) = *self.keys[home].get(key)?;
        self.session(place).map(|session| Held { place, direction, session })
    }

    /// Adds a session to the worker's table.
    pub fn insert_local(&mut self, session: &Session) -> Option<Place> {
        self.put(1, session)
    }

    fn put(&mut self, home: usize, session: &Session) -> Option<Place> {
        let (client, server) = (session.client_key(), session.server_key());
        if self.keys[home].contains_key(&client) || self.keys[home].contains_key(&server) {
            self.violation.get_or_insert(format!("a key of {session:?} was inserted twice"));
            return None;
        }
        let place = Place(self.free[home].pop()?);
        self.keys[home].insert(client, (place, Direction::Inbound));
        self.keys[home].insert(server, (place, Direction::Outbound));
        self.sessions[place.0 as usize] = Some(*session);
        self.print(place, "insert");
        Some(place)
    }

    /// Takes a session out of either table.
    pub fn take_out(&mut self, place: Place) {
        self.print(place, "take out");
        let Some(session) = self.sessions[place.0 as usize].take() else { return };
        let home = self.home(place);
        self.keys[home].remove(&session.client_key());
        self.keys[home].remove(&session.server_key());
        self.free[home].push(place.0);
    }

    /// Every session, in the order of places.
    pub fn iter(&self) -> impl Iterator<Item = (Place, Session)> + use<'_> {
        let places = self.sessions.iter().enumerate();
        places.filter_map(|(place, session)| session.map(|session| (Place(place as u32), session)))
    }

    fn change(&mut self, place: Place, change: impl FnOnce(&mut Session)) {
        if let Some(session) = self.sessions.get_mut(place.0 as usize).and_then(Option::as_mut) {
            change(session);
        }
        if self.trace.is_some() {
            self.print(place, "change");
        }
    }
}

impl Tables for ModelTables {
    fn remote_slots(&self) -> u32 {
        self.remote_slots
    }

    fn places(&self) -> u32 {
        self.sessions.len() as u32
    }

    fn find(&self, key: &FlowKey) -> Option<Held> {
        let local = self.find_in(1, key).filter(|held| held.session.owner != NodeId(0));
        local.or_else(|| self.find_in(0, key))
    }

    fn session(&self, place: Place) -> Option<Session> {
        *self.sessions.get(place.0 as usize)?
    }

    fn insert(&mut self, session: &Session) -> Result<Place, RemoteTableFull> {
        self.put(0, session).ok_or(RemoteTableFull)
    }

    fn insert_new(&mut self, session: &Draft<'_>, _: [KeyHash; 2]) -> Option<Place> {
        let keys = [session.client_key(), session.server_key()];
        let is_known = keys.iter().any(|key| self.keys.iter().any(|keys| keys.contains_key(key)));
        if is_known || self.one_by_one { None } else { self.insert(&session.session()).ok() }
    }

    fn remove(&mut self, place: Place) {
        if self.is_remote(place) {
            self.take_out(place);
        }
    }

    fn set_owner(&mut self, place: Place, owner: NodeId, generation: Generation) {
        let (mut backwards, mut reopened) = (None, false);
        self.change(place, |session| {
            if owner != NodeId(0) && generation < session.generation {
                backwards = Some(format!("generation {generation} for {session:?}"));
            }
            let anew = !generation.is_of_one_session(session.generation) || is_closed(session.state);
            reopened = anew && generation > session.generation;
            (session.owner, session.generation) = (owner, generation);
        });
        if let Some(place) = self.reopened.get_mut(place.0 as usize) {
            *place = reopened;
        }
        self.violation = self.violation.take().or(backwards);
    }

    fn set_state(&mut self, place: Place, state: SessionState) {
        let mut backwards = None;
        let reopened = self.reopened.get_mut(place.0 as usize).is_some_and(std::mem::take);
        self.change(place, |session| {
            if (state as u8) < session.state as u8 && !reopened {
                backwards = Some(format!("state {state:?} for {session:?}"));
            }
            session.state = state;
        });
        self.violation = self.violation.take().or(backwards);
    }

    fn touch(&mut self, place: Place, last_seen: Millis) {
        self.change(place, |session| session.last_seen = last_seen);
    }

    fn set_last_sent(&mut self, place: Place, when: Millis) {
        self.change(place, |session| session.last_sent = when);
    }
}
