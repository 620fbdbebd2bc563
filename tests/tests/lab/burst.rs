//! Far more new sessions at once than usual: nothing is lost by it, nothing grows, and afterwards the nodes hold the same.

use std::fs;
use std::thread;
use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, Lab};
use crate::load::Load;
use crate::wait::wait_for;

/// Connections that go on all the while.
const BUSY: u32 = 40;
/// Client ports of each burst that are open at a time.
const FLOWS: u32 = 3000;
/// Datagrams a second of each burst. All of them together come to fewer sessions than a table of the lab's nodes holds.
const RATE: u32 = 8000;
/// How long it goes on.
const LASTS: Duration = Duration::from_secs(2);
/// Sessions that it must have come to, or it was none.
const SESSIONS: u64 = 10_000;
/// What a process may have taken in addition after it, KiB: sessions and events have their room from the beginning.
const GROWTH_KIB: u64 = 4096;

#[test]
fn root_a_burst_of_new_sessions_harms_nobody_and_leaves_equal_tables() {
    let lab = Lab::up(&["--nodes", "2", "--clients", "3"]);
    let mut busy = Load::http(&lab, HTTP4, BUSY, &[]);
    busy.wait_ready();
    let before = memory(&lab);

    let bursts: Vec<Load> = ["c2", "c3"]
        .into_iter()
        .flat_map(|host| [ECHO4, ECHO6].map(|target| Load::burst(&lab, host, target, FLOWS, RATE)))
        .collect();
    thread::sleep(LASTS);
    bursts.into_iter().for_each(|burst| drop(burst.finish()));
    let after = memory(&lab);

    for number in [1, 2] {
        let counters = Counters::read(&lab, number);
        assert!(counters.drops().is_empty(), "node {number} dropped {:?}", counters.drops());
        assert!(counters.get(Counter::SessionsCreated) > SESSIONS / 2, "node {number}: {counters:?}");
    }
    for ((who, before), (_, after)) in before.iter().zip(&after) {
        assert!(*after <= before + GROWTH_KIB, "{who} had {before} KiB and has {after}");
    }
    wait_for(20, "equal tables", || {
        let comparison = lab.batonctl_text(1, &["sessions", "diff", "2"]);
        let equal = comparison.trim().strip_prefix("equal: ").and_then(|rest| rest.split(' ').next());
        match equal.and_then(|sessions| sessions.parse::<u64>().ok()) {
            Some(sessions) if sessions > SESSIONS => Ok(()),
            _ => Err(comparison),
        }
    });
    busy.finish().assert_http_whole(BUSY);
}

/// What each process of the nodes has in memory, hugepages aside: KiB.
fn memory(lab: &Lab) -> Vec<(String, u64)> {
    let processes = ["n1", "n2"].into_iter().flat_map(|node| lab.processes(node));
    let resident = |(role, pid, _): (String, u32, bool)| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        let kib = line.trim().trim_end_matches(" kB").parse().expect("a number");
        (format!("{role} {pid}"), kib)
    };
    processes.map(resident).collect()
}
