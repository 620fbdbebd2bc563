//! Exclusive possession of the parts of a port inside this process.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A part of a port that has one owner at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The receive side of a queue.
    Receive(u16),
    /// The transmit side of a queue.
    Transmit(u16),
    /// The flow rules.
    Flow,
}

/// What is taken, by port.
static TAKEN: Mutex<BTreeSet<(u16, Part)>> = Mutex::new(BTreeSet::new());

/// The set; a panic elsewhere cannot leave it half changed.
fn taken() -> MutexGuard<'static, BTreeSet<(u16, Part)>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The possession of a part. Put back when dropped. `Send`, but not `Sync`.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) port: u16,
    part: Part,
    not_sync: PhantomData<Cell<()>>,
}

impl Claim {
    /// Takes a part; `None` if somebody in this process has it.
    pub(crate) fn new(port: u16, part: Part) -> Option<Self> {
        let free = taken().insert((port, part));
        // Lazily: a claim that is made only to be dropped would put back what another one took.
        free.then(|| Self { port, part, not_sync: PhantomData })
    }

    /// Whether somebody in this process has a part of that port.
    pub(crate) fn any(port: u16) -> bool {
        taken().iter().any(|&(of, _)| of == port)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        taken().remove(&(self.port, self.part));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_owner_at_a_time() {
        let first = Claim::new(900, Part::Receive(0)).unwrap();
        assert!(Claim::new(900, Part::Receive(0)).is_none());
        assert!(Claim::new(900, Part::Receive(0)).is_none());
        assert!(Claim::new(900, Part::Transmit(0)).is_some());
        drop(first);
        assert!(Claim::new(900, Part::Receive(0)).is_some());
    }

    #[test]
    fn a_port_knows_whether_a_part_of_it_is_taken() {
        assert!(!Claim::any(901));
        let rules = Claim::new(901, Part::Flow).unwrap();
        assert!(Claim::any(901));
        drop(rules);
        assert!(!Claim::any(901));
    }
}
