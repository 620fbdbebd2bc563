use baton_common::control::{RealServerStatus, ServiceStatus, SuccessionStatus, SyncStatus};
use baton_common::id::NodeId;
use baton_common::sync::protocol::readiness::ReadyState;
use baton_common::sync::wire::NodeState;
use baton_common::time::Micros;

use super::*;
use crate::top::reading::TableFill;
use crate::top::reading::tests::thread;

fn service(created: [u64; 2]) -> ServiceStatus {
    let server = |(position, &sessions_created): (usize, &u64)| RealServerStatus {
        endpoint: format!("10.3.0.{position}:80").parse().unwrap(),
        weight: 1,
        sessions_created,
    };
    ServiceStatus {
        name: "web".into(),
        vip: "10.9.0.1:80".parse().unwrap(),
        protocol: baton_common::flow::Protocol::Tcp,
        scheduler: baton_common::config::Scheduler::WeightedRoundRobin,
        real_servers: created.iter().enumerate().map(server).collect(),
    }
}

fn peer_view() -> PeerView {
    PeerView {
        node: 2,
        numa: 0,
        state: Some(NodeState::Ready),
        silent_ms: Some(10),
        announced: Some(50),
        held: 47,
        holds: None,
        equal: false,
        differing: 2,
        repaired: 0,
        missing: 4,
        skipped: 0,
        asked_again: 0,
        ranges_asked: 0,
        ranges_wanted: 1,
        requests_waiting: 0,
        gave_back: true,
        rejects: 0,
        config_differs: false,
    }
}

fn snapshot(records: u64) -> PeerSnapshot {
    PeerSnapshot {
        node: NodeId(2),
        numa: NumaId(0),
        boot_epoch: 1,
        last_heard_ms: 1_000,
        datagrams: records / 10,
        records,
        gaps: 0,
        late: 0,
        rejects: 0,
        highest: Default::default(),
    }
}

/// A node of one worker, so many seconds after its first second, when everything has grown by so much.
fn reading(seconds: u64, grown: u64) -> Reading {
    let worker = [
        (Counter::RxPackets, 1000 + 10 * grown),
        (Counter::TxPackets, 900 + 9 * grown),
        (Counter::DropNoSession, grown),
        (Counter::DropTxFull, 3),
        (Counter::TxBytes, 1000 * grown),
    ];
    Reading {
        at: Micros((1 + seconds) * 1_000_000),
        workers: vec![thread("worker-0", &worker), thread("punt", &[(Counter::Punted, 2 * grown)])],
        secondaries: vec![thread("sync-0", &[(Counter::SyncTxUpserts, 5 * grown)])],
        services: vec![service([grown, 3 * grown])],
        sync: vec![SyncStatus {
            version: "1".into(),
            pid: 1,
            numa: NumaId(0),
            state: ReadyState::Ready,
            alarm: false,
            member: true,
            sessions_owned: 0,
            succession: SuccessionStatus::default(),
            peers: vec![peer_view()],
        }],
        peers: vec![(NumaId(0), snapshot(100 * grown))],
        tables: vec![TableFill { name: "worker-0".into(), sessions: 25, capacity: 100 }],
        ..Reading::default()
    }
}

/// A row of a view over two seconds in which everything grew by 20, by its column's names.
fn row(view: View, first: &str) -> serde_json::Value {
    let (before, now) = (reading(0, 20), reading(2, 40));
    let rows = view.grid(&Interval { before: Some(&before), now: &now }).json();
    let is_it = |row: &&serde_json::Value| row.as_object().unwrap().values().any(|value| value == first);
    rows.as_array().unwrap().iter().find(is_it).unwrap_or_else(|| panic!("no {first} in {rows}")).clone()
}

#[test]
fn a_worker_has_its_rates_and_its_sessions() {
    let worker = row(View::Workers, "worker-0");
    let found =
        ["rx_packets_per_second", "tx_packets_per_second", "drops_per_second", "tx_bits_per_second", "full"]
            .map(|key| worker[key].as_f64().unwrap());
    assert_eq!(found, [100.0, 90.0, 10.0, 80_000.0, 0.25]);
    assert_eq!(worker["sessions"], 25);
    let punt = row(View::Workers, "punt");
    assert_eq!((&punt["punted_per_second"], &punt["sessions"]), (&20.0.into(), &serde_json::Value::Null));
}

#[test]
fn a_service_is_the_sum_of_its_servers() {
    let service = row(View::Services, "web");
    assert_eq!((&service["created_per_second"], &service["created"]), (&40.0.into(), &160.into()));
    let server = row(View::Servers, "10.3.0.1:80");
    assert_eq!((&server["created_per_second"], &server["created"]), (&30.0.into(), &120.into()));
}

#[test]
fn a_peer_shows_how_far_behind_this_node_is() {
    let peer = row(View::Peers, "node 2");
    assert_eq!(
        (&peer["state"], &peer["behind"], &peer["missing_datagrams"]),
        (&"ready".into(), &3.into(), &4.into())
    );
    assert_eq!((&peer["records_per_second"], &peer["silent_ms"]), (&1000.0.into(), &2000.into()));
}

#[test]
fn a_peer_that_is_not_heard_is_silent_and_one_without_a_secondary_unknown() {
    let state = |now: &Reading| View::Peers.grid(&Interval { before: None, now }).json()[0]["state"].clone();
    assert_eq!(state(&reading(20, 1)), "silent");
    let mut stopped = reading(0, 1);
    stopped.sync.clear();
    assert_eq!(state(&stopped), "secondary not running");
}

#[test]
fn a_member_that_was_never_heard_has_its_row() {
    let now = Reading { members: vec![NodeId(2), NodeId(3)], ..reading(0, 1) };
    let rows = View::Peers.grid(&Interval { before: None, now: &now }).json();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| (&row["peer"], &row["state"])).collect();
    assert_eq!(states, [(&"node 2".into(), &"ready".into()), (&"node 3".into(), &"never heard".into())]);
    assert_eq!(rows[1]["behind"], serde_json::Value::Null);
}

#[test]
fn only_reasons_that_were_counted_are_shown_with_their_share() {
    let drop = row(View::Drops, "no_session");
    assert_eq!(
        (&drop["per_second"], &drop["share"], &drop["total"]),
        (&10.0.into(), &0.1.into(), &40.into())
    );
    let now = reading(2, 40);
    assert_eq!(View::Drops.grid(&Interval { before: None, now: &now }).rows.len(), 2);
}

#[test]
fn what_secondaries_count_has_its_rate() {
    assert_eq!(row(View::Sync, "sync_tx_upserts")["per_second"], 50.0);
}

#[test]
fn every_row_has_a_cell_for_each_column_and_every_view_sorts_by_one_of_them() {
    let now = reading(2, 40);
    for view in View::ALL {
        let grid = view.grid(&Interval { before: None, now: &now });
        assert!(
            !grid.rows.is_empty() && grid.rows.iter().all(|row| row.len() == grid.columns.len()),
            "{view:?}"
        );
        assert!(view.sorting().column < grid.columns.len(), "{view:?}");
    }
}
