//! A reading: what a node's counters, tables and processes show at one moment.

use baton_common::control::{ServiceStatus, Status, SyncStatus};
use baton_common::counter::{Counter, CounterBlock};
use baton_common::id::{NodeId, NumaId};
use baton_common::sync::state::PeerSnapshot;
use baton_common::time::Micros;

/// A node at one moment. What could not be read is not there, and `troubles` says why.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When.
    pub at: Micros,
    /// The primary, if it answered.
    pub primary: Option<Status>,
    /// The services, if the primary answered.
    pub services: Vec<ServiceStatus>,
    /// The workers' counters, and last those of the punt thread.
    pub workers: Vec<Thread>,
    /// The secondaries' counters.
    pub secondaries: Vec<Thread>,
    /// The secondaries that answered.
    pub sync: Vec<SyncStatus>,
    /// What was heard of each peer, and by which secondary.
    pub peers: Vec<(NumaId, PeerSnapshot)>,
    /// The nodes that are configured as peers.
    pub members: Vec<NodeId>,
    /// The session tables, the workers' first.
    pub tables: Vec<TableFill>,
    /// What could not be read, and why.
    pub troubles: Vec<String>,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableFill {
    /// Whose it is: `worker-0`, or `remote-0` of a NUMA node.
    pub name: String,
    /// Sessions in it.
    pub sessions: u32,
    /// Sessions that it has room for.
    pub capacity: u32,
}

/// One thread's counters.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Its name: `worker-0`, `punt`, `sync-0`.
    pub name: String,
    values: Vec<u64>,
}

impl Thread {
    /// Reads a thread's counters.
    pub fn read(name: String, block: &CounterBlock) -> Thread {
        Thread { name, values: Counter::ALL.iter().map(|&counter| block.value(counter)).collect() }
    }

    /// The value of a counter.
    pub fn value(&self, counter: Counter) -> u64 {
        let position = Counter::ALL.iter().position(|&other| other == counter);
        position.and_then(|position| self.values.get(position)).copied().unwrap_or_default()
    }
}

/// Two readings, for what happened between them.
pub struct Interval<'r> {
    /// The earlier one; none at first.
    pub before: Option<&'r Reading>,
    /// The later one.
    pub now: &'r Reading,
}

impl Interval<'_> {
    /// Its length, seconds; none if there is but one reading, or both were made at one time.
    pub fn seconds(&self) -> Option<f64> {
        let before = self.before?;
        let seconds = self.now.at.since(before.at) as f64 / 1e6;
        (seconds > 0.0).then_some(seconds)
    }

    /// How much a number grew a second. One that is smaller than before began anew with its process: all of it is growth.
    pub fn rate(&self, before: Option<u64>, now: u64) -> Option<f64> {
        let before = before?;
        let grown = now.checked_sub(before).unwrap_or(now);
        Some(grown as f64 / self.seconds()?)
    }

    /// How much a counter of a thread grew a second.
    pub fn counter_rate(&self, thread: &Thread, counter: Counter) -> Option<f64> {
        let before = self.before?;
        let threads = before.workers.iter().chain(&before.secondaries);
        let earlier = threads.into_iter().find(|other| other.name == thread.name);
        self.rate(earlier.map(|earlier| earlier.value(counter)), thread.value(counter))
    }

    /// How much a counter grew a second, in all these threads together.
    pub fn sum_rate(&self, threads: &[Thread], counter: Counter) -> Option<f64> {
        let rates = threads.iter().map(|thread| self.counter_rate(thread, counter));
        rates.sum()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::top) fn thread(name: &str, counts: &[(Counter, u64)]) -> Thread {
        let block = CounterBlock::new();
        counts.iter().for_each(|&(counter, count)| block.add(counter, count));
        Thread::read(name.into(), &block)
    }

    fn reading(at_s: u64, rx: &[u64]) -> Reading {
        let worker =
            |(number, &rx): (usize, &u64)| thread(&format!("worker-{number}"), &[(Counter::RxPackets, rx)]);
        Reading {
            at: Micros(at_s * 1_000_000),
            workers: rx.iter().enumerate().map(worker).collect(),
            ..Reading::default()
        }
    }

    fn rates(before: &Reading, now: &Reading) -> Vec<Option<f64>> {
        let interval = Interval { before: Some(before), now };
        now.workers.iter().map(|worker| interval.counter_rate(worker, Counter::RxPackets)).collect()
    }

    #[test]
    fn a_rate_is_growth_by_time() {
        let (before, now) = (reading(10, &[100, 7]), reading(14, &[500, 7]));
        assert_eq!(rates(&before, &now), [Some(100.0), Some(0.0)]);
        let interval = Interval { before: Some(&before), now: &now };
        assert_eq!(interval.sum_rate(&now.workers, Counter::RxPackets), Some(100.0));
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_zero() {
        assert_eq!(rates(&reading(0, &[1_000_000]), &reading(2, &[30])), [Some(15.0)]);
    }

    #[test]
    fn without_two_times_there_is_no_rate() {
        let now = reading(5, &[7]);
        assert_eq!(rates(&reading(5, &[3]), &now), [None]);
        assert_eq!(rates(&reading(4, &[]), &now), [None], "a worker that was not there");
        let first = Interval { before: None, now: &now };
        assert_eq!(first.sum_rate(&now.workers, Counter::RxPackets), None);
    }
}
