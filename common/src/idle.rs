//! Idling: what a polling thread does when there was nothing to do.

use std::time::Duration;

use crate::config::Idle;

/// First sleep after too many empty polls.
const SLEEP_FIRST: Duration = Duration::from_micros(20);

/// Counts empty polls of one thread and sleeps when the configuration says so.
///
/// The first sleep is short and each further one twice as long, up to the configured longest: a busy thread never sleeps,
/// one with a packet now and then answers within tens of microseconds, an idle one costs next to nothing.
#[derive(Debug)]
pub struct Backoff {
    idle: Idle,
    empty_polls: u32,
    sleep: Duration,
}

impl Backoff {
    /// A thread that has just been busy.
    pub fn new(idle: Idle) -> Backoff {
        Backoff { idle, empty_polls: 0, sleep: SLEEP_FIRST }
    }

    /// To be called after every poll; sleeps if it is time to.
    #[inline]
    pub fn after_poll(&mut self, found_work: bool) {
        if let Some(duration) = self.next_sleep(found_work) {
            std::thread::sleep(duration);
        }
    }

    /// How long to sleep after this poll.
    fn next_sleep(&mut self, found_work: bool) -> Option<Duration> {
        if found_work {
            self.empty_polls = 0;
            self.sleep = SLEEP_FIRST;
            return None;
        }
        let Idle::Adaptive { polls_min, sleep_us_max } = self.idle else {
            std::hint::spin_loop();
            return None;
        };
        self.empty_polls = self.empty_polls.saturating_add(1);
        if self.empty_polls < polls_min {
            return None;
        }
        let longest = Duration::from_micros(sleep_us_max.into());
        let sleep = self.sleep.min(longest);
        self.sleep = (self.sleep * 2).min(longest);
        Some(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_poller_never_sleeps() {
        let mut backoff = Backoff::new(Idle::Busy);
        assert!((0..1000).all(|_| backoff.next_sleep(false).is_none()));
    }

    #[test]
    fn sleeps_grow_to_the_longest_and_start_over_after_work() {
        let mut backoff = Backoff::new(Idle::Adaptive { polls_min: 2, sleep_us_max: 50 });
        let sleeps: Vec<_> =
            (0..5).map(|_| backoff.next_sleep(false).map(|sleep| sleep.as_micros())).collect();
        assert_eq!(sleeps, [None, Some(20), Some(40), Some(50), Some(50)]);
        assert_eq!(backoff.next_sleep(true), None);
        assert_eq!(backoff.next_sleep(false), None);
        assert_eq!(backoff.next_sleep(false).map(|sleep| sleep.as_micros()), Some(20));
    }
}
