//! The sessions in a node's tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::Lab;
use crate::wait::wait_for;

/// How many sessions of node `number` meet the conditions.
pub fn count(lab: &Lab, number: u16, conditions: &[&str]) -> u64 {
    let report = lab.batonctl(number, &[&["sessions", "--count"], conditions].concat());
    report["matched"].as_u64().expect("a number of sessions")
}

/// The sessions of node `number` that meet the conditions.
pub fn list(lab: &Lab, number: u16, conditions: &[&str]) -> Vec<Value> {
    let report = lab.batonctl(number, &[&["sessions", "--limit", "0"], conditions].concat());
    assert_eq!(report["unreadable"], 0, "{report}");
    report["sessions"].as_array().expect("a list of sessions").clone()
}

/// The clients that have a session in a node's local or remote tables.
pub fn clients(lab: &Lab, number: u16, table: &str) -> BTreeSet<String> {
    let client = |session: Value| session["client"].as_str().expect("a client").to_owned();
    list(lab, number, &["--table", table]).into_iter().map(client).collect()
}

/// All of a node's remote table but the sessions' age, in an order of its own: equal if the tables are.
pub fn remote_table(lab: &Lab, number: u16) -> BTreeSet<String> {
    without(list(lab, number, &["--table", "remote"]), &["idle_ms"])
}

/// What two nodes must agree on: which sessions there are, carried on how, and whose they are.
fn agreed(sessions: Vec<Value>) -> BTreeSet<String> {
    without(sessions, &["idle_ms", "table", "table_number", "state"])
}

fn without(sessions: Vec<Value>, fields: &[&str]) -> BTreeSet<String> {
    let line = |mut session: Value| {
        let object = session.as_object_mut().expect("a session");
        fields.iter().for_each(|field| assert!(object.remove(*field).is_some(), "no {field}"));
        session.to_string()
    };
    sessions.into_iter().map(line).collect()
}

/// The states in which peers know a session.
const REPORTED: [&str; 5] =
    ["udp_one_way", "udp_two_way", "tcp_established", "tcp_fin_from_client", "tcp_fin_from_server"];

/// How many established connections node `number` holds that node `owner` owns.
pub fn established_of(lab: &Lab, number: u16, owner: u16) -> u64 {
    count(lab, number, &["--owner", &owner.to_string(), "--state", "tcp_established"])
}

/// What a node holds of sessions whose handshake is done, its own and others': equal on all nodes if they are in sync.
pub fn held(lab: &Lab, number: u16) -> BTreeSet<String> {
    agreed(shared(lab, number, &[]))
}

/// The clients of all established connections that a node holds, its own and others'.
pub fn established(lab: &Lab, number: u16) -> BTreeSet<String> {
    let client = |session: Value| session["client"].as_str().expect("a client").to_owned();
    shared(lab, number, &["--state", "tcp_established"]).into_iter().map(client).collect()
}

/// The sessions that meet the conditions and that all nodes are to have. What was given up counts for nobody, nobody is told of a
/// handshake, and what has ended stays a while longer at its owner, for its last packets.
fn shared(lab: &Lab, number: u16, conditions: &[&str]) -> Vec<Value> {
    let mut sessions = list(lab, number, conditions);
    sessions.retain(|session| {
        let state = session["state"].as_str().expect("a state");
        let handshake = matches!(state, "tcp_syn_received" | "tcp_syn_acked");
        let ended = matches!(state, "tcp_time_wait" | "tcp_reset") && session["owner"] == number;
        session["owner"] != 0 && !handshake && !ended
    });
    sessions
}

/// How many of the sessions that a node shares are whose, and where they stand.
pub fn census(lab: &Lab, number: u16) -> BTreeMap<String, u32> {
    let mut census = BTreeMap::new();
    for session in shared(lab, number, &[]) {
        *census.entry(format!("{} of {}", session["state"], session["owner"])).or_default() += 1;
    }
    census
}

/// Waits until these nodes hold the same, and at least `sessions_min` sessions; returns how many, and how long that took.
pub fn wait_until_equal(lab: &Lab, nodes: &[u16], sessions_min: u64) -> (u64, Duration) {
    let began = Instant::now();
    let sessions = wait_for(20, "the nodes to hold the same", || {
        let all: Vec<_> = nodes.iter().map(|&node| held(lab, node)).collect();
        let sizes: Vec<_> = all.iter().map(|held| held.len() as u64).collect();
        for other in &all[1..] {
            if let Some(example) = all[0].symmetric_difference(other).next() {
                return Err(format!("{sizes:?} sessions, {example} not everywhere"));
            }
        }
        if sizes[0] >= sessions_min { Ok(sizes[0]) } else { Err(format!("{sizes:?} sessions are too few")) }
    });
    (sessions, began.elapsed())
}

/// Waits until the remote table of node `replica` holds exactly the sessions of node `owner` that peers are to know; returns
/// how many that are.
pub fn wait_until_replicated(lab: &Lab, owner: u16, replica: u16) -> u64 {
    let mut conditions = vec!["--table", "local"];
    REPORTED.iter().for_each(|state| conditions.extend(["--state", state]));
    wait_for(20, "the peer to know every session", || {
        let own = agreed(list(lab, owner, &conditions));
        let known = agreed(list(lab, replica, &["--table", "remote"]));
        if own == known {
            return Ok(own.len() as u64);
        }
        let example = own.symmetric_difference(&known).next();
        Err(format!("{} sessions here, {} there, {example:?} not in both", own.len(), known.len()))
    })
}
