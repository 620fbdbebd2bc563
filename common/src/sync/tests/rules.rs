//! The rules by which a receiver believes one node rather than another (DESIGN: owner and generation).

use super::*;
use crate::id::Generation;
use crate::session::SessionState;
use crate::sync::apply::{Circumstances, apply};
use crate::sync::remote::RemoteTable;
use crate::sync::wire::{Body, Ended, Refreshed, Reported};

/// What its owner sends of a session, and who that is. So with the other two.
pub(super) fn reported(session: &Session) -> (NodeId, Body) {
    let Session { owner, generation, state, client, vip, local, server, .. } = *session;
    let remaining_ms = crate::sync::ageing::remaining_ms(session, &TIMEOUTS, NOW);
    (owner, Body::Upsert(Reported { generation, state, remaining_ms, client, vip, local, server }))
}

pub(super) fn ended(session: &Session) -> (NodeId, Body) {
    let Session { owner, generation, state, client, vip, .. } = *session;
    (owner, Body::Delete(Ended { generation, state, client, vip }))
}

pub(super) fn refreshed(session: &Session) -> (NodeId, Body) {
    let Session { owner, generation, state, client, vip, .. } = *session;
    let remaining_ms = crate::sync::ageing::remaining_ms(session, &TIMEOUTS, NOW);
    (owner, Body::Refresh(Refreshed { generation, state, remaining_ms, client, vip }))
}

/// Session 1 as the table has it: node 2, generation 5, established.
fn held() -> Session {
    Session { generation: Generation(5), ..session_v4(1) }
}

fn table_of(sessions: &[Session]) -> ModelTable {
    let mut table = ModelTable::new(10);
    for session in sessions {
        table.insert(session).unwrap();
    }
    table
}

fn owned_by(node: u16, generation: u32) -> Session {
    Session { owner: NodeId(node), generation: Generation(generation), ..held() }
}

/// Applies a record that its owner sent.
fn send((sender, body): (NodeId, Body), late: bool, table: &mut ModelTable) -> Result<(), Reject> {
    let circumstances =
        Circumstances { sender, late, now: NOW, timeouts: &TIMEOUTS, is_local: |_: &FlowKey| false };
    let before = table.clone();
    let result = apply(&body, &circumstances, table);
    table.assert_consistent();
    if matches!(result, Err(reject) if reject != Reject::TableFull) {
        assert_eq!(*table, before, "what is rejected changes nothing");
    }
    result
}

fn the_session(table: &ModelTable) -> Session {
    table.sessions[&held().client_key()]
}

#[test]
fn generation_and_owner_decide_who_is_believed() {
    let cases = [
        ("lower generation of the same owner", owned_by(2, 4), Err(Reject::Stale)),
        ("lower generation of a lower node", owned_by(1, 4), Err(Reject::Stale)),
        ("equal generation of the same owner", owned_by(2, 5), Ok(())),
        ("equal generation of a lower node", owned_by(1, 5), Ok(())),
        ("equal generation of a higher node", owned_by(3, 5), Err(Reject::Stale)),
        ("higher generation of a higher node", owned_by(3, 6), Ok(())),
        ("highest generation", owned_by(3, u32::MAX), Ok(())),
    ];
    for (what, session, expected) in cases {
        for late in [false, true] {
            let mut table = table_of(&[held()]);
            assert_eq!(send(reported(&session), late, &mut table), expected, "upsert, {what}");
            let owner = if expected.is_ok() { session.owner } else { held().owner };
            assert_eq!(the_session(&table).owner, owner, "upsert, {what}");

            let mut table = table_of(&[held()]);
            assert_eq!(send(refreshed(&session), late, &mut table), expected, "refresh, {what}");
            let generation = if expected.is_ok() { session.generation } else { held().generation };
            assert_eq!(the_session(&table).generation, generation, "refresh, {what}");

            let mut table = table_of(&[held()]);
            assert_eq!(send(ended(&session), late, &mut table), expected, "delete, {what}");
            assert_eq!(table.sessions.is_empty(), expected.is_ok(), "delete, {what}");
        }
    }
}

#[test]
fn a_late_upsert_never_sets_the_state_back() {
    let closing = Session { state: SessionState::TcpFinFromServer, ..held() };
    let mut table = table_of(&[closing]);
    assert_eq!(send(reported(&held()), true, &mut table), Err(Reject::Stale));

    assert_eq!(send(reported(&closing), true, &mut table), Ok(()), "the same state is no step back");

    let other_fin = Session { state: SessionState::TcpFinFromClient, ..held() };
    assert_eq!(send(reported(&other_fin), true, &mut table), Ok(()));
    assert_eq!(the_session(&table).state, SessionState::TcpTimeWait, "a FIN from each side makes two");
}

#[test]
fn an_upsert_in_order_begins_a_new_connection_on_old_endpoints() {
    let closed = Session { state: SessionState::TcpTimeWait, ..held() };
    let mut table = table_of(&[closed]);

    assert_eq!(send(reported(&held()), false, &mut table), Ok(()));

    assert_eq!(the_session(&table).state, SessionState::TcpEstablished);
}

#[test]
fn a_refresh_makes_a_session_younger_and_further_on_only() {
    let old = Session { last_seen: NOW - 50_000, ..held() };
    let mut table = table_of(&[old]);

    let earlier = Session { state: SessionState::TcpSynAcked, last_seen: NOW - 9_000, ..held() };
    assert_eq!(send(refreshed(&earlier), false, &mut table), Ok(()));
    assert_eq!(the_session(&table), Session { last_seen: NOW - 9_000, ..held() });

    let further = Session { state: SessionState::TcpFinFromClient, last_seen: NOW - 40_000, ..held() };
    assert_eq!(send(refreshed(&further), false, &mut table), Ok(()));
    let expected = Session { state: SessionState::TcpFinFromClient, last_seen: NOW - 9_000, ..held() };
    assert_eq!(the_session(&table), expected);
}

#[test]
fn other_endpoints_under_the_same_client_key_replace_the_session() {
    let mut moved = held();
    moved.local.port += 1;
    moved.server.port += 1;
    let mut table = table_of(&[held()]);

    assert_eq!(send(reported(&moved), false, &mut table), Ok(()));

    assert_eq!(the_session(&table).server_key(), moved.server_key());
    assert!(table.lookup(&held().server_key()).is_none());
}

#[test]
fn a_late_upsert_does_not_replace_a_session_of_its_generation() {
    let mut moved = held();
    moved.local.port += 1;
    assert_eq!(send(reported(&moved), true, &mut table_of(&[held()])), Err(Reject::Stale));
}

#[test]
fn a_local_endpoint_used_again_displaces_the_session_whose_end_was_lost() {
    let mut next = session_v4(2);
    next.local = held().local;
    let mut table = table_of(&[held()]);

    assert_eq!(send(reported(&next), false, &mut table), Ok(()));

    assert_eq!(table.sessions.len(), 1);
    assert_eq!(table.lookup(&held().server_key()).unwrap().1.client, next.client);
}

#[test]
fn one_owner_does_not_displace_anothers_session() {
    let mut next = Session { owner: NodeId(3), ..session_v4(2) };
    next.local = held().local;
    assert_eq!(send(reported(&next), false, &mut table_of(&[held()])), Err(Reject::Conflict));
    next.owner = NodeId(2);
    assert_eq!(send(reported(&next), true, &mut table_of(&[held()])), Err(Reject::Conflict), "late");
}

#[test]
fn a_client_side_key_that_is_a_server_side_one_is_a_conflict() {
    let mut swapped = session_v4(2);
    (swapped.client, swapped.vip) = (held().server, held().local);
    for body in [reported(&swapped), ended(&swapped), refreshed(&swapped)] {
        assert_eq!(send(body, false, &mut table_of(&[held()])), Err(Reject::Conflict));
    }
    let mut swapped = session_v4(2);
    (swapped.server, swapped.local) = (held().client, held().vip);
    assert_eq!(send(reported(&swapped), false, &mut table_of(&[held()])), Err(Reject::Conflict));
}

#[test]
fn a_full_table_is_counted_and_keeps_what_it_has() {
    let mut node = Node::new();
    node.table = ModelTable::new(1);
    let events = [upsert(session_v4(1)), upsert(session_v4(2)), upsert(session_v4(1))];

    node.receive(&datagrams_of(&events)[0]).unwrap();

    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 2), (Counter::SyncRejectTableFull, 1)]);
    assert!(node.table.sessions.contains_key(&session_v4(1).client_key()));
}

#[test]
fn a_session_of_this_nodes_own_tables_is_refused_under_either_key() {
    for key in [session_v4(1).client_key(), session_v4(1).server_key()] {
        let mut node = Node::new();
        node.local.push(key);

        node.receive(&datagrams_of(&[upsert(session_v4(1))])[0]).unwrap();

        assert_eq!(node.counted(), [(Counter::SyncRejectLocalSession, 1)]);
        assert!(node.table.sessions.is_empty());
    }
}

#[test]
fn a_session_keeps_its_age_across_the_wire() {
    let old = Session { last_seen: NOW - 123_456, ..session_v6(1) };
    let mut node = Node::new();

    node.receive(&datagrams_of(&[upsert(old)])[0]).unwrap();

    let last_seen = node.table.sessions[&old.client_key()].last_seen;
    let rounded = last_seen.since(old.last_seen);
    assert!(
        last_seen >= old.last_seen && rounded <= 600,
        "rounded up by {rounded} ms, less than a thousandth"
    );
}
