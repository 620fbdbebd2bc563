//! A thread's pulse: how the control thread sees that it lives, and tells it to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by one thread and the control thread.
#[derive(Debug, Default)]
pub struct Pulse {
    stop: AtomicBool,
    beats: AtomicU64,
}

impl Pulse {
    /// Tells the thread to stop after its current burst.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the thread was told to stop.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Counts a turn of the thread's loop. Only that thread calls this.
    #[inline]
    pub fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Turns so far: one that stands still hangs.
    pub fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}
