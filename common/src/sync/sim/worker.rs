//! A simulated worker: what packets do to a node's tables, and what it tells its secondary. It goes by the same functions as the
//! real one for states, claims and what is told.

use std::collections::{BTreeSet, VecDeque};

use super::tables::ModelTables;
use crate::config::{SyncAfter, Timeouts};
use crate::flow::{Endpoint, FlowKey, Protocol};
use crate::id::{Generation, NodeId};
use crate::packet::TcpFlags;
use crate::session::told::{self, Claim, Patience};
use crate::session::{Direction, Session, SessionState, tcp};
use crate::sync::event::{Event, EventKind};
use crate::sync::protocol::{Held, Place, Tables};
use crate::time::Millis;

/// What a worker says to its secondary.
#[derive(Clone, Copy, Debug)]
pub enum Notice {
    /// Of a session.
    Session(Event, Place),
    /// A session is missing.
    Miss(Direction, FlowKey),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It went through this session.
    Through(Session),
    /// There is no such session.
    Missed,
    /// No session could be opened.
    Refused,
}

/// The worker of one node.
pub struct Worker {
    pub node: NodeId,
    pub local: Endpoint,
    pub ports: u16,
    pub timeouts: Timeouts,
    pub holdoff_ms: u32,
    pub members: BTreeSet<u16>,
    pub ring: VecDeque<Notice>,
    pub ring_slots: usize,
    /// Places whose news found no room.
    pub dirty: BTreeSet<u32>,
    pub opens: bool,
}

impl Worker {
    fn say(&mut self, notice: Notice) {
        if self.ring.len() < self.ring_slots {
            self.ring.push_back(notice);
        } else if let Notice::Session(_, place) = notice {
            self.dirty.insert(place.0);
        }
    }

    fn tell(
        &mut self,
        kind: EventKind,
        place: Place,
        session: Session,
        now: Millis,
        tables: &mut ModelTables,
    ) {
        self.say(Notice::Session(Event { kind, session }, place));
        tables.set_last_sent(place, now);
    }

    /// A packet from a client.
    pub fn inbound(
        &mut self,
        key: FlowKey,
        flags: TcpFlags,
        server: Endpoint,
        now: Millis,
        tables: &mut ModelTables,
    ) -> Passed {
        let opens = key.protocol == Protocol::Udp || flags.opens();
        match tables.find(&key) {
            Some(held) if tcp::reopens(held.session.state, flags) => {
                let generation = held.session.generation.of_next_session();
                self.end_for_reopening(&held, tables);
                self.open(key, server, generation, now, tables)
            }
            Some(held) => self.forward(held, flags, now, tables),
            None if opens => self.open(key, server, Generation(1), now, tables),
            None => {
                self.say(Notice::Miss(Direction::Inbound, key));
                Passed::Missed
            }
        }
    }

    /// A packet from a real server.
    pub fn outbound(
        &mut self,
        key: FlowKey,
        flags: TcpFlags,
        now: Millis,
        tables: &mut ModelTables,
    ) -> Passed {
        match tables.find(&key) {
            Some(held) => self.forward(held, flags, now, tables),
            None => {
                self.say(Notice::Miss(Direction::Outbound, key));
                Passed::Missed
            }
        }
    }

    /// A closed session of the worker's own goes; one in the remote table is the secondary's to take out.
    fn end_for_reopening(&mut self, held: &Held, tables: &mut ModelTables) {
        if !tables.is_remote(held.place) {
            tables.take_out(held.place);
        }
    }

    fn open(
        &mut self,
        key: FlowKey,
        server: Endpoint,
        generation: Generation,
        now: Millis,
        tables: &mut ModelTables,
    ) -> Passed {
        if let Some(given_up) = tables.find_local(&key) {
            if given_up.session.owner != NodeId(0) {
                return Passed::Refused;
            }
            tables.take_out(given_up.place);
        }
        let is_free = |local: Endpoint, tables: &ModelTables| {
            let key = FlowKey { source: server, destination: local, protocol: key.protocol };
            tables.find(&key).is_none() && tables.find_local(&key).is_none()
        };
        let local = match server.address.is_v4() {
            true => self.local,
            false => v6(self.local),
        };
        let start = u64::from(key.source.port) * 7 + now.0;
        let mut candidates = (0..u64::from(self.ports))
            .map(|step| Endpoint { port: 2000 + ((start + step) % u64::from(self.ports)) as u16, ..local });
        let Some(local) = candidates.find(|local| is_free(*local, tables)).filter(|_| self.opens) else {
            return Passed::Refused;
        };
        let session = Session {
            protocol: key.protocol,
            client: key.source,
            vip: key.destination,
            local,
            server,
            owner: self.node,
            generation,
            state: tcp::initial_state(key.protocol),
            last_seen: now,
            last_sent: Millis(0),
        };
        let Some(place) = tables.insert_local(&session) else { return Passed::Refused };
        self.report_udp(place, session, now, tables);
        Passed::Through(session)
    }

    fn forward(&mut self, held: Held, flags: TcpFlags, now: Millis, tables: &mut ModelTables) -> Passed {
        let Held { place, direction, session } = held;
        let before = session.state;
        let own = session.owner == self.node;
        let mut after = tcp::next_state(before, direction, flags);
        if !own && direction == Direction::Outbound {
            // Only its owner, or who claims it, moves a session on; a server's packet claims nothing.
            after = before;
        }
        if session.last_seen < now {
            tables.touch(place, now);
        }
        if after != before {
            tables.set_state(place, after);
        }
        let mut session = Session { state: after, last_seen: now, ..session };
        if own {
            self.report_progress(place, before, session, now, tables);
        } else if direction == Direction::Inbound {
            let gone = !self.members.contains(&session.owner.0);
            let ends = tcp::is_closed(after);
            let holdoff_ms = if gone || after != before { 0 } else { self.holdoff_ms };
            match told::claim(session.last_sent, now, holdoff_ms, tcp::timeout_ms(after, &self.timeouts) / 2)
            {
                Claim::Due => {
                    session.generation = session.generation.of_next_owner();
                    session.owner = self.node;
                    tables.set_owner(place, session.owner, session.generation);
                    let claimed = Session { state: if ends { before } else { after }, ..session };
                    self.tell(EventKind::Claim, place, claimed, now, tables);
                    if ends {
                        self.tell(EventKind::Delete, place, session, now, tables);
                    }
                }
                Claim::HoldOff(word) => tables.set_last_sent(place, word),
            }
        }
        Passed::Through(session)
    }

    fn report_udp(&mut self, place: Place, session: Session, now: Millis, tables: &mut ModelTables) {
        if session.protocol == Protocol::Tcp {
            return;
        }
        match told::wait(session.last_sent, now, SyncAfter::Packets(1)) {
            Patience::Over => self.tell(EventKind::Upsert, place, session, now, tables),
            Patience::Lasts(word) => tables.set_last_sent(place, word),
        }
    }

    fn report_progress(
        &mut self,
        place: Place,
        before: SessionState,
        session: Session,
        now: Millis,
        tables: &mut ModelTables,
    ) {
        let known = told::is_told(session.last_sent);
        let kind = if session.state != before {
            match session.state {
                state if tcp::is_closed(state) && known => EventKind::Delete,
                state if tcp::is_closed(state) => return,
                SessionState::TcpEstablished => EventKind::Upsert,
                _ if known => EventKind::Refresh,
                _ => return,
            }
        } else {
            let half_timeout = u64::from(tcp::timeout_ms(session.state, &self.timeouts)) / 2;
            if !known || tcp::is_closed(session.state) || now.since(session.last_sent) < half_timeout {
                return;
            }
            EventKind::Refresh
        };
        self.tell(kind, place, session, now, tables);
    }

    /// Removes what was idle for too long from the worker's own table.
    pub fn age(&mut self, now: Millis, tables: &mut ModelTables, silent: bool) {
        let places: Vec<(Place, Session)> =
            tables.iter().filter(|(place, _)| !tables.is_remote(*place)).collect();
        for (place, session) in places {
            let own = session.owner == self.node;
            let margin = if own { 0 } else { self.timeouts.remote_margin_ms };
            let timeout = tcp::timeout_ms(session.state, &self.timeouts) + margin;
            if session.owner != NodeId(0) && session.last_seen + u64::from(timeout) > now {
                continue;
            }
            tables.take_out(place);
            if own && told::is_told(session.last_sent) && !tcp::is_closed(session.state) && !silent {
                self.say(Notice::Session(Event { kind: EventKind::Delete, session }, place));
            }
        }
    }
}

/// The IPv6 twin of an IPv4 endpoint.
pub fn v6(endpoint: Endpoint) -> Endpoint {
    let mut address = [0; 16];
    address[0] = 0xfd;
    address[12..].copy_from_slice(&endpoint.address.0[12..]);
    Endpoint { address: crate::flow::Address(address), ..endpoint }
}
