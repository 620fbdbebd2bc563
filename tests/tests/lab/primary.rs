//! The primary dies: its secondary leaves, a new one goes on with the old one's sessions, and no node has two.

use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::sessions;
use crate::wait::{equal, wait_for};

const CONNECTIONS: u32 = 100;
const FLOWS: u32 = 50;

#[test]
fn root_a_new_primary_goes_on_with_the_sessions_of_the_dead_one() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]);
    lab.run(&["withdraw", "n2"]);
    let mut http = [HTTP4, HTTP6].map(|target| Load::http(&lab, target, CONNECTIONS, &[]));
    let mut udp = [ECHO4, ECHO6].map(|target| Load::udp(&lab, target, FLOWS, 300));
    http.iter_mut().chain(&mut udp).for_each(Load::wait_ready);
    let all = u64::from(2 * (CONNECTIONS + FLOWS));
    assert_eq!(sessions::wait_until_replicated(&lab, 1, 2), all);
    let created = Counters::read(&lab, 1).get(Counter::SessionsCreated);
    let secondary = lab.pid("n1", "sync");

    lab.kill("n1", &["primary"]);
    wait_for(5, "the secondary to leave", || equal(lab.pid("n1", "sync"), None));
    lab.start("n1", &[]);

    let started_at_s = udp.each_ref().map(Load::elapsed_s);
    assert_ne!(lab.pid("n1", "sync"), secondary);
    assert_eq!(sessions::count(&lab, 1, &["--table", "local"]), all);
    std::thread::sleep(Duration::from_secs(3));
    for load in http {
        load.finish().assert_http_whole(CONNECTIONS);
    }
    for (load, started_at_s) in udp.into_iter().zip(started_at_s) {
        let report = load.finish();
        assert_eq!(report.number("flows_moved"), 0, "{report:?}");
        assert!(
            report.last_lost_at_s().unwrap_or_default() < started_at_s + 1.0,
            "{started_at_s}: {report:?}"
        );
    }
    let counters = Counters::read(&lab, 1);
    assert_eq!(counters.get(Counter::SessionsCreated), created);
    assert_eq!(counters.get(Counter::DropNoSession), 0);
}

#[test]
fn root_a_node_has_one_primary_and_one_secondary() {
    let lab = Lab::up(&["--nodes", "1", "--servers", "1", "--steering", "TapBpf"]);
    let primary = lab.pid("n1", "primary").expect("a primary");
    let secondary = lab.pid("n1", "sync").expect("a secondary");

    for (program, words, holder) in
        [("baton-sync", ["--numa", "0"].as_slice(), secondary), ("baton-primary", &[], primary)]
    {
        let output = lab.start_another(1, program, words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{program}: {said}");
        assert!(
            said.contains(&format!("process {holder}")),
            "{program} does not name process {holder}: {said}"
        );
    }

    assert_eq!(lab.pid("n1", "primary"), Some(primary));
    assert_eq!(lab.pid("n1", "sync"), Some(secondary));
    let mut load = Load::http(&lab, HTTP4, 10, &[]);
    load.wait_ready();
    std::thread::sleep(Duration::from_millis(500));
    load.finish().assert_http_whole(10);
}
