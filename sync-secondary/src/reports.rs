//! The workers' reports: events from their rings, and whole ranges of their tables when a ring was full.
//!
//! An event stays in its ring until the datagram that carries it was handed on, so a secondary that is killed reads it again.
//! What is told twice changes nothing at the peers.

use baton_common::counter::{Counter, CounterBlock};
use baton_common::id::{RecordIndex, WorkerId};
use baton_common::shm::dirty::DirtyRange;
use baton_common::shm::ring::Consumer;
use baton_common::sync::event::{EVENT_BYTES, Home, Notice};
use baton_common::sync::protocol::{Place, Protocol};
use baton_common::sync::tables::SharedTables;
use baton_common::sync::transmit::Transmit;
use baton_common::time::Micros;

/// Events read from one ring in a turn.
const EVENTS_PER_TURN: u32 = 128;

/// Table slots looked at in a turn to tell a range again.
const SLOTS_PER_TURN: u32 = 128;

/// Most events of one ring that wait to be committed; never more than a quarter of the ring.
const UNCOMMITTED_MAX: u32 = 512;

/// How long to leave a link alone that had no room. Microseconds. What it did not take is asked for by the peers.
const PAUSE_US: u64 = 1000;

/// Whom reports go to: the protocol, with the tables and the way out that it works on.
pub struct Listener<'l, X> {
    pub protocol: &'l mut Protocol<'static>,
    pub tables: &'l mut SharedTables,
    pub out: &'l mut X,
}

/// A range that is being told again.
struct Resend {
    range: DirtyRange,
    next_slot: u32,
}

/// One worker's ring.
pub struct Source {
    worker: WorkerId,
    events: Consumer,
    /// Slots of the worker's table.
    table_slots: u32,
    /// Events read and not committed.
    uncommitted: u32,
    uncommitted_max: u32,
    /// Whether the ring was empty when it was read last.
    drained: bool,
    resend: Option<Resend>,
}

impl Source {
    /// The ring of `worker`, which has `slots` slots, and whose table has `table_slots`.
    pub fn new(worker: WorkerId, events: Consumer, slots: u32, table_slots: u32) -> Source {
        let uncommitted_max = (slots / 4).clamp(1, UNCOMMITTED_MAX);
        Source { worker, events, table_slots, uncommitted: 0, uncommitted_max, drained: false, resend: None }
    }

    /// Passes notices on, a bounded number of them; says whether there were any.
    fn read<X: Transmit>(
        &mut self,
        now: Micros,
        listener: &mut Listener<'_, X>,
        counters: &CounterBlock,
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
            if length != EVENT_BYTES || !self.pass_on(&slot, now, listener) {
                counters.add(Counter::EventsInvalid, 1);
            }
        }
        let skipped = self.events.invalid() - invalid_before;
        counters.add(Counter::EventsInvalid, skipped);
        count = count.saturating_add(skipped.min(u32::MAX.into()) as u32);
        self.uncommitted = self.uncommitted.saturating_add(count);
        count > 0
    }

    /// Passes one notice on; `false` if it is none.
    fn pass_on<X: Transmit>(&self, slot: &[u8], now: Micros, listener: &mut Listener<'_, X>) -> bool {
        let Listener { protocol, tables, out } = listener;
        match Notice::decode(slot) {
            Ok(Notice::Session { event, home, slot }) => {
                let place = match home {
                    Home::Local => tables.place_of(self.worker, slot),
                    Home::Remote => Some(Place(slot.0)),
                };
                let Some(place) = place else { return false };
                protocol.on_event(&event, place, now, *tables, *out);
            }
            Ok(Notice::Miss { direction, key }) => protocol.on_miss(direction, &key, now, *tables, *out),
            Err(_) => return false,
        }
        true
    }

    fn commit(&mut self) {
        if self.uncommitted > 0 {
            self.events.commit();
            self.uncommitted = 0;
        }
    }

    /// The range to tell again, if there is one.
    fn resend(&mut self) -> Option<&mut Resend> {
        if self.resend.is_none() {
            let range = self.events.dirty().take_next()?;
            self.resend = Some(Resend { range, next_slot: range.slots(self.table_slots).start });
        }
        self.resend.as_mut()
    }

    /// Tells the next piece of a range again; whether there was one.
    fn tell_again<X: Transmit>(
        &mut self,
        now: Micros,
        listener: &mut Listener<'_, X>,
        counters: &CounterBlock,
    ) -> bool {
        let (worker, table_slots) = (self.worker, self.table_slots);
        let Some(resend) = self.resend() else { return false };
        let end = resend.range.slots(table_slots).end;
        let count = SLOTS_PER_TURN.min(end.saturating_sub(resend.next_slot));
        let Listener { protocol, tables, out } = listener;
        if let Some(first) = tables.place_of(worker, RecordIndex(resend.next_slot)) {
            protocol.audit(first, count, now, *tables, *out);
        }
        resend.next_slot += count;
        if resend.next_slot >= end {
            let range = resend.range;
            self.resend = None;
            self.events.dirty().finish(range);
            counters.add(Counter::RangesResent, 1);
        }
        true
    }
}

/// All workers of one NUMA node.
pub struct Reports {
    sources: Vec<Source>,
    paused_until: Micros,
    counters: &'static CounterBlock,
}

impl Reports {
    /// The reports of `sources`.
    pub fn new(sources: Vec<Source>, counters: &'static CounterBlock) -> Reports {
        Reports { sources, paused_until: Micros(0), counters }
    }

    /// Passes reports on, a bounded number of them; says whether there was anything. A link that had no room is left alone
    /// for a while: the workers' rings fill, and then their tables are gone through.
    ///
    /// Ranges are told when a ring is empty: an event is never kept waiting by a range, and as the table is newer than any
    /// event that was read, no peer is told an older state after a newer one.
    pub fn poll<X: Transmit>(&mut self, now: Micros, listener: &mut Listener<'_, X>) -> bool {
        if listener.protocol.take_congested() {
            self.paused_until = Micros(now.0 + PAUSE_US);
        }
        if now < self.paused_until {
            return false;
        }
        let mut work = false;
        for source in &mut self.sources {
            work |= source.read(now, listener, self.counters);
            if source.drained {
                work |= source.tell_again(now, listener, self.counters);
            }
        }
        if self.sources.iter().any(|source| source.uncommitted >= source.uncommitted_max) {
            listener.protocol.flush(listener.out);
        }
        if listener.protocol.next_flush().is_none() {
            self.commit();
        }
        work
    }

    /// Notes that everything that was read has been sent.
    pub fn commit(&mut self) {
        for source in &mut self.sources {
            source.commit();
        }
    }
}

#[cfg(test)]
mod tests;
