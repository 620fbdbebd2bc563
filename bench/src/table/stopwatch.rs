//! Time that is only taken of what counts: keys and sessions are made between the laps.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time and work so far. The time is the calling thread's on its CPU: what other processes take of the core in between, on
/// a machine that is shared, does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    spent: Duration,
    done: u64,
}

impl Stopwatch {
    /// Times a piece of work that does `count` things.
    #[inline]
    pub fn lap<T>(&mut self, count: usize, work: impl FnOnce() -> T) -> T {
        let start = thread_time();
        let result = work();
        self.spent += thread_time().saturating_sub(start);
        self.done += count as u64;
        result
    }

    /// Time so far.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Things done so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Millions of things a second.
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.spent.as_secs_f64() / 1e6
    }
}

/// The calling thread's time on a CPU.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
