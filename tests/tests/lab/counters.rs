//! A node's counters, summed over its threads.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_common::counter::Counter;
use serde_json::Value;

use crate::harness::Lab;
use crate::wait::wait_for;

/// Counters at one moment, or what was added to them between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads the counters of node `number`.
    pub fn read(lab: &Lab, number: u16) -> Counters {
        let report: Value = lab.batonctl(number, &["counters", "--all"]);
        let counters = report["counters"].as_array().expect("a list of counters");
        let entry = |counter: &Value| {
            let name = counter["name"].as_str().expect("a name").to_owned();
            (name, counter["total"].as_u64().expect("a total"))
        };
        Counters(counters.iter().map(entry).collect())
    }

    /// Waits until nothing is counted any more and every packet is accounted for.
    pub fn settled(lab: &Lab, number: u16) -> Counters {
        let quiet = |counters: &Counters| counters.without(&[Counter::EmptyPolls]);
        wait_for(10, "quiet, and an account of every packet", || {
            let before = Counters::read(lab, number);
            std::thread::sleep(Duration::from_millis(100));
            let after = Counters::read(lab, number);
            let changed = quiet(&after).since(&quiet(&before));
            match after.unaccounted() {
                0 if changed.0.is_empty() => Ok(after),
                difference => {
                    Err(format!("{difference} packets unaccounted for, still changing: {changed:?}"))
                }
            }
        })
    }

    /// The value of one counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter.name()).copied().unwrap_or_default()
    }

    /// Packets that came in by any way, less those that went out by any way or were dropped. Zero when none is under way.
    pub fn unaccounted(&self) -> i64 {
        use Counter::*;
        let sum = |counters: &[Counter]| counters.iter().map(|&counter| self.get(counter)).sum::<u64>();
        let came = sum(&[RxPackets, PuntTx, SyncTxOnBehalf, HandoffIn]);
        let went = sum(&[TxPackets, Punted, HandoffOut, SyncHandoff]) + self.drops().values().sum::<u64>();
        came as i64 - went as i64
    }

    /// The reasons for which packets were dropped, and how many for each.
    pub fn drops(&self) -> BTreeMap<&str, u64> {
        self.starting_with("drop_")
    }

    /// Counters above zero whose name starts with `prefix`.
    pub fn starting_with(&self, prefix: &str) -> BTreeMap<&str, u64> {
        let chosen = self.0.iter().filter(|(name, value)| name.starts_with(prefix) && **value > 0);
        chosen.map(|(name, value)| (name.as_str(), *value)).collect()
    }

    /// What was added since `before`; counters that stood still are not there.
    pub fn since(&self, before: &Counters) -> Counters {
        let added = self.0.iter().filter_map(|(name, &value)| {
            let old = before.0.get(name).copied().unwrap_or_default();
            assert!(value >= old, "{name} went back from {old} to {value}");
            (value > old).then(|| (name.clone(), value - old))
        });
        Counters(added.collect())
    }

    /// These counters without some.
    pub fn without(&self, left_out: &[Counter]) -> Counters {
        let mut kept = self.clone();
        for counter in left_out {
            kept.0.remove(counter.name());
        }
        kept
    }
}

/// `Ok` if a counter of node `number` has come so far; what it is otherwise.
pub fn at_least(lab: &Lab, number: u16, counter: Counter, wanted: u64) -> Result<(), String> {
    let found = Counters::read(lab, number).get(counter);
    if found >= wanted { Ok(()) } else { Err(format!("{} is {found}, not {wanted} yet", counter.name())) }
}
