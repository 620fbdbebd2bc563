//! Expiry: a sweep over a table that removes what was idle for too long, a few slots at a time.

use super::Session;
use super::table::TableWriter;
use crate::id::RecordIndex;
use crate::time::Millis;

/// Where a table's sweep stands. There are no timers: a session is removed when the sweep comes by after its deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sweep {
    next_slot: u32,
    invalid: u64,
}

impl Sweep {
    /// A sweep that begins at the first slot.
    pub const fn new() -> Sweep {
        Sweep { next_slot: 0, invalid: 0 }
    }

    /// Looks at up to `budget` slots and removes sessions whose `deadline` is before or at `now`; tells `expired` of each, and
    /// returns how many they were.
    pub fn poll(
        &mut self,
        now: Millis,
        table: &mut TableWriter,
        mut budget: u32,
        mut deadline: impl FnMut(&Session) -> Millis,
        mut expired: impl FnMut(RecordIndex, &Session),
    ) -> u32 {
        let mut count = 0;
        while let Some((index, session)) = self.next_expired(now, table, &mut budget, &mut deadline) {
            table.remove(index);
            expired(index, &session);
            count += 1;
        }
        count
    }

    /// Goes on to the next session whose `deadline` is before or at `now`; the caller removes it. `None` when `budget`, from
    /// which each slot looked at is taken, is used up.
    ///
    /// A record that means nothing is removed and counted. A time last seen that lies in the future is nonsense too, and
    /// would keep the session for ever: it becomes `now`.
    pub fn next_expired(
        &mut self,
        now: Millis,
        table: &mut TableWriter,
        budget: &mut u32,
        mut deadline: impl FnMut(&Session) -> Millis,
    ) -> Option<(RecordIndex, Session)> {
        while *budget > 0 {
            *budget -= 1;
            let index = RecordIndex(self.next_slot);
            self.next_slot = if self.next_slot + 1 >= table.capacity() { 0 } else { self.next_slot + 1 };
            if !table.is_live(index) {
                continue;
            }
            match table.session(index) {
                None => {
                    self.invalid += 1;
                    table.remove(index);
                }
                Some(session) if session.last_seen > now => table.touch(index, now),
                Some(session) if deadline(&session) <= now => return Some((index, session)),
                Some(_) => {}
            }
        }
        None
    }

    /// Records that were removed because they meant nothing.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }
}
