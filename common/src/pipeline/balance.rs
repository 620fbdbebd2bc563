//! Balancing: from a packet's headers to its session, and the packet on its way.

use super::{DropReason, Pending, Pipeline, Verdict};
use crate::counter::Counter;
use crate::flow::{Endpoint, FlowHash, FlowKey, Protocol};
use crate::id::{Generation, RecordIndex};
use crate::nat;
use crate::packet::ParsedFlow;
use crate::service::Pick;
use crate::session::table::{InsertError, Lookup};
use crate::session::{Direction, Session, SessionState, tcp};
use crate::steering::Target;
use crate::sync::event::EventKind;
use crate::time::Millis;

/// Table slots looked at for expiry in one poll: bounded, so that no burst waits for it.
const SWEEP_SLOTS: u32 = 64;

/// The table that a session was found in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Local,
    Remote,
}

/// A packet's session: where it stands and what it says.
struct Found {
    home: Home,
    index: RecordIndex,
    direction: Direction,
    session: Session,
}

impl Pipeline {
    /// Finds or makes the packet's session and rewrites the frame.
    pub(super) fn balance(&mut self, now: Millis, packet: &Pending, frame: &mut [u8]) -> Verdict {
        let Pending { target, ref flow, hash, .. } = *packet;
        let outcome = match self.find(hash, &flow.key) {
            Some(found) if !tcp::reopens(found.session.state, flow.tcp_flags) => {
                self.forward(now, flow, frame, found)
            }
            Some(Found { home: Home::Local, index, .. }) => {
                self.end(index);
                self.open(now, flow, hash, frame)
            }
            Some(_) => self.open(now, flow, hash, frame),
            None => match target {
                Target::Vip => self.open(now, flow, hash, frame),
                Target::Local => Err(DropReason::NoSession),
                Target::Other => return Verdict::Punt,
            },
        };
        match outcome {
            Ok(()) => Verdict::Transmit,
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Looks in the worker's own table, then in the remote one.
    fn find(&self, hash: FlowHash, key: &FlowKey) -> Option<Found> {
        if let Lookup::Hit { index, direction, session } = self.parts.local.lookup_hashed(hash, key) {
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
        let before = found.session.state;
        let after = tcp::next_state(before, found.direction, flow.tcp_flags);
        match (found.home, &self.parts.remote) {
            (Home::Local, _) => {
                self.count(Counter::LocalHits);
                self.parts.local.touch(found.index, now);
                if after != before {
                    self.parts.local.set_state(found.index, after);
                }
                let session = Session { state: after, last_seen: now, ..found.session };
                self.report_progress(now, found.index, before, session);
            }
            (Home::Remote, Some(remote)) => {
                self.count(Counter::RemoteHits);
                remote.touch(found.index, now);
                if after != before {
                    remote.set_state(found.index, after);
                }
            }
            (Home::Remote, None) => {}
        }
        Ok(())
    }

    /// Makes a session for a packet that may open one, and sends it through.
    fn open(
        &mut self,
        now: Millis,
        flow: &ParsedFlow,
        hash: FlowHash,
        frame: &mut [u8],
    ) -> Result<(), DropReason> {
        let FlowKey { source: client, destination: vip, protocol } = flow.key;
        let service = self.parts.services.lookup(vip, protocol).ok_or(DropReason::NoService)?;
        if !flow.opens() {
            return Err(DropReason::NoSession);
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
            generation: Generation(1),
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
            self.report(now, EventKind::Upsert, index, &session);
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
    fn report_progress(&mut self, now: Millis, index: RecordIndex, before: SessionState, session: Session) {
        let known = session.last_sent != Millis(0);
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
        self.report(now, kind, index, &session);
    }

    /// Puts an event into the ring, if this node is the one to report the session.
    fn report(&mut self, now: Millis, kind: EventKind, index: RecordIndex, session: &Session) {
        let Some(reporter) = &mut self.parts.reporter else { return };
        if session.owner != self.node {
            return;
        }
        reporter.tell(kind, index, session, self.parts.counters);
        self.parts.local.set_last_sent(index, now);
    }

    /// Removes sessions that were idle for too long. Looks at a bounded number of slots a call.
    pub fn age(&mut self, now: Millis) {
        let timeouts = self.timeouts;
        let deadline =
            |session: &Session| session.last_seen + u64::from(tcp::timeout_ms(session.state, &timeouts));
        let mut budget = SWEEP_SLOTS;
        while let Some((index, _)) =
            self.sweep.next_expired(now, &mut self.parts.local, &mut budget, deadline)
        {
            self.end(index);
        }
    }

    /// Removes a session that has ended. Its close was told when it was seen; of an idle one nothing is told: it may live on
    /// another node by now, and where it does not, it ages just as here.
    fn end(&mut self, index: RecordIndex) {
        self.parts.local.remove(index);
        self.count(Counter::SessionsExpired);
    }

    fn count(&self, counter: Counter) {
        self.parts.counters.add(counter, 1);
    }
}
