//! Which neighbours the kernel is asked to resolve, and when.

use std::collections::{BTreeMap, BTreeSet};

use super::message::Reachability;
use crate::flow::Address;
use crate::time::Millis;

/// How long a neighbour that a worker asked for is kept resolved.
const ASKED_MS: u64 = 300_000;
/// Neighbours that workers asked for, at most; more are refused until others are forgotten.
const ASKED_MAX: usize = 4096;
/// How often a neighbour that has gone stale is confirmed.
const CONFIRM_MS: u64 = 5_000;
/// The first and the longest pause after a request that nobody answered.
const BACKOFF_MS: (u64, u64) = (500, 8_000);
/// Requests made at one time, at most.
const BURST: usize = 64;

/// The neighbours to keep resolved: those on the standing list, and those that workers asked for not long ago.
#[derive(Default)]
pub(super) struct Wanted {
    standing: BTreeSet<Address>,
    asked: BTreeMap<Address, Millis>,
    attempts: BTreeMap<Address, Attempt>,
}

#[derive(Clone, Copy)]
struct Attempt {
    not_before: Millis,
    backoff_ms: u64,
    /// Made to confirm a stale entry, not to find a missing one.
    confirming: bool,
}

impl Wanted {
    /// Replaces the standing list.
    pub fn set_standing(&mut self, next_hops: BTreeSet<Address>) {
        self.standing = next_hops;
    }

    /// Notes that a worker has a packet for this neighbour.
    pub fn ask(&mut self, next_hop: Address, now: Millis) {
        if self.asked.len() < ASKED_MAX || self.asked.contains_key(&next_hop) {
            self.asked.insert(next_hop, now);
        }
    }

    /// Forgets that anybody was asked for: the interface is another one now.
    pub fn restart(&mut self) {
        self.attempts.clear();
    }

    /// The neighbours that the kernel is to be asked for now.
    pub fn due(&mut self, now: Millis, state: impl Fn(Address) -> Option<Reachability>) -> Vec<Address> {
        self.asked.retain(|_, asked| now.since(*asked) < ASKED_MS);
        let (standing, asked) = (&self.standing, &self.asked);
        self.attempts.retain(|address, _| standing.contains(address) || asked.contains_key(address));
        let mut due = Vec::new();
        for &address in standing.iter().chain(asked.keys().filter(|address| !standing.contains(address))) {
            if due.len() == BURST {
                break;
            }
            let last = self.attempts.get(&address);
            let next = match state(address) {
                Some(Reachability::Fresh) => {
                    self.attempts.remove(&address);
                    continue;
                }
                Some(Reachability::Incomplete) => continue,
                Some(Reachability::Stale) => confirm(last, now),
                Some(Reachability::Failed) | None => retry(last, now),
            };
            if let Some(next) = next {
                self.attempts.insert(address, next);
                due.push(address);
            }
        }
        due
    }
}

fn confirm(last: Option<&Attempt>, now: Millis) -> Option<Attempt> {
    let waiting = last.is_some_and(|last| last.confirming && now < last.not_before);
    (!waiting).then_some(Attempt { not_before: now + CONFIRM_MS, backoff_ms: BACKOFF_MS.0, confirming: true })
}

fn retry(last: Option<&Attempt>, now: Millis) -> Option<Attempt> {
    let backoff_ms = match last {
        Some(last) if last.confirming => BACKOFF_MS.0,
        Some(last) if now < last.not_before => return None,
        Some(last) => (last.backoff_ms * 2).min(BACKOFF_MS.1),
        None => BACKOFF_MS.0,
    };
    Some(Attempt { not_before: now + backoff_ms, backoff_ms, confirming: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: Address = Address::v4([10, 2, 0, 1]);

    fn standing() -> Wanted {
        Wanted { standing: BTreeSet::from([ROUTER]), ..Wanted::default() }
    }

    #[test]
    fn a_missing_neighbour_is_asked_for_at_once_and_then_ever_less_often() {
        let mut wanted = standing();

        let asked: Vec<u64> =
            (0..20_000).filter(|ms| !wanted.due(Millis(*ms), |_| None).is_empty()).collect();

        assert_eq!(asked, [0, 500, 1_500, 3_500, 7_500, 15_500]);
    }

    #[test]
    fn a_stale_neighbour_is_confirmed_every_few_seconds() {
        let mut wanted = standing();

        let asked: Vec<u64> = (0..11_000)
            .filter(|ms| !wanted.due(Millis(*ms), |_| Some(Reachability::Stale)).is_empty())
            .collect();

        assert_eq!(asked, [0, 5_000, 10_000]);
    }

    #[test]
    fn a_neighbour_that_fails_its_confirmation_is_asked_for_at_once() {
        let mut wanted = standing();
        wanted.due(Millis(0), |_| Some(Reachability::Stale));

        assert_eq!(wanted.due(Millis(10), |_| Some(Reachability::Failed)), [ROUTER]);
    }

    #[test]
    fn the_kernel_is_left_alone_while_it_asks_and_when_it_knows() {
        let mut wanted = standing();

        assert_eq!(wanted.due(Millis(0), |_| Some(Reachability::Incomplete)), []);
        assert_eq!(wanted.due(Millis(0), |_| Some(Reachability::Fresh)), []);
    }

    #[test]
    fn what_a_worker_asked_for_is_forgotten_after_a_while() {
        let mut wanted = Wanted::default();
        wanted.ask(ROUTER, Millis(0));

        assert_eq!(wanted.due(Millis(0), |_| None), [ROUTER]);
        assert_eq!(wanted.due(Millis(ASKED_MS), |_| None), []);
        assert!(wanted.asked.is_empty() && wanted.attempts.is_empty());
    }

    #[test]
    fn what_workers_ask_for_is_bounded() {
        let mut wanted = Wanted::default();

        for n in 0..10_000u32 {
            wanted.ask(Address::v4(n.to_be_bytes()), Millis(0));
        }

        assert_eq!(wanted.asked.len(), ASKED_MAX);
        assert_eq!(wanted.due(Millis(0), |_| None).len(), BURST);
    }
}
