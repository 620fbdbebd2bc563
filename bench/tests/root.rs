//! The whole of `baton-bench table` at a size that says nothing about speed: it runs, agrees, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SESSIONS: u64 = 20_000;

fn start(out: &Path, slice_ms: u32) -> Child {
    Command::new(env!("CARGO_BIN_EXE_baton-bench"))
        .args(["table", "--rounds", "1", "--sizes", &SESSIONS.to_string()])
        .args(["--slice-ms", &slice_ms.to_string(), "--out"])
        .arg(out)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn persistent_pages() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap();
    text.trim().parse().unwrap()
}

/// Figures of a quantity, by contender.
fn figures<'a>(report: &'a Value, case: &str, what: &str) -> Vec<(&'a str, f64)> {
    let results = report["results"].as_array().unwrap().iter();
    results
        .filter(|result| result["case"] == case && result["what"] == what)
        .map(|result| (result["who"].as_str().unwrap(), result["value"].as_f64().unwrap()))
        .collect()
}

#[test]
fn root_all_contenders_agree_and_the_report_is_written() {
    let out = tempfile::tempdir().unwrap();
    let pages = persistent_pages();
    let output = start(out.path(), 5).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");

    let report: Value = serde_json::from_slice(&fs::read(out.path().join("table.json")).unwrap()).unwrap();
    let everyone = BTreeSet::from(["Baton", "rte_hash", "papaya", "scc", "dashmap"]);
    for case in ["20 k IPv4", "20 k IPv6"] {
        // Each session is looked up by both keys, alone and in a bulk.
        let expected = (4 * SESSIONS) as f64;
        for (what, value) in [("check: present keys found", expected), ("check: absent keys found", 0.0)] {
            let found = figures(&report, case, what);
            assert_eq!(found.iter().map(|(who, _)| *who).collect::<BTreeSet<_>>(), everyone, "{told}");
            assert!(found.iter().all(|(_, found)| *found == value), "{case}, {what}: {found:?}");
        }
        for what in ["insert sessions, both keys", "look up, hit, bulk of 32", "reader beside a writer"] {
            assert!(figures(&report, case, what).iter().all(|(_, rate)| *rate > 0.0), "{case}, {what}");
        }
        assert_eq!(figures(&report, case, "an insert's memory accesses")[0].0, "machine");
    }
    assert!(report["machine"]["cpu"].is_string());
    for goal in report["goals"].as_array().unwrap() {
        assert!(goal["name"].is_string() && goal["value"].is_number() && goal["bound"].is_number(), "{goal}");
        assert!(goal["met"].is_boolean(), "{goal}");
    }
    let markdown = fs::read_to_string(out.path().join("table.md")).unwrap();
    assert!(markdown.contains("| refresh in batches, to rte_hash one by one, 20 k IPv6 |"), "{markdown}");
    assert!(fs::read_to_string(out.path().join("table.svg")).unwrap().contains("</svg>"));
    assert_eq!(persistent_pages(), pages, "hugepages were not given back");
}

#[test]
fn root_an_interrupted_run_gives_the_hugepages_back() {
    let out = tempfile::tempdir().unwrap();
    let pages = persistent_pages();
    // Long enough to be interrupted in the first trial.
    let run = start(out.path(), 5_000);
    let pid = Pid::from_child(&run);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !Command::new("pgrep").args(["-P", &run.id().to_string()]).output().unwrap().status.success() {
        assert!(Instant::now() < deadline, "no trial began");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill_process(pid, Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("interrupted"), "{told}");
    assert!(!out.path().join("table.json").exists());
    assert_eq!(persistent_pages(), pages, "hugepages were not given back");
}
