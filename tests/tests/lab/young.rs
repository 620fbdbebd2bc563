//! Connections that were opened in the very moment in which their node died, or the router sent their packets elsewhere.
//!
//! A connection is lost with its node if the client takes it for open and no peer was told of it. The client does so when it gets the
//! server's SYN-ACK; the peers are told when the client's answer to that has come to the node, the event has gone through the ring,
//! and `flush_us` is over at the latest. In between only the node has the session: nobody else knows the server and the local endpoint,
//! and the server has no part in it. A connection whose SYN-ACK has not come is not lost: the client's next SYN, a
//! second later, opens it through another node. One that is known to any peer goes on.
//!
//! On an idle machine this gap is a fraction of a millisecond and a round trip to the client; where all of a lab's processes
//! share a few CPUs it lasts until each had its turn.
//!
//! When it is the router that changes its mind in this gap, the node is still there to be asked: nothing is lost.

use std::collections::BTreeSet;

use baton_common::counter::Counter;

use crate::counters::{self, Counters};
use crate::harness::{HTTP4, HTTP6, Lab};
use crate::load::{Load, Report};
use crate::sessions;
use crate::wait::wait_for;

/// A connection that was open for so long when its node died goes on. Milliseconds; a peer is told after `flush_us`, a fifth of
/// one, but the machine that tests run on may be busy with other things.
pub const AGE_MS: f64 = 100.0;
/// A client may notice so much later that its connection is open.
const LATE_MS: f64 = 50.0;
/// Connections a second of each family.
const RATE: u32 = 150;
/// Requests in each, ten a second: so long it lives.
const REQUESTS: &str = "8";
/// Connections that a node opens, at least, before it dies.
const SHARE: u64 = 100;
const NODES: [u16; 3] = [1, 2, 3];

#[test]
fn root_connections_opened_in_the_moment_of_a_death_are_all_that_can_be_lost() {
    let lab = Lab::up(&["--nodes", "3"]);
    let options = ["--requests", REQUESTS, "--timeout-ms", "8000"];
    let mut loads = [HTTP4, HTTP6].map(|target| Load::churn(&lab, target, RATE, &options));
    loads.iter_mut().for_each(Load::wait_ready);

    let (mut deaths_ms, mut known) = (Vec::new(), BTreeSet::new());
    for number in NODES {
        let node = format!("n{number}");
        wait_for(20, "the node to open its share", || {
            counters::at_least(&lab, number, Counter::SessionsCreated, SHARE)
        });
        deaths_ms.push(lab.kill_now(&node));
        lab.run(&["withdraw", &node]);
        for survivor in NODES.into_iter().filter(|survivor| *survivor != number) {
            known.extend(sessions::established(&lab, survivor));
        }
        lab.run(&["forget", &node]);
        lab.start(&node, &[]);
        lab.run(&["announce", &node]);
    }

    for report in loads.map(Load::finish) {
        assert_only_young_lost(&report, &deaths_ms, AGE_MS);
        let known: Vec<_> =
            report.losses().into_iter().filter(|(client, _)| known.contains(client)).collect();
        assert!(known.is_empty(), "lost, though a peer knew them: {known:?}");
    }
}

/// How often a node's routes go and come back.
const REHASHES: u32 = 20;

#[test]
fn root_no_connection_is_lost_when_the_router_changes_its_mind_in_the_middle_of_a_handshake() {
    let lab = Lab::up(&["--nodes", "3"]);
    let options = ["--requests", "4", "--timeout-ms", "8000"];
    let mut loads = [HTTP4, HTTP6].map(|target| Load::churn(&lab, target, 2 * RATE, &options));
    loads.iter_mut().for_each(Load::wait_ready);

    for _ in 0..REHASHES {
        lab.run(&["withdraw", "n3"]);
        lab.run(&["announce", "n3"]);
    }

    for report in loads.map(Load::finish) {
        assert_only_young_lost(&report, &[], 0.0);
    }
    // Without this the test would say nothing: connections did change nodes before they were a second old.
    let counted =
        |counter: Counter| NODES.map(|number| Counters::read(&lab, number).get(counter)).iter().sum::<u64>();
    println!(
        "{} answers about unfinished handshakes and others, {} claims",
        counted(Counter::QueriesAnswered),
        counted(Counter::SessionsClaimed)
    );
    assert!(counted(Counter::SessionsClaimed) > 10);
}

/// Panics unless every connection that was lost was open for less than `age_ms` when one of the deaths came. Prints how many
/// were that young, and how many of these were lost.
pub fn assert_only_young_lost(report: &Report, deaths_ms: &[f64], age_ms: f64) {
    let is_young =
        |opened_at: f64| deaths_ms.iter().any(|died| (died - age_ms..died + LATE_MS).contains(&opened_at));
    let (opened, losses) = (report.times("opened_at_ms"), report.losses());
    let young = opened.iter().filter(|at| is_young(**at)).count();
    println!(
        "{} connections opened, {young} around deaths at {deaths_ms:?}; {} lost: {}; longest pause {} ms",
        opened.len(),
        losses.len(),
        report.losses_in_full(),
        report.seconds("longest_pause_ms"),
    );
    let old: Vec<_> = losses.iter().filter(|(_, opened_at)| !is_young(*opened_at)).collect();
    assert!(old.is_empty(), "lost, and not opened at a death at {deaths_ms:?}: {}", report.losses_in_full());
    let [begun, closed, not_opened] = ["begun", "closed", "not_opened"].map(|name| report.number(name));
    assert_eq!((not_opened, closed + losses.len() as u64), (0, begun));
}
