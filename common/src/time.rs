//! Time as the tables and the sync protocol use it: passed in, comparable between the processes of one machine.

use std::ops::{Add, Sub};

use zerocopy::FromZeros;

/// Milliseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`). Comparable between all processes of one boot,
/// never between machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromZeros)]
pub struct Millis(pub u64);

impl Millis {
    /// The machine's clock, read now.
    pub fn now() -> Millis {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Millis(time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000)
    }

    /// Milliseconds from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Millis {
    type Output = Millis;

    fn add(self, milliseconds: u64) -> Millis {
        Millis(self.0.saturating_add(milliseconds))
    }
}

impl Sub<u64> for Millis {
    type Output = Millis;

    fn sub(self, milliseconds: u64) -> Millis {
        Millis(self.0.saturating_sub(milliseconds))
    }
}

/// Microseconds of the same clock, for what is shorter than a millisecond: how long a record waits for its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    /// The machine's clock, read now.
    pub fn now() -> Micros {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Micros(time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000)
    }

    /// The same instant in milliseconds, rounded down.
    pub fn millis(self) -> Millis {
        Millis(self.0 / 1000)
    }

    /// Microseconds from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
