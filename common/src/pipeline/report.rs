//! Reporting: what a worker tells its node's secondary about its own sessions.

use crate::counter::{Counter, CounterBlock};
use crate::flow::FlowKey;
use crate::id::RecordIndex;
use crate::session::{Direction, Session};
use crate::shm::ring::Producer;
use crate::sync::event::{Event, EventKind, Home, Notice};
use crate::time::Millis;

/// Misses told in a millisecond. A secondary asks its peers for fewer; what is more would push sessions out of the ring.
const MISSES_PER_MS: u32 = 4;

/// The worker's end of its event ring. Never waits: what does not fit is marked, and the secondary reads it from the table.
pub struct Reporter {
    ring: Producer,
    slots_total: u32,
    /// When a miss was last told, and how many in that millisecond.
    missed: (Millis, u32),
}

impl Reporter {
    /// The producer's end of `ring`, for a local table of `slots_total` records.
    pub fn new(ring: Producer, slots_total: u32) -> Reporter {
        Reporter { ring, slots_total, missed: (Millis(0), 0) }
    }

    /// Tells the secondary that `session`, in slot `index` of a table, was set up, taken over, changed, refreshed or removed.
    ///
    /// If the ring is full the range of slots is marked dirty instead, and the secondary compares it with what it has told. Of the
    /// remote table nothing is marked: the secondary goes through all of that every few seconds.
    pub fn tell(
        &mut self,
        kind: EventKind,
        home: Home,
        index: RecordIndex,
        session: &Session,
        counters: &CounterBlock,
    ) {
        let notice = Notice::Session { event: Event { kind, session: *session }, home, slot: index };
        if self.ring.try_push(&notice.encode()) {
            counters.add(Counter::EventsSent, 1);
            return;
        }
        if home == Home::Local {
            self.ring.dirty().mark(index.0, self.slots_total);
        }
        counters.add(Counter::EventsDeferred, 1);
    }

    /// Tells the secondary that a packet which opens nothing found no session. So many a millisecond, and none to a full ring: the
    /// packet will come again.
    pub fn miss(&mut self, now: Millis, direction: Direction, key: FlowKey, counters: &CounterBlock) {
        if self.missed.0 != now {
            self.missed = (now, 0);
        }
        self.missed.1 += u32::from(self.missed.1 < MISSES_PER_MS + 1);
        let told =
            self.missed.1 <= MISSES_PER_MS && self.ring.try_push(&Notice::Miss { direction, key }.encode());
        counters.add(if told { Counter::MissesTold } else { Counter::MissesNotTold }, 1);
    }
}
