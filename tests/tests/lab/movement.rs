//! Nodes go, come and come back under load, three of them behind one router: every connection goes on.

use std::time::Instant;

use baton_common::counter::Counter;

use crate::counters::{self, Counters};
use crate::harness::Lab;
use crate::load::Report;
use crate::sessions;
use crate::traffic::Traffic;
use crate::wait::wait_for;
use crate::young;

const NODES: [u16; 3] = [1, 2, 3];

#[test]
fn root_a_node_dies_returns_and_has_its_state_back_before_it_draws_traffic() {
    let lab = Lab::up(&["--nodes", "3"]);
    let traffic = Traffic::start(&lab);
    let killed_at_ms = die_and_return(&lab);
    finish(&lab, traffic, &[killed_at_ms], young::AGE_MS);
}

#[test]
fn root_a_node_that_is_added_under_load_takes_its_share_and_costs_nothing() {
    let lab = Lab::up(&["--nodes", "3", "--present", "2"]);
    let traffic = Traffic::start(&lab);
    let before = sessions::established(&lab, 1);

    lab.start("n3", &[]);
    lab.wait_in_sync(3);
    let held = sessions::established(&lab, 3);
    assert_holds_what_stayed(&lab, 1, &before, &held);
    let drawn = Counters::read(&lab, 3);
    assert_eq!(drawn.get(Counter::SessionsCreated) + drawn.get(Counter::RemoteHits), 0, "not announced yet");
    lab.run(&["announce", "n3"]);

    wait_for_claims(&lab, 3, 0);
    wait_for(10, "the new node to open sessions", || {
        counters::at_least(&lab, 3, Counter::SessionsCreated, 10)
    });
    let added = Counters::read(&lab, 3);
    assert_eq!(added.get(Counter::DropNotReady), 0, "{added:?}");
    finish(&lab, traffic, &[], 0.0);
}

#[test]
fn root_a_withdraw_moves_connections_between_live_nodes_and_back() {
    let lab = Lab::up(&["--nodes", "3"]);
    let traffic = Traffic::start(&lab);
    withdraw_and_announce(&lab);
    finish(&lab, traffic, &[], 0.0);
}

#[test]
fn root_movement_with_five_percent_loss_between_the_nodes_costs_nothing() {
    // What was lost is noticed by the datagram after it, a hello after a second at the latest, then asked for.
    const REPAIRED_MS: f64 = 1500.0;
    let lab = Lab::up(&["--nodes", "3"]);
    // Each datagram is impaired on its way out of one node and on its way into another.
    for node in NODES {
        lab.run(&["impair", &format!("n{node}"), "--loss", "2.5"]);
    }
    let traffic = Traffic::start(&lab);

    withdraw_and_announce(&lab);
    let killed_at_ms = die_and_return(&lab);

    let lost: u64 = NODES.iter().map(|&node| Counters::read(&lab, node).get(Counter::SyncRxGaps)).sum();
    println!("{lost} datagrams of the change streams were lost");
    assert!(lost >= 10, "{lost} losses are too few to tell");
    finish(&lab, traffic, &[killed_at_ms], REPAIRED_MS);
}

/// Node 1 dies and loses everything; the others carry its connections on. It starts, gets everything back, and only then is
/// announced. Returns when it died.
fn die_and_return(lab: &Lab) -> f64 {
    let owned = NODES.map(|node| sessions::established_of(lab, node, node));
    assert!(owned.iter().all(|&sessions| sessions >= 10), "every node has a share: {owned:?}");
    let before = NODES.map(|node| Counters::read(lab, node));

    let killed_at_ms = lab.kill_now("n1");
    lab.run(&["withdraw", "n1"]);
    assert_eq!((lab.pid("n1", "primary"), lab.pid("n1", "sync")), (None, None));
    // Its connections that are busy, and those that the router moves between the two.
    wait_for(10, "the others to claim", || {
        let claimed: u64 =
            [2, 3].map(|node| claims_since(lab, node, &before[usize::from(node) - 1])).iter().sum();
        if claimed >= owned[0] / 3 { Ok(()) } else { Err(format!("{claimed} claimed of {}", owned[0])) }
    });
    for node in [2, 3] {
        let added = Counters::read(lab, node).since(&before[usize::from(node) - 1]);
        assert!(added.get(Counter::RemoteHits) > 100, "node {node} carries connections on: {added:?}");
    }

    lab.run(&["forget", "n1"]);
    let held_for_it = sessions::established_of(lab, 2, 1);
    assert!(held_for_it > 0, "nothing is left that node 1 could get back");
    let others = sessions::established(lab, 2);
    let started = Instant::now();
    lab.start("n1", &[]);
    lab.wait_in_sync(1);
    let ready_ms = started.elapsed().as_millis();
    let held = sessions::established(lab, 1);
    assert_holds_what_stayed(lab, 2, &others, &held);
    let own = sessions::count(lab, 1, &["--table", "remote", "--owner", "1"]);
    println!(
        "ready after {ready_ms} ms: {} sessions, {own} of {held_for_it} own ones given back",
        held.len()
    );
    assert!(own > 0, "its own sessions were not given back");
    let drawn = Counters::read(lab, 1);
    assert_eq!(drawn.get(Counter::SessionsCreated), 0, "not announced yet");

    lab.run(&["announce", "n1"]);
    wait_for_claims(lab, 1, 0);
    wait_for(10, "the node to open sessions", || counters::at_least(lab, 1, Counter::SessionsCreated, 10));
    let counters = Counters::read(lab, 1);
    assert_eq!(counters.get(Counter::DropNotReady), 0, "{counters:?}");
    killed_at_ms
}

/// Node 2 is withdrawn and announced again, twice, each time for as long as it takes to claim.
fn withdraw_and_announce(lab: &Lab) {
    for round in 1..=2 {
        let before = NODES.map(|node| Counters::read(lab, node).get(Counter::SessionsClaimed));
        let owned = sessions::established_of(lab, 2, 2);
        assert!(owned >= 10, "node 2 has a share: {owned}");

        lab.run(&["withdraw", "n2"]);
        wait_for_claims(lab, 1, before[0]);
        wait_for_claims(lab, 3, before[2]);
        lab.run(&["announce", "n2"]);
        wait_for_claims(lab, 2, before[1]);

        let after = NODES.map(|node| Counters::read(lab, node).get(Counter::SessionsClaimed));
        println!("round {round}: node 2 owned {owned}; claims before {before:?}, after {after:?}");
    }
}

/// Waits until node `number` has claimed sessions, several more than it had.
fn wait_for_claims(lab: &Lab, number: u16, before: u64) {
    wait_for(10, "the node to claim", || {
        counters::at_least(lab, number, Counter::SessionsClaimed, before + 10)
    });
}

fn claims_since(lab: &Lab, number: u16, before: &Counters) -> u64 {
    Counters::read(lab, number).since(before).get(Counter::SessionsClaimed)
}

/// Panics unless `held` has every client that node `other` knew `before` and knows still.
fn assert_holds_what_stayed(
    lab: &Lab,
    other: u16,
    before: &std::collections::BTreeSet<String>,
    held: &std::collections::BTreeSet<String>,
) {
    let after = sessions::established(lab, other);
    let stayed: Vec<_> = before.intersection(&after).collect();
    assert!(stayed.len() as u64 >= Traffic::staying(), "{} sessions stayed", stayed.len());
    let missing: Vec<_> = stayed.iter().filter(|client| !held.contains(**client)).collect();
    assert!(missing.is_empty(), "{} of {} missing: {missing:?}", missing.len(), stayed.len());
}

/// Ends the traffic: nothing was lost, but for what was younger than `age_ms` when a node died; all nodes hold the same.
fn finish(lab: &Lab, traffic: Traffic, deaths_ms: &[f64], age_ms: f64) {
    let (staying, came) = traffic.stop_coming();
    came.iter().for_each(|report: &Report| young::assert_only_young_lost(report, deaths_ms, age_ms));
    let (held, took) = sessions::wait_until_equal(lab, &NODES, Traffic::staying());
    println!(
        "{held} sessions held by all after {} ms, {} connections stay",
        took.as_millis(),
        Traffic::staying()
    );
    for node in NODES {
        println!("node {node}: {:?}", sessions::census(lab, node));
    }
    staying.finish_whole();
}
