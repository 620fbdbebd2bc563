//! Reporting: what a worker tells its node's secondary about its own sessions.

use crate::counter::{Counter, CounterBlock};
use crate::id::RecordIndex;
use crate::session::Session;
use crate::shm::ring::Producer;
use crate::sync::event::{Event, EventKind};

/// The worker's end of its event ring. Never waits: what does not fit is marked, and the secondary reads it from the table.
pub struct Reporter {
    ring: Producer,
    slots_total: u32,
}

impl Reporter {
    /// The producer's end of `ring`, for a local table of `slots_total` records.
    pub fn new(ring: Producer, slots_total: u32) -> Reporter {
        Reporter { ring, slots_total }
    }

    /// Tells the secondary that `session`, in slot `index`, was set up, changed, refreshed or removed.
    ///
    /// If the ring is full the range of slots is marked dirty instead. The mark carries no deletes: a peer that missed one
    /// keeps the session until it ages.
    pub fn tell(&mut self, kind: EventKind, index: RecordIndex, session: &Session, counters: &CounterBlock) {
        let event = Event { kind, session: *session };
        if self.ring.try_push(&event.encode()) {
            counters.add(Counter::EventsSent, 1);
        } else {
            self.ring.dirty().mark(index.0, self.slots_total);
            counters.add(Counter::EventsDeferred, 1);
        }
    }
}
