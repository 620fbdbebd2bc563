//! A secondary hands its part over to a successor, or is restarted, under load: nothing is lost, and it is silent for a moment only.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use baton_common::counter::Counter;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab, binary};
use crate::load::Load;
use crate::wait::wait_for;

/// Hand-overs in a row.
const HAND_OVERS: usize = 20;
/// Restarts in a row, by each signal.
const RESTARTS: usize = 5;
/// Connections, or flows, to each service.
const EACH: u32 = 100;
/// Longest silence of a hand-over, milliseconds: far more than it takes, and less than a peer's patience.
const SILENCE_MAX_MS: f64 = 500.0;

/// Two nodes that both carry traffic, and the traffic.
struct Loaded {
    lab: Lab,
    http: [Load; 2],
    udp: [Load; 2],
    before: [Counters; 2],
}

impl Loaded {
    fn up(lab: Lab) -> Loaded {
        let mut http = [HTTP4, HTTP6].map(|target| Load::http(&lab, target, EACH, &[]));
        let mut udp = [ECHO4, ECHO6].map(|target| Load::udp(&lab, target, EACH, 500));
        http.iter_mut().chain(&mut udp).for_each(Load::wait_ready);
        let before = [1, 2].map(|node| Counters::read(&lab, node));
        Loaded { lab, http, udp, before }
    }

    /// Panics if a packet was lost or a session is missing or wrong.
    fn assert_whole(self) {
        let Loaded { lab, http, udp, before } = self;
        lab.wait_no_difference(1, 2);
        lab.wait_no_difference(2, 1);
        http.into_iter().for_each(|load| load.finish().assert_http_whole(EACH));
        udp.into_iter().for_each(|load| load.finish().assert_udp_whole(EACH));
        for (node, before) in (1..).zip(&before) {
            let added = Counters::settled(&lab, node).since(before);
            assert_eq!(added.without(&[Counter::DropNotForUs]).drops(), Default::default());
        }
    }
}

fn milliseconds(succession: &Value, field: &str) -> f64 {
    succession[field].as_f64().unwrap_or_else(|| panic!("no {field} in {succession}")) / 1000.0
}

/// Prints median and maximum, and returns the maximum.
fn summary(what: &str, mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {median:.1} ms, max {max:.1} ms, {} times", times.len());
    max
}

#[test]
fn root_sync_hands_over_twenty_times_under_load_at_no_cost() {
    let loaded = Loaded::up(Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]));
    let lab = &loaded.lab;
    let primary = lab.pid("n1", "primary");

    let successions: Vec<Value> = (0..HAND_OVERS).map(|_| lab.hand_over(1)).collect();

    assert!(successions.iter().all(|succession| succession["handed_over"] == true), "{successions:?}");
    let silences = |field| successions.iter().map(|succession| milliseconds(succession, field)).collect();
    let max = summary("silence of a hand-over", silences("silence_us"));
    summary("to the first datagram", silences("first_datagram_us"));
    assert!(max < SILENCE_MAX_MS, "{max} ms");
    assert_eq!(lab.pid("n1", "primary"), primary);
    assert_eq!(lab.succession(1)["failures"], 0);
    loaded.assert_whole();
}

#[test]
fn root_sync_hands_over_where_workers_send_for_it() {
    let loaded = Loaded::up(Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "Software"]));
    for _ in 0..3 {
        assert_eq!(loaded.lab.hand_over(1)["handed_over"], true);
    }
    loaded.assert_whole();
}

#[test]
fn root_sync_restarts_under_load_at_no_cost() {
    let loaded = Loaded::up(Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]));
    let lab = &loaded.lab;
    for (signal, name) in [(Signal::SIGTERM, "stop"), (Signal::SIGKILL, "kill")] {
        let (mut silences, mut firsts) = (Vec::new(), Vec::new());
        for _ in 0..RESTARTS {
            let pid = lab.pid("n1", "sync").expect("the secondary lives");
            kill(Pid::from_raw(pid as i32), signal).expect("the process is there");
            // `start` waits for nobody: it finds the lock free, or waits for it as systemd's next one would.
            wait_for(10, "the secondary to end", || match lab.pid("n1", "sync") {
                None => Ok(()),
                Some(pid) => Err(format!("process {pid} lives")),
            });
            lab.start("n1", &["sync"]);
            let succession = wait_for(10, "the first datagram", || {
                let succession = lab.succession(1);
                let is_known = succession["first_datagram_us"].is_u64();
                if is_known { Ok(succession) } else { Err(succession.to_string()) }
            });
            assert_eq!(succession["handed_over"], false);
            silences.push(milliseconds(&succession, "silence_us"));
            firsts.push(milliseconds(&succession, "first_datagram_us"));
        }
        summary(&format!("{name} to the successor's first look"), silences);
        summary(&format!("{name} to the successor's first datagram"), firsts);
    }
    loaded.assert_whole();
}

/// A lab whose programs may be replaced.
fn lab_of_own_programs() -> (Lab, tempfile::TempDir) {
    let programs = tempfile::tempdir().expect("a directory");
    for name in ["baton-hugepages", "baton-primary", "baton-sync", "batonctl", "baton-lab"] {
        fs::copy(binary(name), programs.path().join(name)).expect("a copy of the program");
    }
    let directory = programs.path().to_str().expect("a path that is text");
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf", "--bin-dir", directory]);
    (lab, programs)
}

/// Replaces a file as an installer does: the old one stays what it was for who runs it.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("the new file");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("an executable file");
    fs::rename(&new, path).expect("the old file's place");
}

#[test]
fn root_a_successor_that_fails_leaves_the_old_one_in_charge_and_says_why() {
    let (lab, programs) = lab_of_own_programs();
    let loaded = Loaded::up(lab);
    let lab = &loaded.lab;
    let old = lab.pid("n1", "sync");
    let sync = programs.path().join("baton-sync");
    let good = fs::read(&sync).expect("the program");

    let mut failures = 0;
    let mut fails = |why: &str| {
        let said = lab.hand_over_in_vain(1);
        assert!(said.contains(why) && said.contains("the old one stays"), "{why}: {said}");
        failures += 1;
        let succession = lab.succession(1);
        assert_eq!(succession["failures"], failures);
        assert!(succession["failure"].as_str().is_some_and(|text| text.contains(why)), "{succession}");
        assert!(lab.log(1, "sync").contains(why), "{why} in the log");
        assert_eq!(lab.pid("n1", "sync"), old);
    };

    // It crashes, it is none, it is not there.
    replace(&sync, b"#!/bin/sh\nkill -SEGV $$\n");
    fails("signal: 11");
    replace(&sync, b"no program at all");
    fails("cannot be started");
    fs::remove_file(&sync).expect("the program goes");
    fails("cannot be started");
    replace(&sync, &good);
    // Its configuration cannot be read, or it is another one than the node's.
    let config = fs::read(lab.config(1)).expect("the configuration");
    fs::write(lab.config(1), "Config(").expect("a broken configuration");
    // `batonctl` reads it too, so it is given the good one.
    let aside = lab.scratch().join("good.ron");
    fs::write(&aside, &config).expect("the good configuration");
    let output = std::process::Command::new(binary("batonctl"))
        .arg("--config")
        .arg(&aside)
        .args(["sync", "hand-over"])
        .output()
        .expect("batonctl starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    fs::write(lab.config(1), &config).expect("the configuration");
    failures += 1;
    assert_eq!(lab.succession(1)["failures"], failures);
    // It needs another layout of the shared memory than there is.
    let ring = lab.node_directory(1).join("hugepages/sync-tx-0");
    with_other_layout_version(lab, &ring, || {
        let said = lab.hand_over_in_vain(1);
        assert!(said.contains("layout version") && said.contains("sync-tx-0"), "{said}");
    });
    assert_eq!(lab.pid("n1", "sync"), old);

    // And with everything as it should be, it succeeds.
    assert_eq!(lab.hand_over(1)["handed_over"], true);
    assert_ne!(lab.pid("n1", "sync"), old);
    loaded.assert_whole();
}

/// Puts a file of another layout version in the place of `path` while `work` is done.
fn with_other_layout_version(lab: &Lab, path: &Path, work: impl FnOnce()) {
    let mut content = fs::read(path).expect("the file's content");
    // Where the version stands in the header: `docs/shm-layout.md`.
    content[8] += 1;
    let (other, aside) = (lab.scratch().join("other-layout"), path.with_extension("aside"));
    fs::write(&other, content).expect("a file of another version");
    fs::rename(path, &aside).expect("the file goes aside");
    fs::write(path, "").expect("a file in its place");
    nix::mount::mount(Some(&other), path, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>)
        .expect("the other file over it");
    work();
    nix::mount::umount(path).expect("the other file goes");
    fs::remove_file(path).expect("the empty file goes");
    fs::rename(&aside, path).expect("the file comes back");
}
