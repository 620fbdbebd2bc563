//! Traffic of every kind through one node: nothing is lost, and every packet and session is accounted for.

use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::sessions;

/// Connections, or flows, to each of the four services.
const EACH: u32 = 50;

#[test]
fn root_every_packet_is_accounted_for_with_steering_in_the_tap() {
    let lab = Lab::up(&["--nodes", "1", "--workers", "2", "--steering", "TapBpf"]);
    assert_eq!(lab.batonctl(1, &["status"])["steering"], "tap_bpf");

    let counters = carry_traffic(&lab, None);

    // The tap brings each packet to its worker, so there is nothing to hand over.
    let handed = [Counter::HandoffOut, Counter::SyncHandoff, Counter::SyncTxOnBehalf];
    assert_eq!(handed.map(|counter| counters.get(counter)), [0; 3]);
}

#[test]
fn root_every_packet_is_accounted_for_with_steering_in_software() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "Software"]);
    assert_eq!(lab.batonctl(1, &["status"])["steering"], "software");
    lab.run(&["withdraw", "n2"]);

    let counters = carry_traffic(&lab, Some(2));

    assert!(counters.get(Counter::HandoffIn) > 0, "{counters:?}");
    assert_eq!(counters.get(Counter::HandoffIn), counters.get(Counter::HandoffOut));
    assert!(counters.get(Counter::SyncTxDatagrams) > 0, "{counters:?}");
    assert_eq!(counters.get(Counter::SyncTxOnBehalf), counters.get(Counter::SyncTxDatagrams));
    // A few more are sent while the counters are read, one node's after the other's.
    let peer = Counters::settled(&lab, 2);
    let sent = counters.get(Counter::SyncTxDatagrams)..=Counters::read(&lab, 1).get(Counter::SyncTxDatagrams);
    assert!(sent.contains(&peer.get(Counter::SyncHandoff)), "{sent:?}: {peer:?}");
    assert!(sent.contains(&peer.get(Counter::SyncRxDatagrams)), "{sent:?}: {peer:?}");
    assert_eq!(peer.starting_with("sync_reject_"), Default::default());
}

/// Carries traffic of every kind through node 1, checks that all of it arrives and all its sessions are known, here and on
/// the node `replica`, and returns node 1's counters when it is over.
fn carry_traffic(lab: &Lab, replica: Option<u16>) -> Counters {
    let mut http = [HTTP4, HTTP6].map(|target| Load::http(lab, target, EACH, &[]));
    let mut udp = [ECHO4, ECHO6].map(|target| Load::udp(lab, target, EACH, 500));
    http.iter_mut().chain(&mut udp).for_each(Load::wait_ready);
    std::thread::sleep(Duration::from_secs(2));

    check_sessions(lab);
    if let Some(replica) = replica {
        assert_eq!(sessions::wait_until_replicated(lab, 1, replica), u64::from(4 * EACH));
    }
    for load in http {
        let report = load.finish();
        report.assert_http_whole(EACH);
        assert_eq!(report.servers(), 2, "{report:?}");
    }
    for load in udp {
        let report = load.finish();
        report.assert_udp_whole(EACH);
        assert_eq!(report.servers(), 2, "{report:?}");
    }
    let counters = Counters::settled(lab, 1);
    assert_eq!(counters.get(Counter::SessionsCreated), u64::from(4 * EACH));
    assert_eq!(counters.without(&[Counter::DropNotForUs]).drops(), Default::default());
    counters
}

/// Checks that the filters of `batonctl sessions` agree with what was opened and with each other.
fn check_sessions(lab: &Lab) {
    let (each, all) = (u64::from(EACH), u64::from(4 * EACH));
    for vip in [HTTP4, HTTP6] {
        let conditions = ["--vip", vip, "--protocol", "tcp", "--state", "tcp_established"];
        assert_eq!(sessions::count(lab, 1, &conditions), each, "{vip}");
    }
    for vip in [ECHO4, ECHO6] {
        let conditions = ["--vip", vip, "--protocol", "udp", "--state", "udp_two_way"];
        assert_eq!(sessions::count(lab, 1, &conditions), each, "{vip}");
    }
    for client in ["10.1.1.2", "fd00:1:1::2"] {
        assert_eq!(sessions::count(lab, 1, &["--client", client]), 2 * each, "{client}");
    }
    let of_servers: Vec<u64> = ["10.3.0.11", "10.3.0.12", "fd00:3::11", "fd00:3::12"]
        .iter()
        .map(|server| sessions::count(lab, 1, &["--server", server]))
        .collect();
    assert!(of_servers.iter().all(|&count| count > 0), "{of_servers:?}");
    assert_eq!(of_servers.iter().sum::<u64>(), all, "{of_servers:?}");
    assert_eq!(sessions::count(lab, 1, &["--owner", "1"]), all);
    assert_eq!(sessions::count(lab, 1, &["--owner", "2"]), 0);

    let listed = sessions::list(lab, 1, &["--table", "local"]);
    assert_eq!(listed.len() as u64, all);
    for worker in [0, 1] {
        let of_worker = listed.iter().filter(|session| session["table_number"] == worker);
        assert!(of_worker.count() > 0, "worker {worker} has no session");
    }
    let one = &listed[0];
    for (option, field) in [("--client", "client"), ("--local", "local")] {
        let endpoint = one[field].as_str().expect("an endpoint");
        let protocol = one["protocol"].as_str().expect("a protocol");
        let found = sessions::list(lab, 1, &[option, endpoint, "--protocol", protocol]);
        assert!(
            found.iter().any(|session| session["client"] == one["client"]),
            "{option} {endpoint}: {found:?}"
        );
        assert!(found.iter().all(|session| session[field] == one[field]), "{option} {endpoint}: {found:?}");
    }
}
