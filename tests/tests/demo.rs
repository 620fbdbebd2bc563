//! The demo, in its short form: it passes, and leaves nothing behind however it ends.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// What the demo leaves behind if it leaves anything: labs, namespaces and mounts with its process number in their names.
fn remains(pid: u32) -> Vec<String> {
    let mark = format!("demo{pid}");
    let mut remains = Vec::new();
    for directory in ["/run/baton-lab", "/run/netns"] {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        remains.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    remains.extend(mounts.lines().map(str::to_owned));
    remains.retain(|name| name.contains(&mark));
    remains
}

fn wait_until(limit: Duration, what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + limit;
    while !happened() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton-lab"));
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn root_the_demo_passes_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let json = directory.path().join("figures.json");
    let demo = start(&["--quick", "--json", json.to_str().unwrap()]);
    let pid = demo.id();
    let output = demo.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures["passed"], true, "{told}");
    assert_eq!(figures["takeover"]["connections_lost"], 0, "{told}");
    assert_eq!(figures["takeover"]["database"]["committed"], true, "{told}");
    assert_eq!(figures["restarts"]["datagrams_lost"], 0, "{told}");
    assert_eq!(figures["control"]["connections_lost"], figures["control"]["connections_before"], "{told}");
    assert_eq!(remains(pid), Vec::<String>::new());
}

#[test]
fn root_a_killed_demo_leaves_nothing() {
    let mut demo = start(&["--quick"]);
    let pid = demo.id();
    // Killed when there is as much as possible to leave behind: nodes at work and load on the client.
    let report = format!("/run/baton-lab/demo{pid}s/c1/http6.ready");
    wait_until(Duration::from_secs(60), "the load", || Path::new(&report).exists());
    demo.kill().unwrap();
    demo.wait().unwrap();
    wait_until(Duration::from_secs(60), "the guard's work", || remains(pid).is_empty());
}
