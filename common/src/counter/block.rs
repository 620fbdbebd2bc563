//! One writer's counters, in memory that outlives it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Counter;
use crate::shm::shared::shared_struct;

/// Counters that fit a block.
pub const COUNTERS_MAX: usize = 256;

shared_struct! {
    /// The counters of one thread: each is added to by its owner only and read by anyone.
    ///
    /// 2048 bytes, cache-line aligned; counter `c` is the 64-bit native-endian word at `8 * c`.
    #[repr(C, align(64))]
    pub struct CounterBlock {
        values: [AtomicU64; COUNTERS_MAX],
    }
}

const _: () = assert!(size_of::<CounterBlock>() == 2048 && align_of::<CounterBlock>() == 64);

impl CounterBlock {
    /// A block of zeros, for tests and tools that have no shared memory.
    pub const fn new() -> CounterBlock {
        CounterBlock { values: [const { AtomicU64::new(0) }; COUNTERS_MAX] }
    }

    /// Adds to a counter. Only the block's owner calls this: a load and a store, no locked instruction.
    #[inline]
    pub fn add(&self, counter: Counter, count: u64) {
        let value = &self.values[counter as usize];
        value.store(value.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    /// The value of a counter now.
    pub fn value(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }
}

impl Default for CounterBlock {
    fn default() -> Self {
        CounterBlock::new()
    }
}
