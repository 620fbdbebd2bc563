//! Time that is only taken of what counts: keys and sessions are made between the laps.

use std::time::{Duration, Instant};

/// Time and work so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopwatch {
    spent: Duration,
    done: u64,
}

impl Stopwatch {
    /// Times a piece of work that does `count` things.
    #[inline]
    pub fn lap<T>(&mut self, count: usize, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.spent += start.elapsed();
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
