//! Balancing: from a packet's headers to its session, and the packet on its way.

use super::{DropReason, Pending, Pipeline, Verdict};
use crate::config::SyncAfter;
use crate::counter::Counter;
use crate::flow::{Endpoint, FlowHash, FlowKey, Protocol};
use crate::id::{Generation, NodeId, RecordIndex};
use crate::nat;
use crate::packet::ParsedFlow;
use crate::service::Pick;
use crate::session::table::{InsertError, Lookup};
use crate::session::told::{self, Claim, Patience};
use crate::session::{Direction, Session, SessionState, tcp};
use crate::steering::Target;
use crate::sync::ageing;
use crate::sync::event::{EventKind, Home};
use crate::time::Millis;

/// Table slots looked at for expiry in one poll: bounded, so that no burst waits for it.
const SWEEP_SLOTS: u32 = 64;

/// A packet's session: where it stands and what it says.
pub(super) struct Found {
    pub(super) home: Home,
    pub(super) index: RecordIndex,
    pub(super) direction: Direction,
    pub(super) session: Session,
}

impl Pipeline {
    /// Finds or makes the packet's session and rewrites the frame.
    pub(super) fn balance(&mut self, now: Millis, packet: &Pending, frame: &mut [u8]) -> Verdict {
        let Pending { target, ref flow, hash, .. } = *packet;
        let outcome = match self.find(hash, &flow.key) {
            Some(found) if !tcp::reopens(found.session.state, flow.tcp_flags) => {
                self.forward(now, flow, frame, found)
            }
            Some(Found { home, index, session, .. }) => {
                if home == Home::Local {
                    self.end(index);
                }
                // Newer than what the peers know under this key.
                let generation = session.generation.of_next_session();
                self.open(now, flow, hash, generation, frame)
            }
            None => match target {
                Target::Vip => self.open(now, flow, hash, Generation(1), frame),
                Target::Local => {
                    self.report_miss(now, Direction::Outbound, flow);
                    Err(DropReason::NoSession)
                }
                Target::Other => return Verdict::Punt,
            },
        };
        match outcome {
            Ok(()) => Verdict::Transmit,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Looks in the worker's own table, then in the remote one. A session that the secondary has given up is none.
    fn find(&self, hash: FlowHash, key: &FlowKey) -> Option<Found> {
        if let Lookup::Hit { index, direction, session } = self.parts.local.lookup_hashed(hash, key)
            && session.owner != NodeId(0)
        {
            return Some(Found { home: Home::Local, index, direction, session });
        }
        match self.parts.remote.as_ref()?.lookup(key) {
            Lookup::Hit { index, direction, session } => {
                Some(Found { home: Home::Remote, index, direction, session })
            }
            Lookup::Miss => None,
            Lookup::Contended => {
                self.count(Counter::LookupContended);
                None
            }
        }
    }

    /// Sends a packet through its session and moves the session's state on.
    fn forward(
        &mut self,
        now: Millis,
        flow: &ParsedFlow,
        frame: &mut [u8],
        found: Found,
    ) -> Result<(), DropReason> {
        self.rewrite(flow, frame, found.direction, &found.session)?;
        let Found { home, index, direction, session } = found;
        let before = session.state;
        let mut after = tcp::next_state(before, direction, flow.tcp_flags);
        let own = session.owner == self.node;
        if !own && direction == Direction::Outbound && self.parts.sharing.is_some() {
            // Only its owner, or who claims it, moves a session on; a server's packet claims nothing.
            after = before;
        }
        match (home, &self.parts.remote) {
            (Home::Local, _) => {
                self.count(Counter::LocalHits);
                self.parts.local.touch(index, now);
                if after != before {
                    self.parts.local.set_state(index, after);
                }
            }
            (Home::Remote, Some(remote)) => {
                self.count(Counter::RemoteHits);
                remote.touch(index, now);
                if after != before {
                    remote.set_state(index, after);
                }
            }
            (Home::Remote, None) => {}
        }
        let found = Found { session: Session { state: after, last_seen: now, ..session }, ..found };
        if own {
            self.report_progress(now, before, &found);
        } else if direction == Direction::Inbound {
            self.consider_claim(now, before, &found);
        }
        Ok(())
    }

    /// Takes a session over from another node if its client's packets come here now: at once if the owner is gone or the
    /// packet moves the session on, otherwise when they have kept coming.
    pub(super) fn consider_claim(&mut self, now: Millis, before: SessionState, found: &Found) {
        let Some(sharing) = &self.parts.sharing else { return };
        let Found { home, index, session, .. } = *found;
        let ends = tcp::is_closed(session.state);
        // Its owner sees nothing of a FIN that came here, and would keep the session for as long as an open one.
        let at_once = session.state != before || !sharing.members.contains(session.owner);
        let holdoff_ms = if at_once { 0 } else { sharing.claim_holdoff_ms };
        let pause_ms = tcp::timeout_ms(session.state, &self.timeouts) / 2;
        if let Claim::HoldOff(word) = told::claim(session.last_sent, now, holdoff_ms, pause_ms) {
            self.set_last_sent(home, index, word);
            return;
        }
        let from = (session.owner, session.generation);
        let to = (self.node, session.generation.of_next_owner());
        let claimed = match (home, &self.parts.remote) {
            (Home::Local, _) => self.parts.local.claim(index, from, to),
            (Home::Remote, Some(remote)) => remote.claim(index, from, to),
            (Home::Remote, None) => false,
        };
        if !claimed {
            return;
        }
        self.count(Counter::SessionsClaimed);
        let session = Session { owner: to.0, generation: to.1, ..session };
        // Claimed as it was if it ends: the old owner must know which session that is.
        let claimed = Session { state: if ends { before } else { session.state }, ..session };
        self.report(now, EventKind::Claim, home, index, &claimed);
        if ends {
            self.report(now, EventKind::Delete, home, index, &session);
        }
    }

    fn set_last_sent(&self, home: Home, index: RecordIndex, when: Millis) {
        match (home, &self.parts.remote) {
            (Home::Local, _) => self.parts.local.set_last_sent(index, when),
            (Home::Remote, Some(remote)) => remote.set_last_sent(index, when),
            (Home::Remote, None) => {}
        }
    }

    /// Makes a session for a packet that may open one, and sends it through.
    fn open(
        &mut self,
        now: Millis,
        flow: &ParsedFlow,
        hash: FlowHash,
        generation: Generation,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        let FlowKey { source: client, destination: vip, protocol } = flow.key;
        let service = self.parts.services.lookup(vip, protocol).ok_or(DropReason::NoService)?;
        if !flow.opens() {
            self.report_miss(now, Direction::Inbound, flow);
            return Err(DropReason::NoSession);
        }
        if self.parts.sharing.as_mut().is_some_and(|sharing| !sharing.gate.is_open(now)) {
            return Err(DropReason::NotReady);
        }
        if let Lookup::Hit { index, session, .. } = self.parts.local.lookup_hashed(hash, &flow.key)
            && session.owner == NodeId(0)
        {
            self.end(index);
        }
        let Pick { position, endpoint: server } =
            self.schedulers.pick(service).ok_or(DropReason::NoRealServer)?;
        let session = Session {
            protocol,
            client,
            vip,
            local: self.free_local_endpoint(protocol, hash, server).ok_or(DropReason::NoLocalPort)?,
            server,
            owner: self.node,
            generation,
            state: tcp::initial_state(protocol),
            last_seen: now,
            last_sent: Millis(0),
        };
        self.rewrite(flow, frame, Direction::Inbound, &session)?;
        let index = self.parts.local.insert(&session).map_err(|error| match error {
            InsertError::Full => DropReason::TableFull,
            InsertError::Exists(_) => DropReason::NoLocalPort,
        })?;
        self.count(Counter::SessionsCreated);
        self.parts.tally.add(service, position);
        if protocol == Protocol::Udp {
            self.report_when_old_enough(now, Home::Local, index, &session);
        }
        Ok(())
    }

    /// A local endpoint that no session uses towards `server`: neither one of this worker's, nor one that another node
    /// reported (it may have been this node's before).
    fn free_local_endpoint(&self, protocol: Protocol, hash: FlowHash, server: Endpoint) -> Option<Endpoint> {
        self.local_ports.candidates(server.address, hash.0).find(|&local| {
            let key = FlowKey { source: server, destination: local, protocol };
            matches!(self.parts.local.lookup(&key), Lookup::Miss)
                && self.parts.remote.as_ref().is_none_or(|remote| matches!(remote.lookup(&key), Lookup::Miss))
        })
    }

    /// Rewrites the frame for the way that it goes through `session`, towards the next hop.
    fn rewrite(
        &mut self,
        flow: &ParsedFlow,
        frame: &mut [u8],
        direction: Direction,
        session: &Session,
    ) -> Result<(), DropReason> {
        let (source, destination) = match direction {
            Direction::Inbound => (session.local, session.server),
            Direction::Outbound => (session.vip, session.client),
        };
        if flow.total_len > u32::from(self.parts.mtu) {
            return Err(DropReason::TooBig);
        }
        let next_hop = self.next_hop(destination.address)?;
        Ok(nat::rewrite(frame, flow, source, destination, self.parts.mac, next_hop)?)
    }

    /// Tells the secondary what the peers should know after a packet: a finished handshake, a changed state, the end,
    /// or that a session whose timeout is half over is still in use.
    fn report_progress(&mut self, now: Millis, before: SessionState, found: &Found) {
        let Found { home, index, ref session, .. } = *found;
        let known = told::is_told(session.last_sent);
        let kind = if session.state != before {
            match session.state {
                state if tcp::is_closed(state) && known => EventKind::Delete,
                state if tcp::is_closed(state) => return,
                SessionState::TcpEstablished => EventKind::Upsert,
                _ if known => EventKind::Refresh,
                _ => return self.report_when_old_enough(now, home, index, session),
            }
        } else {
            let half_timeout = u64::from(tcp::timeout_ms(session.state, &self.timeouts)) / 2;
            if !known {
                return self.report_when_old_enough(now, home, index, session);
            }
            if tcp::is_closed(session.state) || now.since(session.last_sent) < half_timeout {
                return;
            }
            EventKind::Refresh
        };
        self.report(now, kind, home, index, session);
    }

    /// Tells of a session that was not told before: of a UDP session if its service says that it is old or busy enough, of a TCP
    /// session if its handshake is done.
    fn report_when_old_enough(&mut self, now: Millis, home: Home, index: RecordIndex, session: &Session) {
        if session.protocol == Protocol::Tcp {
            // The packet that finished the handshake was a FIN, or the worker that claimed it died before it noted that.
            if tcp::is_past_handshake(session.state) && !tcp::is_closed(session.state) {
                self.report(now, EventKind::Upsert, home, index, session);
            }
            return;
        }
        let service = self.parts.services.lookup(session.vip, session.protocol);
        let after = service.and_then(|service| self.sync_after.get(usize::from(service.0)).copied());
        match told::wait(session.last_sent, now, after.unwrap_or(SyncAfter::Packets(1))) {
            Patience::Over => self.report(now, EventKind::Upsert, home, index, session),
            Patience::Lasts(word) => self.set_last_sent(home, index, word),
        }
    }

    /// Puts an event into the ring, if this node is the one to report the session.
    fn report(&mut self, now: Millis, kind: EventKind, home: Home, index: RecordIndex, session: &Session) {
        let Some(reporter) = &mut self.parts.reporter else { return };
        if session.owner != self.node {
            return;
        }
        reporter.tell(kind, home, index, session, self.parts.counters);
        self.set_last_sent(home, index, now);
    }

    /// Tells the secondary that a TCP packet which opens nothing found no session. A SYN to a local address is none of a session's:
    /// servers open no connections through the balancer.
    fn report_miss(&mut self, now: Millis, direction: Direction, flow: &ParsedFlow) {
        if flow.opens() {
            return;
        }
        if let (Some(_), Some(reporter), Protocol::Tcp) =
            (&self.parts.sharing, &mut self.parts.reporter, flow.key.protocol)
        {
            reporter.miss(now, direction, flow.key, self.parts.counters);
        }
    }

    /// Removes sessions that were idle for too long. Looks at a bounded number of slots a call.
    pub fn age(&mut self, now: Millis) {
        let (timeouts, node) = (self.timeouts, self.node);
        let deadline = |session: &Session| match session.owner {
            // Given up.
            NodeId(0) => Millis(0),
            owner if owner == node => {
                session.last_seen + u64::from(tcp::timeout_ms(session.state, &timeouts))
            }
            // Its owner tells when it ends; this is for the one whose owner is gone.
            _ => ageing::remote_deadline(session, &timeouts),
        };
        let mut budget = SWEEP_SLOTS;
        while let Some((index, session)) =
            self.sweep.next_expired(now, &mut self.parts.local, &mut budget, deadline)
        {
            let told = told::is_told(session.last_sent) && !tcp::is_closed(session.state);
            self.end(index);
            if told && self.parts.sharing.is_some() {
                self.report(now, EventKind::Delete, Home::Local, index, &session);
            }
        }
    }

    /// Removes a session that has ended. Its close was told when it was seen.
    fn end(&mut self, index: RecordIndex) {
        self.parts.local.remove(index);
        self.count(Counter::SessionsExpired);
    }

    fn count(&self, counter: Counter) {
        self.parts.counters.add(counter, 1);
    }
}
