//! When a record may be used again: once the reader said after its removal that it holds nothing.
//!
//! Baton's table has this built in. The others get it from here, in the simplest way, as their users would build it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Removals after which a new epoch begins, as in Baton's table.
const EPOCH_REMOVALS: usize = 64;

/// No reader is there.
const OFFLINE: u64 = u64::MAX;

#[derive(Debug)]
struct Epochs {
    current: AtomicU64,
    noted: AtomicU64,
}

/// The writer's end: what was removed and may still be looked at.
#[derive(Debug)]
pub struct Removed<T> {
    epochs: Arc<Epochs>,
    fresh: Vec<T>,
    waiting: Vec<T>,
}

/// The reader's end. Dropping it takes the reader offline.
#[derive(Debug)]
pub struct Presence(Arc<Epochs>);

impl<T> Removed<T> {
    /// Nothing was removed, and no reader is there.
    pub fn nothing() -> Removed<T> {
        let epochs = Epochs { current: AtomicU64::new(1), noted: AtomicU64::new(OFFLINE) };
        Removed { epochs: Arc::new(epochs), fresh: Vec::new(), waiting: Vec::new() }
    }

    /// The end of a reader, which is online from now on.
    pub fn presence(&self) -> Presence {
        let presence = Presence(Arc::clone(&self.epochs));
        presence.quiesce();
        presence
    }

    /// Adds what was removed; `release` gets what the reader is through with.
    pub fn push(&mut self, removed: T, release: impl FnMut(T)) {
        self.fresh.push(removed);
        if self.fresh.len() >= EPOCH_REMOVALS {
            self.advance(release);
        }
    }

    /// Releases what the reader is through with, and has what was removed since wait for it.
    pub fn advance(&mut self, release: impl FnMut(T)) {
        let current = self.epochs.current.load(Ordering::Relaxed);
        if !self.waiting.is_empty() && self.epochs.noted.load(Ordering::SeqCst) < current {
            return;
        }
        self.waiting.drain(..).for_each(release);
        std::mem::swap(&mut self.fresh, &mut self.waiting);
        self.epochs.current.store(current + 1, Ordering::SeqCst);
    }
}

impl Presence {
    /// The reader holds nothing now.
    #[inline]
    pub fn quiesce(&self) {
        self.0.noted.store(self.0.current.load(Ordering::SeqCst), Ordering::Release);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.noted.store(OFFLINE, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_waits_for_the_reader() {
        let mut removed = Removed::nothing();
        let presence = removed.presence();
        let mut released = Vec::new();
        removed.push(1, |item| released.push(item));
        removed.advance(|item| released.push(item));
        removed.advance(|item| released.push(item));
        assert_eq!(released, [0; 0]);
        presence.quiesce();
        removed.advance(|item| released.push(item));
        assert_eq!(released, [1]);
    }

    #[test]
    fn a_reader_that_is_gone_is_not_waited_for() {
        let mut removed = Removed::nothing();
        drop(removed.presence());
        let mut released = Vec::new();
        removed.push(1, |item| released.push(item));
        removed.advance(|item| released.push(item));
        removed.advance(|item| released.push(item));
        assert_eq!(released, [1]);
    }
}
