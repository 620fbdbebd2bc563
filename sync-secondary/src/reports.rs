//! The workers' reports: events from their rings, and whole ranges of their tables when a ring was full.
//!
//! An event stays in its ring until the datagram that carries it was handed on, so a secondary that is killed, or finds no
//! room to send, reads it again. What is sent twice changes nothing at the peers.

use baton_common::counter::{Counter, CounterBlock};
use baton_common::id::{NodeId, WorkerId};
use baton_common::session::table::SessionTable;
use baton_common::session::{Session, SessionState};
use baton_common::shm::dirty::DirtyRange;
use baton_common::shm::ring::Consumer;
use baton_common::sync::event::{EVENT_BYTES, Event, EventKind};
use baton_common::sync::sender::{Sender, Transmit};
use baton_common::sync::wire::StreamId;
use baton_common::time::Micros;

/// Events read from one ring in a turn.
const EVENTS_PER_TURN: u32 = 128;

/// Table slots looked at in a turn to send a range again.
const SLOTS_PER_TURN: u32 = 128;

/// Most events of one ring that wait to be committed; never more than a quarter of the ring.
const UNCOMMITTED_MAX: u32 = 512;

/// How long to leave a link alone that had no room. Microseconds.
const PAUSE_US: u64 = 1000;

/// A range that is being sent again.
struct Resend {
    range: DirtyRange,
    next_slot: u32,
}

/// One worker's ring.
pub struct Source {
    worker: WorkerId,
    events: Consumer,
    /// Events read and not committed.
    uncommitted: u32,
    uncommitted_max: u32,
    /// Whether the ring was empty when it was read last.
    drained: bool,
    resend: Option<Resend>,
}

impl Source {
    /// The ring of `worker`, which has `slots` slots.
    pub fn new(worker: WorkerId, events: Consumer, slots: u32) -> Source {
        let uncommitted_max = (slots / 4).clamp(1, UNCOMMITTED_MAX);
        Source { worker, events, uncommitted: 0, uncommitted_max, drained: false, resend: None }
    }

    /// Passes events on, a bounded number of them; says whether there were any.
    fn read(
        &mut self,
        now: Micros,
        sender: &mut Sender<'_>,
        counters: &CounterBlock,
        out: &mut impl Transmit,
    ) -> bool {
        let mut slot = [0; EVENT_BYTES];
        let invalid_before = self.events.invalid();
        let mut count = 0;
        self.drained = false;
        while count < EVENTS_PER_TURN.min(self.uncommitted_max) {
            let Some(length) = self.events.read(&mut slot) else {
                self.drained = true;
                break;
            };
            count += 1;
            match Event::decode(&slot) {
                Ok(event) if length == EVENT_BYTES => sender.push(StreamId::CHANGES, &event, now, out),
                Ok(_) | Err(_) => counters.add(Counter::EventsInvalid, 1),
            }
        }
        let skipped = self.events.invalid() - invalid_before;
        counters.add(Counter::EventsInvalid, skipped);
        count = count.saturating_add(skipped.min(u32::MAX.into()) as u32);
        self.uncommitted = self.uncommitted.saturating_add(count);
        count > 0
    }

    fn commit(&mut self) {
        if self.uncommitted > 0 {
            self.events.commit();
            self.uncommitted = 0;
        }
    }

    fn rewind(&mut self) {
        self.events.rewind();
        self.uncommitted = 0;
        self.drained = false;
    }

    /// The range to send again, if there is one.
    fn resend(&mut self, slots_total: u32) -> Option<&mut Resend> {
        if self.resend.is_none() {
            let range = self.events.dirty().take_next()?;
            self.resend = Some(Resend { range, next_slot: range.slots(slots_total).start });
        }
        self.resend.as_mut()
    }
}

/// All workers of one NUMA node.
pub struct Reports {
    sources: Vec<Source>,
    node: NodeId,
    paused_until: Micros,
    counters: &'static CounterBlock,
}

impl Reports {
    /// The reports of `sources`, whose sessions belong to `node`.
    pub fn new(sources: Vec<Source>, node: NodeId, counters: &'static CounterBlock) -> Reports {
        Reports { sources, node, paused_until: Micros(0), counters }
    }

    /// Passes reports on to the sender, a bounded number of them, and sends what is due; says whether there was anything.
    /// `tables` are all workers' tables, by their numbers.
    pub fn poll(
        &mut self,
        now: Micros,
        tables: &[SessionTable],
        sender: &mut Sender<'_>,
        out: &mut impl Transmit,
    ) -> bool {
        let full_before = self.counters.value(Counter::SyncTxFull);
        let mut work = false;
        if now >= self.paused_until {
            for source in &mut self.sources {
                work |= source.read(now, sender, self.counters, out);
            }
        }
        if self.sources.iter().any(|source| source.uncommitted >= source.uncommitted_max) {
            sender.flush_all(out);
        } else {
            sender.flush_due(now, out);
        }
        if self.counters.value(Counter::SyncTxFull) != full_before {
            self.pause(now);
            return false;
        }
        if sender.next_flush().is_none() {
            self.commit();
        }
        if now >= self.paused_until {
            work |= self.resend(now, tables, sender, out);
        }
        work
    }

    /// Sends everything that was read, before the end.
    pub fn finish(&mut self, sender: &mut Sender<'_>, out: &mut impl Transmit) {
        let full_before = self.counters.value(Counter::SyncTxFull);
        sender.flush_all(out);
        if self.counters.value(Counter::SyncTxFull) == full_before {
            self.commit();
        }
    }

    fn commit(&mut self) {
        for source in &mut self.sources {
            source.commit();
        }
    }

    /// There was no room to send: what is not committed comes again.
    fn pause(&mut self, now: Micros) {
        for source in &mut self.sources {
            source.rewind();
        }
        self.paused_until = Micros(now.0 + PAUSE_US);
    }

    /// Sends the next piece of a range of each worker whose ring is empty: events are never kept waiting by ranges.
    ///
    /// The table is read after the events that are older, and they are sent before it is; so no peer is told an older state
    /// after a newer one.
    fn resend(
        &mut self,
        now: Micros,
        tables: &[SessionTable],
        sender: &mut Sender<'_>,
        out: &mut impl Transmit,
    ) -> bool {
        let (node, counters) = (self.node, self.counters);
        let full_before = counters.value(Counter::SyncTxFull);
        let mut work = false;
        for source in self.sources.iter_mut().filter(|source| source.drained) {
            let Some(table) = tables.get(usize::from(source.worker.0)) else { continue };
            let Some(resend) = source.resend(table.capacity()) else { continue };
            work = true;
            let end = resend.range.slots(table.capacity()).end;
            let budget = SLOTS_PER_TURN.min(end.saturating_sub(resend.next_slot));
            sender.flush_all(out);
            let scanned = table.scan(resend.next_slot, budget, |_, session| {
                if is_reported(&session, node) {
                    sender.push(StreamId::RANGES, &Event { kind: EventKind::Upsert, session }, now, out);
                }
            });
            sender.flush_all(out);
            if counters.value(Counter::SyncTxFull) != full_before {
                self.pause(now);
                return false;
            }
            resend.next_slot = scanned.next_slot;
            if resend.next_slot >= end {
                let range = resend.range;
                source.resend = None;
                source.events.dirty().finish(range);
                counters.add(Counter::RangesResent, 1);
            }
        }
        work
    }
}

/// Whether the peers are to know a session: it is this node's, past the handshake and not at its end.
fn is_reported(session: &Session, node: NodeId) -> bool {
    use SessionState::*;
    let worth = match session.state {
        UdpOneWay | UdpTwoWay | TcpEstablished | TcpFinFromClient | TcpFinFromServer => true,
        TcpSynReceived | TcpSynAcked | TcpTimeWait | TcpReset => false,
    };
    worth && session.owner == node
}

#[cfg(test)]
mod tests;
