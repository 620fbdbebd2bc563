//! The position of a stream: how far it was received, and which of the last numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

use super::Reject;

/// Sequence numbers behind the highest whose arrival is remembered one by one.
pub const WINDOW: u64 = 1024;

const WORDS: usize = WINDOW as usize / 64;

/// How far a stream was received.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct StreamPosition {
    /// The highest sequence number received; 0 before the first.
    highest: AtomicU64,
    /// Nothing up to this number is missing: nobody listened then, or it was given up.
    settled: AtomicU64,
    /// Bit `s % WINDOW` says whether `s` was received, for the `WINDOW` numbers up to `highest` (RFC 6479).
    received: [AtomicU64; WORDS],
}

const _: () = assert!(size_of::<StreamPosition>() == 16 + 8 * WORDS);

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
        StreamPosition {
            highest: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            received: [const { AtomicU64::new(0) }; WORDS],
        }
    }

    /// The highest sequence number received; 0 before the first.
    pub fn highest(&self) -> u64 {
        self.highest.load(Ordering::Relaxed)
    }

    /// Makes it the position of a stream that was never heard.
    pub fn forget(&self) {
        for word in &self.received {
            word.store(0, Ordering::Relaxed);
        }
        self.settled.store(0, Ordering::Relaxed);
        self.highest.store(0, Ordering::Relaxed);
    }

    /// Decides whether a sequence number is news, and remembers it.
    ///
    /// The first number opens the window where it is: what came before is no gap, for nobody was listening.
    ///
    /// Killed between the stores, the window may take late numbers for new or for old; records are safe to apply twice and a
    /// lost one is found by its gap or its session's digest.
    ///
    /// # Errors
    /// `Duplicate` or `TooOld`; nothing has changed then.
    pub fn accept(&self, sequence: u64) -> Result<Arrival, Reject> {
        let highest = self.highest();
        if sequence > highest {
            let ahead = sequence - highest;
            if highest == 0 {
                self.settled.store(sequence - 1, Ordering::Relaxed);
            }
            for passed in highest + 1 + (ahead - 1).saturating_sub(WINDOW)..sequence {
                self.mark(passed, false);
            }
            self.mark(sequence, true);
            self.highest.store(sequence, Ordering::Relaxed);
            return Ok(Arrival::InOrder { gap: if highest == 0 { 0 } else { ahead - 1 } });
        }
        if highest - sequence >= WINDOW {
            return Err(Reject::TooOld);
        }
        if self.is_marked(sequence) {
            return Err(Reject::Duplicate);
        }
        self.mark(sequence, true);
        Ok(Arrival::Late)
    }

    /// The runs of numbers that were skipped and have neither come since nor been given up, oldest first, as first number and
    /// count. Bounded by the window.
    pub fn missing(&self) -> impl Iterator<Item = (u64, u16)> + use<'_> {
        let highest = self.highest();
        let mut next =
            self.settled.load(Ordering::Relaxed).max(highest.saturating_sub(WINDOW)).saturating_add(1);
        std::iter::from_fn(move || {
            while next < highest && self.is_marked(next) {
                next += 1;
            }
            let first = next;
            while next < highest && !self.is_marked(next) {
                next += 1;
            }
            (next > first).then_some((first, (next - first) as u16))
        })
    }

    /// Whether nothing is missing up to the highest number.
    pub fn is_whole(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Gives up what is missing up to a number; how many there were.
    pub fn give_up(&self, up_to: u64) -> u64 {
        let up_to = up_to.min(self.highest());
        let given_up = self.missing().map(|(first, count)| {
            (first + u64::from(count)).min(up_to.saturating_add(1)).saturating_sub(first)
        });
        let given_up = given_up.sum();
        self.settled.store(self.settled.load(Ordering::Relaxed).max(up_to), Ordering::Relaxed);
        given_up
    }

    fn is_marked(&self, sequence: u64) -> bool {
        let (word, bit) = place_of(sequence);
        self.received[word].load(Ordering::Relaxed) & bit != 0
    }

    fn mark(&self, sequence: u64, received: bool) {
        let (word, bit) = place_of(sequence);
        let before = self.received[word].load(Ordering::Relaxed);
        self.received[word].store(if received { before | bit } else { before & !bit }, Ordering::Relaxed);
    }
}

fn place_of(sequence: u64) -> (usize, u64) {
    ((sequence % WINDOW / 64) as usize, 1 << (sequence % 64))
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
        assert_eq!(position.accept(WINDOW + 1), Ok(Arrival::InOrder { gap: WINDOW - 1 }));
        assert_eq!(position.accept(2), Ok(Arrival::Late));
        assert_eq!(position.accept(2), Err(Reject::Duplicate));
        assert_eq!(position.accept(1), Err(Reject::TooOld));
        assert_eq!(position.accept(9 * WINDOW), Ok(Arrival::InOrder { gap: 8 * WINDOW - 2 }));
        assert_eq!(position.accept(8 * WINDOW + 1), Ok(Arrival::Late));
        assert_eq!(position.accept(8 * WINDOW), Err(Reject::TooOld));
    }

    #[test]
    fn window_holds_at_the_end_of_the_numbers() {
        let position = StreamPosition::new();
        assert_eq!(position.accept(u64::MAX), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(position.accept(u64::MAX), Err(Reject::Duplicate));
        assert_eq!(position.accept(u64::MAX - (WINDOW - 1)), Ok(Arrival::Late));
    }

    #[test]
    fn what_was_skipped_is_missing_until_it_comes_or_is_given_up() {
        let position = StreamPosition::new();
        for sequence in [10, 11, 14, 15, 18] {
            position.accept(sequence).unwrap();
        }
        assert_eq!(position.missing().collect::<Vec<_>>(), [(12, 2), (16, 2)]);
        position.accept(13).unwrap();
        position.accept(16).unwrap();
        assert_eq!(position.missing().collect::<Vec<_>>(), [(12, 1), (17, 1)]);
        assert_eq!(position.give_up(15), 1);
        assert_eq!(position.missing().collect::<Vec<_>>(), [(17, 1)]);
        assert!(!position.is_whole());
        position.accept(17).unwrap();
        assert!(position.is_whole());
        assert_eq!(position.accept(12), Ok(Arrival::Late), "given up, but welcome");
    }

    #[test]
    fn what_fell_out_of_the_window_is_not_missing() {
        let position = StreamPosition::new();
        position.accept(1).unwrap();
        position.accept(5 * WINDOW).unwrap();
        assert_eq!(position.missing().collect::<Vec<_>>(), [(4 * WINDOW + 1, WINDOW as u16 - 1)]);
    }

    proptest! {
        #[test]
        fn window_accepts_every_number_exactly_once(start in 1u64..1 << 60, steps in proptest::collection::vec(0u64..3000, 1..300)) {
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
