//! A primary and a secondary on one tap, in network and mount namespaces of their own. Needs root and 2 MiB hugepages.
//!
//! The test binary is its own primary and secondary: each test starts itself again with a role, see `node`.

mod frame;
mod lab;
mod node;

use std::net::IpAddr;
use std::time::Duration;

use dpdk::SharedConfig;

use lab::{Lab, SYNC_PORT};
use node::{Child, PRIMARY_QUEUES, Role, SECONDARY_QUEUE, run_role};

const SYNC_ADDRESS: &str = "10.2.0.101";
const LOCAL_ADDRESS: &str = "10.4.1.2";
const LOCAL_ADDRESS_IPV6: &str = "fd00:4:1::2";
const VIP: &str = "10.9.0.1";
const VIP_IPV6: &str = "fd00:9::1";

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A lab with a primary that steers to the sync address's queue and to a local address's.
fn steered(test: &'static str) -> (Lab, Child) {
    let lab = Lab::new(test);
    let mut primary = Child::start(&lab, Role::Primary);
    primary.command("steer");
    primary.command(&format!("insert {SYNC_ADDRESS} {SECONDARY_QUEUE} {SYNC_PORT}"));
    primary.command(&format!("insert {LOCAL_ADDRESS} 1 0"));
    primary.command(&format!("insert {LOCAL_ADDRESS_IPV6} 1 0"));
    (lab, primary)
}

#[test]
fn root_the_tap_program_brings_each_packet_to_its_queue() {
    if run_role() {
        return;
    }
    let (lab, mut primary) = steered("root_the_tap_program_brings_each_packet_to_its_queue");
    let _secondary = Child::start(&lab, Role::Secondary);

    // The secondary answers what is for the sync address and port, and nothing else comes to it.
    for _ in 0..100 {
        assert_eq!(lab.client.ask(address(SYNC_ADDRESS), SYNC_PORT), Some(SECONDARY_QUEUE));
        assert_eq!(lab.client.ask(address(SYNC_ADDRESS), SYNC_PORT + 1), Some(0));
        assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), SYNC_PORT), Some(1));
        assert_eq!(lab.client.ask(address(LOCAL_ADDRESS_IPV6), 7), Some(1));
    }
    for vip in [VIP, VIP_IPV6] {
        let mut answers = [0; 3];
        for _ in 0..64 {
            let queue = lab.client.ask_from_a_new_port(address(vip), SYNC_PORT).unwrap();
            answers[usize::from(queue)] += 1;
        }
        assert!(answers[0] > 8 && answers[1] > 8, "{vip}: {answers:?}");
        assert_eq!(answers[usize::from(SECONDARY_QUEUE)], 0);
    }

    // Rules change while traffic runs.
    primary.command(&format!("insert {VIP} {SECONDARY_QUEUE} 0"));
    assert_eq!(lab.client.ask(address(VIP), 80), Some(SECONDARY_QUEUE));
    assert_eq!(primary.command(&format!("remove {VIP}")), "true");
    assert_eq!(primary.command(&format!("remove {VIP}")), "false");
    assert!(lab.client.ask(address(VIP), 80).unwrap() < PRIMARY_QUEUES);
}

#[test]
fn root_a_killed_secondary_costs_nothing_and_its_successor_takes_over_the_queue() {
    if run_role() {
        return;
    }
    let test = "root_a_killed_secondary_costs_nothing_and_its_successor_takes_over_the_queue";
    let (lab, _primary) = steered(test);
    for _ in 0..5 {
        let secondary = Child::start(&lab, Role::Secondary);
        assert_eq!(lab.client.ask(address(SYNC_ADDRESS), SYNC_PORT), Some(SECONDARY_QUEUE));
        secondary.kill();
        assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), 7), Some(1));
        let config = SharedConfig::open(&lab.runtime(), lab::FILE_PREFIX).unwrap();
        assert_eq!(config.clear(Duration::from_millis(20)), []);
    }
}

#[test]
fn root_a_persistent_tap_survives_its_killed_primary_and_serves_the_next() {
    if run_role() {
        return;
    }
    let test = "root_a_persistent_tap_survives_its_killed_primary_and_serves_the_next";
    let (lab, primary) = steered(test);
    assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), 7), Some(1));
    primary.kill();
    assert!(lab.tap_exists());
    assert_eq!(lab.client.ask_once(address(LOCAL_ADDRESS), 7), None);

    // The dead primary's program is still in the tap; its successor takes it out, or installs its own.
    let mut primary = Child::start(&lab, Role::Primary);
    assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), 7), Some(1));
    primary.command("unsteer");
    primary.command("steer");
    primary.command(&format!("insert {LOCAL_ADDRESS} 0 0"));
    assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), 7), Some(0));
    primary.command(&format!("insert {SYNC_ADDRESS} {SECONDARY_QUEUE} {SYNC_PORT}"));
    let _secondary = Child::start(&lab, Role::Secondary);
    assert_eq!(lab.client.ask(address(SYNC_ADDRESS), SYNC_PORT), Some(SECONDARY_QUEUE));
}

#[test]
fn root_a_port_answers_to_a_mac_that_is_not_the_taps() {
    if run_role() {
        return;
    }
    let (lab, mut primary) = steered("root_a_port_answers_to_a_mac_that_is_not_the_taps");
    assert_ne!(primary.command("mac"), lab::BATON_MAC);
    assert_eq!(primary.command("mac"), lab.tap_mac());
    assert_eq!(lab.client.ask(address(LOCAL_ADDRESS), 7), Some(1));
}

#[test]
fn root_a_flow_rule_on_a_tap_is_created_or_clearly_refused() {
    if run_role() {
        return;
    }
    let lab = Lab::new("root_a_flow_rule_on_a_tap_is_created_or_clearly_refused");
    let mut primary = Child::start(&lab, Role::Primary);
    let answer = primary.command("probe");
    assert!(["created", "unsupported"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn root_locks_that_a_killed_secondary_held_are_cleared_by_name() {
    if run_role() {
        return;
    }
    let (lab, _primary) = steered("root_locks_that_a_killed_secondary_held_are_cleared_by_name");
    for lock in ["memory hotplug", "tail queues", "mempools", "timers"] {
        let mut secondary = Child::start(&lab, Role::Secondary);
        secondary.command(&format!("hold {lock}"));
        secondary.kill();
        let config = SharedConfig::open(&lab.runtime(), lab::FILE_PREFIX).unwrap();
        let cleared = config.clear(Duration::from_millis(20));
        let names: Vec<_> = cleared.iter().map(|lock| lock.name).collect();
        assert_eq!(names, [lock]);
        assert!(!cleared[0].makes_heap_suspect());
        assert_eq!(config.held(), []);
    }
    let _secondary = Child::start(&lab, Role::Secondary);
    assert_eq!(lab.client.ask(address(SYNC_ADDRESS), SYNC_PORT), Some(SECONDARY_QUEUE));
}
