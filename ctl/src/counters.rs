//! `batonctl counters`: what the node's threads have counted.

use std::collections::BTreeMap;

use baton_common::config::Config;
use baton_common::counter::{Counter, CounterBlock};
use serde::Serialize;

use crate::report::{Report, lines, table};

/// A thread that counts, in the order of the blocks in the file: workers, the primary's control thread, secondaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread(pub String);

/// The threads whose blocks the counters file of this configuration holds.
pub fn threads(config: &Config) -> Vec<Thread> {
    let workers = (0..config.workers.len()).map(|worker| format!("worker-{worker}"));
    let secondaries = config.sync.domains.iter().map(|domain| format!("sync-{}", domain.numa));
    workers.chain(["primary".into()]).chain(secondaries).map(Thread).collect()
}

/// Counters, summed over the threads.
#[derive(Debug, Serialize)]
pub struct CountersReport {
    /// In the order of their codes.
    pub counters: Vec<CounterValue>,
}

/// One counter.
#[derive(Debug, Serialize)]
pub struct CounterValue {
    /// Its name.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
    /// The sum over all threads.
    pub total: u64,
    /// The value of each thread, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<BTreeMap<String, u64>>,
}

impl CountersReport {
    /// Reads the counters, those above zero or all.
    pub fn read(threads: &[Thread], blocks: &[CounterBlock], all: bool, per_thread: bool) -> CountersReport {
        let counters = Counter::ALL.iter().filter_map(|&counter| {
            let values: Vec<u64> = blocks.iter().map(|block| block.value(counter)).collect();
            let total = values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value));
            let by_thread = || threads.iter().map(|thread| thread.0.clone()).zip(values).collect();
            (all || total != 0).then(|| CounterValue {
                name: counter.name(),
                unit: counter.unit(),
                help: counter.help().trim(),
                total,
                threads: per_thread.then(by_thread),
            })
        });
        CountersReport { counters: counters.collect() }
    }
}

impl Report for CountersReport {
    fn text(&self) -> String {
        let mut table = table(&["counter", "#count", "unit", "meaning"]);
        for counter in &self.counters {
            table.add_row([counter.name, &counter.total.to_string(), counter.unit, counter.help]);
            for (thread, value) in counter.threads.iter().flatten().filter(|(_, value)| **value != 0) {
                table.add_row([&format!("  {thread}"), &value.to_string(), "", ""]);
            }
        }
        lines(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (Vec<Thread>, Vec<CounterBlock>) {
        let blocks: Vec<CounterBlock> = (0..3).map(|_| CounterBlock::new()).collect();
        blocks[0].add(Counter::RxPackets, 5);
        blocks[1].add(Counter::RxPackets, 7);
        blocks[2].add(Counter::SyncRxGaps, 1);
        (["worker-0", "worker-1", "sync-0"].map(|name| Thread(name.into())).into(), blocks)
    }

    #[test]
    fn counters_are_summed_and_zeros_left_out() {
        let (threads, blocks) = fixture();

        let report = CountersReport::read(&threads, &blocks, false, false);

        let shown: Vec<_> = report.counters.iter().map(|counter| (counter.name, counter.total)).collect();
        assert_eq!(shown, [("rx_packets", 12), ("sync_rx_gaps", 1)]);
        assert!(report.counters.iter().all(|counter| counter.threads.is_none()));
    }

    #[test]
    fn all_means_every_counter() {
        let (threads, blocks) = fixture();

        let report = CountersReport::read(&threads, &blocks, true, false);

        assert_eq!(report.counters.len(), Counter::ALL.len());
        assert!(report.counters.iter().all(|counter| !counter.help.is_empty()));
    }

    #[test]
    fn each_thread_has_its_value() {
        let (threads, blocks) = fixture();

        let report = CountersReport::read(&threads, &blocks, false, true);

        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["counters"][0]["threads"]["worker-1"], 7);
        assert_eq!(json["counters"][0]["threads"]["sync-0"], 0);
        assert!(report.text().contains("\n  worker-1") && !report.text().contains("\n  worker-0  0"));
    }
}
