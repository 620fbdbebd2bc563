//! The sessions in a node's tables.

use std::collections::BTreeSet;

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

/// Waits until the remote table of node `replica` holds exactly the sessions of node `owner` that peers are to know; returns
/// how many that are.
pub fn wait_until_replicated(lab: &Lab, owner: u16, replica: u16) -> u64 {
    let reported =
        ["udp_one_way", "udp_two_way", "tcp_established", "tcp_fin_from_client", "tcp_fin_from_server"];
    let mut conditions = vec!["--table", "local"];
    reported.iter().for_each(|state| conditions.extend(["--state", state]));
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
