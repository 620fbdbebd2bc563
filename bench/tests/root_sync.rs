//! The whole of `baton-bench sync` at a size that says nothing about speed: every contender's sessions come, and nothing is left.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

fn persistent_pages() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").unwrap();
    text.trim().parse().unwrap()
}

#[test]
fn root_every_contender_syncs_and_the_report_is_written() {
    let out = tempfile::tempdir().unwrap();
    let pages = persistent_pages();
    let output = Command::new(env!("CARGO_BIN_EXE_baton-bench"))
        .args(["sync", "--rounds", "1", "--sizes", "5000", "--out"])
        .arg(out.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");

    let report: Value = serde_json::from_slice(&fs::read(out.path().join("sync.json")).unwrap()).unwrap();
    let figure = |what: &str, who: &str| {
        let mut results = report["results"].as_array().unwrap().iter();
        let found = results.find(|result| result["what"] == what && result["who"] == who);
        found.and_then(|result| result["value"].as_f64()).unwrap_or_else(|| panic!("{what}, {who}: {told}"))
    };
    for who in ["Baton", "Baton, in the clear"] {
        assert!(figure("receive, fed from memory", who) > 0.0);
        assert!(figure("full sync, over the port", who) > 0.0);
        assert!(figure("new sessions, from events", who) > 0.0);
        assert!(figure("bytes a session, full sync", who) > 13.0, "an upsert alone takes as many");
    }
    assert!(figure("datagrams", "the port alone") > 0.0);
    assert!(figure("full sync, over the port", "Redis, best pipeline") > 0.0);
    assert_eq!(figure("share of the bulk that arrived", "conntrackd"), 1.0);
    assert_eq!(report["goals"].as_array().unwrap().len(), 5);
    for file in ["sync.md", "sync.svg"] {
        assert!(fs::metadata(out.path().join(file)).unwrap().len() > 0);
    }
    assert_eq!(persistent_pages(), pages, "hugepages were not given back");
}
