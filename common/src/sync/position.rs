//! The position of a stream: how far it was received, and which of the last numbers.

use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

use zerocopy::{FromBytes, IntoBytes};

use super::Reject;

/// Sequence numbers behind the highest whose arrival is remembered one by one.
pub const WINDOW: u64 = 64;

/// How far a stream was received.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct StreamPosition {
    /// The highest sequence number received; 0 before the first.
    highest: AtomicU64,
    /// Bit `s % 64` says whether `s` was received, for the 64 numbers up to `highest` (RFC 6479, with one block).
    received: AtomicU64,
}

const _: () = assert!(size_of::<StreamPosition>() == 16);

/// How a datagram arrived that was not received before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Ahead of everything received of its stream.
    InOrder {
        /// Sequence numbers skipped: lost, or still to come late.
        gap: u64,
    },
    /// After a later one.
    Late,
}

impl StreamPosition {
    /// The position of a stream that was never heard.
    pub const fn new() -> StreamPosition {
        StreamPosition { highest: AtomicU64::new(0), received: AtomicU64::new(0) }
    }

    /// The highest sequence number received; 0 before the first.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// Makes it the position of a stream that was never heard.
    pub fn forget(&self) {
        self.received.store(0, Ordering::Relaxed);
        self.highest.store(0, Ordering::Relaxed);
    }

    /// Decides whether a sequence number is news, and remembers it.
    ///
    /// The first number opens the window where it is: what came before is no gap, for nobody was listening.
    ///
    /// Killed between the two stores, the window takes late numbers for received which are not, never the other way round: what
    /// was received is not received again, and what is missing is found by its gap or its session's digest.
    ///
    /// # Errors
    /// `Duplicate` or `TooOld`; nothing has changed then.
    pub fn accept(&self, sequence: u64) -> Result<Arrival, Reject> {
        let highest = self.highest();
        let received = self.received.load(Ordering::Relaxed);
        let bit = 1 << (sequence % WINDOW);
        if sequence > highest {
            let ahead = sequence - highest;
            let passed = if ahead >= WINDOW {
                !0
            } else {
                ((1 << ahead) - 1u64).rotate_left(((highest + 1) % WINDOW) as u32)
            };
            // In this order: see above. Only the compiler could do it in another that a killed process shows.
            self.highest.store(sequence, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            self.received.store(received & !passed | bit, Ordering::Relaxed);
            return Ok(Arrival::InOrder { gap: if highest == 0 { 0 } else { ahead - 1 } });
        }
        if highest - sequence >= WINDOW {
            return Err(Reject::TooOld);
        }
        if received & bit != 0 {
            return Err(Reject::Duplicate);
        }
        self.received.store(received | bit, Ordering::Relaxed);
        Ok(Arrival::Late)
    }
}

impl Default for StreamPosition {
    fn default() -> Self {
        StreamPosition::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_stream_opens_where_it_is_first_heard() {
        let position = StreamPosition::new();
        assert_eq!(position.accept(5000), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(position.accept(5001), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(position.accept(4999), Ok(Arrival::Late));
    }

    #[test]
    fn window_tells_late_from_duplicate_from_too_old() {
        let position = StreamPosition::new();
        assert_eq!(position.accept(1), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(position.accept(1), Err(Reject::Duplicate));
        assert_eq!(position.accept(65), Ok(Arrival::InOrder { gap: 63 }));
        assert_eq!(position.accept(2), Ok(Arrival::Late));
        assert_eq!(position.accept(2), Err(Reject::Duplicate));
        assert_eq!(position.accept(1), Err(Reject::TooOld));
        assert_eq!(position.accept(1000), Ok(Arrival::InOrder { gap: 934 }));
        assert_eq!(position.accept(937), Ok(Arrival::Late));
        assert_eq!(position.accept(936), Err(Reject::TooOld));
    }

    #[test]
    fn a_kill_between_the_two_stores_lets_nothing_in_twice() {
        for (received, next) in
            (1..200u64).flat_map(|next| [(next / 2, next), (next.saturating_sub(1), next)])
        {
            let position = StreamPosition::new();
            let numbers: Vec<u64> = (1..=received).filter(|number| number % 3 != 0).collect();
            for number in &numbers {
                position.accept(*number).unwrap();
            }
            // The first of the two stores of `accept(next)`, and no more: it was not applied either.
            position.highest.store(next.max(position.highest()), Ordering::Relaxed);

            for number in numbers {
                assert!(position.accept(number).is_err(), "{number} of {received}, then {next}");
            }
        }
    }

    #[test]
    fn window_holds_at_the_end_of_the_numbers() {
        let position = StreamPosition::new();
        assert_eq!(position.accept(u64::MAX), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(position.accept(u64::MAX), Err(Reject::Duplicate));
        assert_eq!(position.accept(u64::MAX - 63), Ok(Arrival::Late));
    }

    proptest! {
        #[test]
        fn window_accepts_every_number_exactly_once(start in 1u64..1 << 60, steps in proptest::collection::vec(0u64..200, 1..300)) {
            let position = StreamPosition::new();
            let mut seen = HashSet::new();
            let mut highest = 0;
            for step in steps {
                let sequence = start + step;
                let result = position.accept(sequence);
                if sequence > highest {
                    let gap = if highest == 0 { 0 } else { sequence - highest - 1 };
                    prop_assert_eq!(result, Ok(Arrival::InOrder { gap }));
                    highest = sequence;
                } else if highest - sequence >= WINDOW {
                    prop_assert_eq!(result, Err(Reject::TooOld));
                } else if seen.contains(&sequence) {
                    prop_assert_eq!(result, Err(Reject::Duplicate));
                } else {
                    prop_assert_eq!(result, Ok(Arrival::Late));
                }
                seen.insert(sequence);
            }
        }
    }
}
