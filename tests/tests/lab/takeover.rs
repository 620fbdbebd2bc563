//! A node dies, and the other one carries its connections on.

use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::sessions;

/// How long a client may go on losing datagrams after the router sends them to the other node. Seconds.
const SETTLE_S: f64 = 1.0;

#[test]
fn root_connections_survive_their_node_with_steering_in_the_tap() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]);
    survive(&lab, 300, 100);
}

#[test]
fn root_connections_survive_their_node_with_steering_in_software() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "Software"]);
    survive(&lab, 100, 50);
}

/// Opens so many connections and flows a family through node 1 alone, kills it, and checks that node 2 carries them on.
fn survive(lab: &Lab, connections: u32, flows: u32) {
    lab.run(&["withdraw", "n2"]);
    let mut http = [HTTP4, HTTP6].map(|target| Load::http(lab, target, connections, &[]));
    let mut udp = [ECHO4, ECHO6].map(|target| Load::udp(lab, target, flows, 500));
    http.iter_mut().chain(&mut udp).for_each(Load::wait_ready);
    assert_eq!(sessions::wait_until_replicated(lab, 1, 2), u64::from(2 * (connections + flows)));
    let before = Counters::read(lab, 2);
    assert_eq!(before.get(Counter::RemoteHits), 0, "nothing goes through node 2 yet");

    kill_and_move(lab);
    let moved_at_s = udp.each_ref().map(Load::elapsed_s);
    std::thread::sleep(Duration::from_secs(4));

    for load in http {
        load.finish().assert_http_whole(connections);
    }
    for (load, moved_at_s) in udp.into_iter().zip(moved_at_s) {
        let report = load.finish();
        assert_eq!(report.number("flows_answered"), u64::from(flows), "{report:?}");
        assert_eq!(report.number("flows_moved"), 0, "{report:?}");
        let last_lost_at_s = report.last_lost_at_s().unwrap_or_default();
        assert!(last_lost_at_s < moved_at_s + SETTLE_S, "moved at {moved_at_s} s: {report:?}");
        assert!(report.seconds("elapsed_s") > moved_at_s + 3.0, "{report:?}");
    }
    let after = Counters::settled(lab, 2);
    let added = after.since(&before);
    // Each connection and each flow goes on for seconds, in both directions.
    assert!(added.get(Counter::RemoteHits) > u64::from(2 * 2 * (connections + flows)), "{added:?}");
    assert_eq!(added.get(Counter::SessionsCreated), 0, "{added:?}");
    assert_eq!(added.get(Counter::DropNoSession), 0, "{added:?}");
}

#[test]
fn root_connections_are_lost_with_their_node_without_sync() {
    const CONNECTIONS: u32 = 60;
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf", "--no-sync"]);
    lab.run(&["withdraw", "n2"]);
    let mut http =
        [HTTP4, HTTP6].map(|target| Load::http(&lab, target, CONNECTIONS, &["--timeout-ms", "4000"]));
    http.iter_mut().for_each(Load::wait_ready);

    kill_and_move(&lab);

    for load in http {
        // With nothing left, it ends by itself.
        let report = load.wait_ended(20);
        assert_eq!(report.number("opened"), u64::from(CONNECTIONS), "{report:?}");
        assert_eq!(report.number("lost"), u64::from(CONNECTIONS), "{report:?}");
    }
    let counters = Counters::settled(&lab, 2);
    assert!(counters.get(Counter::DropNoSession) >= u64::from(2 * CONNECTIONS), "{counters:?}");
    assert_eq!(counters.get(Counter::RemoteHits), 0);
}

/// Kills node 1, both processes, and lets the router send its traffic to node 2.
fn kill_and_move(lab: &Lab) {
    lab.kill("n1", &[]);
    lab.run(&["announce", "n2"]);
    lab.run(&["withdraw", "n1"]);
    assert_eq!(lab.pid("n1", "primary"), None);
    assert_eq!(lab.pid("n1", "sync"), None);
}
