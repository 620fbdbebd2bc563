//! `batonctl counters`: what the node's threads have counted.

use std::collections::BTreeMap;

use baton_common::config::Config;
use baton_common::counter::{Counter, CounterBlock, CounterFile};
use serde::Serialize;

use crate::report::{Report, lines, table};

/// The counters of one thread, by its name: `worker-0`, `primary`, `sync-0`.
pub type ThreadCounters<'a> = (String, &'a CounterBlock);

/// The counters of the primary's threads: the workers and the control thread.
pub fn of_primary(file: &CounterFile) -> impl Iterator<Item = ThreadCounters<'_>> {
    let workers = (0..file.workers()).filter_map(|n| Some((format!("worker-{n}"), file.worker(n)?)));
    workers.chain([("primary".to_owned(), file.control())])
}

/// The counters of the secondaries, named by their NUMA nodes.
pub fn of_secondaries<'a>(
    file: &'a CounterFile,
    config: &'a Config,
) -> impl Iterator<Item = ThreadCounters<'a>> {
    let domains = config.sync.domains.iter().enumerate();
    domains.filter_map(|(n, domain)| Some((format!("sync-{}", domain.numa), file.sync(n)?)))
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
    pub fn read(threads: &[ThreadCounters<'_>], all: bool, per_thread: bool) -> CountersReport {
        let counters = Counter::ALL.iter().filter_map(|&counter| {
            let total = threads.iter().fold(0u64, |sum, (_, block)| sum.wrapping_add(block.value(counter)));
            let by_thread =
                || threads.iter().map(|(name, block)| (name.clone(), block.value(counter))).collect();
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

    fn blocks() -> [CounterBlock; 3] {
        let blocks = [const { CounterBlock::new() }; 3];
        blocks[0].add(Counter::RxPackets, 5);
        blocks[1].add(Counter::RxPackets, 7);
        blocks[2].add(Counter::SyncRxGaps, 1);
        blocks
    }

    fn read(all: bool, per_thread: bool) -> CountersReport {
        let blocks = blocks();
        let names = ["worker-0", "worker-1", "sync-0"].map(String::from);
        let threads: Vec<_> = names.into_iter().zip(&blocks).collect();
        CountersReport::read(&threads, all, per_thread)
    }

    #[test]
    fn counters_are_summed_and_zeros_left_out() {
        let report = read(false, false);

        let shown: Vec<_> = report.counters.iter().map(|counter| (counter.name, counter.total)).collect();
        assert_eq!(shown, [("rx_packets", 12), ("sync_rx_gaps", 1)]);
        assert!(report.counters.iter().all(|counter| counter.threads.is_none()));
    }

    #[test]
    fn all_means_every_counter() {
        let report = read(true, false);

        assert_eq!(report.counters.len(), Counter::ALL.len());
        assert!(report.counters.iter().all(|counter| !counter.help.is_empty()));
    }

    #[test]
    fn each_thread_has_its_value() {
        let report = read(false, true);

        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["counters"][0]["threads"]["worker-1"], 7);
        assert_eq!(json["counters"][0]["threads"]["sync-0"], 0);
        let text = report.text();
        assert!(text.lines().any(|line| line.starts_with("  worker-1  ")), "{text}");
        assert_eq!(text.matches("sync-0").count(), 1, "a thread that counted nothing has no line: {text}");
    }
}
