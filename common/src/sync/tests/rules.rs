//! The rules by which a node believes one owner rather than another: `docs/session-rules.md`.

use super::*;
use crate::id::Generation;
use crate::session::SessionState;

/// Nodes that are members, beside node 1, which hears them.
const LOWER: NodeId = SENDER;
const HOLDER: NodeId = OTHER;
const HIGHER: NodeId = NodeId(4);

/// Session 1 as the table has it: node 3, generation 5, established.
fn held() -> Session {
    Session { owner: HOLDER, generation: Generation(5), ..session_v4(1) }
}

fn owned_by(owner: NodeId, generation: u32) -> Session {
    Session { owner, generation: Generation(generation), ..held() }
}

/// Node 1 with these sessions in its remote table.
fn node_of(sessions: &[Session]) -> Node {
    let mut node = Node::new();
    for session in sessions {
        node.tables.insert(session).unwrap();
    }
    node
}

/// Node 1, one of whose workers has this session of its own.
fn node_with_own(session: &Session) -> Node {
    let mut node = Node::new();
    node.tables.insert_local(session).unwrap();
    node
}

/// A session of node 1's own, of which its peers were told.
fn own() -> Session {
    Session { owner: RECEIVER, last_sent: NOW, ..held() }
}

/// The number that was heard last of an owner's change stream.
fn last_heard<T: Tables>(node: &Node<T>, owner: NodeId) -> u64 {
    node.heard().iter().find(|peer| peer.node == owner).map_or(0, |peer| peer.highest[0])
}

/// What a node holds of others. What it owns itself it may make newer because of what is said and not true any more.
fn others<T: Tables>(node: &Node<T>) -> Vec<(Place, Session)> {
    let mut places = node.places();
    places.retain(|(_, session)| session.owner != node.node);
    places
}

/// Has the owner of a session say this of it. If it is to come late, what was sent after it has come before.
pub(super) fn send<T: Tables>(
    kind: EventKind,
    session: &Session,
    late: bool,
    node: &mut Node<T>,
) -> Result<(), Reject> {
    let owner = session.owner;
    let state = SyncState::new();
    state.begin(EPOCH);
    state.set_last_sequence(StreamId::CHANGES, last_heard(node, owner) + u64::from(late));
    let identity = identity_of(owner);
    let bodies = [body_of(&Event { kind, session: *session })];
    let datagram = sent_by(identity, StreamId::CHANGES, &bodies, Sealer::off(), &state).remove(0);
    if late {
        let mut header = Header::decode(&datagram).unwrap().0;
        for sequence in [header.sequence - 1, header.sequence + 1] {
            header.sequence = sequence;
            node.receive_from(address_of(owner), &header.encode()).unwrap();
        }
    }
    let before = others(node);
    *node.counters = CounterBlock::new();

    let received = node.receive_from(address_of(owner), &datagram).unwrap();

    assert_eq!(node.counters.value(Counter::SyncRxLate), u64::from(late));
    if received.applied == 1 {
        return Ok(());
    }
    let reject = Reject::ALL.iter().find(|reject| node.counters.value(reject.counter()) != 0);
    let reject = *reject.expect("counted");
    if reject != Reject::TableFull {
        let mut left = before;
        let is_gone = reject == Reject::Conflict && node.tables.find(&session.client_key()).is_none();
        left.retain(|(_, other)| !(is_gone && other.client_key() == session.client_key()));
        assert_eq!(others(node), left, "what is rejected changes nothing but what it was to replace");
    }
    Err(reject)
}

fn tell(kind: EventKind, session: &Session, late: bool, node: &mut Node) -> Result<(), Reject> {
    let sent = send(kind, session, late, node);
    assert_eq!(node.tables.violation, None);
    sent
}

fn report(session: &Session, late: bool, node: &mut Node) -> Result<(), Reject> {
    tell(EventKind::Upsert, session, late, node)
}

fn refresh(session: &Session, late: bool, node: &mut Node) -> Result<(), Reject> {
    tell(EventKind::Refresh, session, late, node)
}

fn the_session(node: &Node) -> Session {
    node.tables.find(&held().client_key()).expect("it is there").session
}

#[test]
fn generation_and_owner_decide_who_is_believed() {
    let cases = [
        ("lower generation of the same owner", owned_by(HOLDER, 4), false),
        ("lower generation of a lower node", owned_by(LOWER, 4), false),
        ("equal generation of the same owner", owned_by(HOLDER, 5), true),
        ("equal generation of a lower node", owned_by(LOWER, 5), true),
        ("equal generation of a higher node", owned_by(HIGHER, 5), false),
        ("higher generation of a higher node", owned_by(HIGHER, 6), true),
        ("highest generation", owned_by(HIGHER, u32::MAX), true),
    ];
    // It was idle for its timeout, or nobody would end it whom its holder believes.
    let idle =
        |session: Session| Session { last_seen: NOW - u64::from(TIMEOUTS.tcp_established_ms), ..session };
    for (what, session, wins) in cases {
        let expected = if wins { Ok(()) } else { Err(Reject::Stale) };
        for late in [false, true] {
            let mut node = node_of(&[held()]);
            assert_eq!(report(&session, late, &mut node), expected, "upsert, {what}");
            let owner = if wins { session.owner } else { HOLDER };
            assert_eq!(the_session(&node).owner, owner, "upsert, {what}");

            let mut node = node_of(&[idle(held())]);
            assert_eq!(tell(EventKind::Delete, &session, late, &mut node), expected, "delete, {what}");
            assert_eq!(node.sessions().is_empty(), wins, "delete, {what}");

            // A refresh does not name the other half of the session, so it is heeded only by who knows that very version.
            let is_known = (session.owner, session.generation) == (HOLDER, Generation(5));
            let expected = match (wins, is_known) {
                (_, true) => Ok(()),
                (true, false) => Err(Reject::UnknownSession),
                (false, false) => Err(Reject::Stale),
            };
            let mut node = node_of(&[idle(held())]);
            assert_eq!(refresh(&session, late, &mut node), expected, "refresh, {what}");
            assert_eq!(the_session(&node).last_seen == NOW, is_known, "refresh, {what}");
        }
    }
}

#[test]
fn no_upsert_of_the_same_session_sets_its_state_back() {
    let closing = Session { state: SessionState::TcpFinFromServer, ..held() };
    let other_fin = Session { state: SessionState::TcpFinFromClient, ..held() };
    for late in [false, true] {
        let mut node = node_of(&[closing]);
        assert_eq!(report(&held(), late, &mut node), Ok(()));
        assert_eq!(the_session(&node).state, SessionState::TcpFinFromServer);

        let claimed = Session {
            state: SessionState::TcpEstablished,
            ..owned_by(HIGHER, held().generation.of_next_owner().0)
        };
        assert_eq!(report(&claimed, late, &mut node), Ok(()));
        assert_eq!(the_session(&node).state, SessionState::TcpFinFromServer, "nor does a claim");

        let mut node = node_of(&[closing]);
        assert_eq!(report(&other_fin, late, &mut node), Ok(()));
        assert_eq!(the_session(&node).state, SessionState::TcpTimeWait, "a FIN from each side makes two");
    }
}

#[test]
fn a_new_connection_on_the_same_endpoints_begins_with_its_own_state() {
    let next_session = held().generation.of_next_session().0;
    for owner in [LOWER, HOLDER, HIGHER] {
        for state in [SessionState::TcpFinFromServer, SessionState::TcpTimeWait] {
            let mut node = node_of(&[Session { state, ..held() }]);

            assert_eq!(report(&owned_by(owner, next_session), false, &mut node), Ok(()));

            assert_eq!(the_session(&node).state, SessionState::TcpEstablished, "{owner}, {state:?}");
        }
    }
}

#[test]
fn a_refresh_makes_a_session_younger_and_further_on_only() {
    let old = Session { last_seen: NOW - 50_000, ..held() };
    let mut node = node_of(&[old]);

    let earlier = Session { state: SessionState::TcpSynAcked, last_seen: NOW - 9_000, ..held() };
    assert_eq!(refresh(&earlier, false, &mut node), Ok(()));
    assert_eq!(the_session(&node), Session { last_seen: NOW - 9_000, ..held() });

    let further = Session { state: SessionState::TcpFinFromClient, last_seen: NOW - 40_000, ..held() };
    assert_eq!(refresh(&further, false, &mut node), Ok(()));
    let expected = Session { state: SessionState::TcpFinFromClient, last_seen: NOW - 9_000, ..held() };
    assert_eq!(the_session(&node), expected);
}

#[test]
fn other_endpoints_under_the_same_client_key_replace_the_session() {
    let mut moved = held();
    moved.local.port += 1;
    moved.server.port += 1;
    let mut node = node_of(&[held()]);

    assert_eq!(report(&moved, false, &mut node), Ok(()));

    assert_eq!(the_session(&node).server_key(), moved.server_key());
    assert!(node.tables.find(&held().server_key()).is_none());
}

#[test]
fn a_late_upsert_does_not_replace_a_session_of_its_generation() {
    let mut moved = held();
    moved.local.port += 1;
    assert_eq!(report(&moved, true, &mut node_of(&[held()])), Err(Reject::Stale));
}

/// Another session, whose local endpoint and server are those of session 1.
fn next(owner: NodeId) -> Session {
    Session { owner, local: held().local, ..session_v4(2) }
}

#[test]
fn a_local_endpoint_used_again_displaces_the_session_whose_end_was_lost() {
    for owner in [LOWER, HOLDER, HIGHER] {
        let mut node = node_of(&[held()]);

        assert_eq!(report(&next(owner), false, &mut node), Ok(()), "{owner}");

        assert_eq!(node.sessions().len(), 1);
        assert_eq!(node.tables.find(&held().server_key()).unwrap().session.client, next(owner).client);
    }
}

#[test]
fn late_news_displaces_only_what_has_ended() {
    assert_eq!(report(&next(HOLDER), true, &mut node_of(&[held()])), Err(Reject::Conflict));
    let ended = Session { state: SessionState::TcpReset, ..held() };
    assert_eq!(report(&next(HOLDER), true, &mut node_of(&[ended])), Ok(()));
}

#[test]
fn a_local_endpoint_of_a_workers_own_session_is_not_given_away() {
    for late in [false, true] {
        let refused = report(&next(HOLDER), late, &mut node_with_own(&own()));
        assert_eq!(refused, Err(Reject::Conflict));
    }
    let ended = Session { state: SessionState::TcpTimeWait, ..own() };
    assert_eq!(report(&next(HOLDER), false, &mut node_with_own(&ended)), Ok(()));
}

#[test]
fn a_session_of_a_workers_own_is_given_to_whoever_has_a_newer_one() {
    let mut moved = owned_by(HIGHER, 6);
    moved.local.port += 1;
    for (what, theirs) in [("the same endpoints", owned_by(HIGHER, 6)), ("other endpoints", moved)] {
        let mut node = node_with_own(&own());
        let stale = Session { generation: Generation(5), ..theirs };
        assert_eq!(report(&stale, false, &mut node), Err(Reject::Stale), "{what}");

        assert_eq!(report(&theirs, false, &mut node), Ok(()), "{what}");

        let found = node.tables.find(&held().client_key()).unwrap();
        assert_eq!((found.session.owner, found.session.local), (HIGHER, theirs.local), "{what}");
        let stays = theirs.local == own().local;
        assert_eq!(node.tables.is_remote(found.place), !stays, "{what}: in place if it is the same session");
        let in_worker = node.tables.find_local(&held().client_key()).unwrap();
        assert_eq!(in_worker.session.owner, if stays { HIGHER } else { NodeId(0) }, "{what}");
    }
}

#[test]
fn a_session_that_no_peer_was_told_of_gives_way_to_one_that_was_told() {
    let untold = Session { last_sent: Millis(0), ..own() };
    let mut node = node_with_own(&untold);
    let mut theirs = owned_by(HIGHER, 1);
    theirs.local.port += 1;

    assert_eq!(report(&theirs, false, &mut node), Ok(()));

    assert_eq!(the_session(&node).owner, HIGHER);
}

#[test]
fn a_session_that_came_after_the_one_that_is_told_does_not_give_way() {
    let untold = Session { last_sent: Millis(0), state: SessionState::TcpSynAcked, ..own() };
    let mut node = node_with_own(&untold);

    assert_eq!(report(&owned_by(HIGHER, 4), false, &mut node), Err(Reject::Stale));

    assert_eq!(the_session(&node), untold);
}

#[test]
fn whoever_knows_of_both_fins_ends_the_session_for_all() {
    let mut node = node_with_own(&Session { state: SessionState::TcpFinFromServer, ..own() });
    let generation = held().generation.of_next_owner();
    let claimed = Session { state: SessionState::TcpFinFromClient, ..owned_by(HIGHER, generation.0) };

    assert_eq!(report(&claimed, false, &mut node), Ok(()));

    let session = the_session(&node);
    assert_eq!((session.owner, session.generation), (RECEIVER, generation.of_next_owner()));
    assert_eq!(session.state, SessionState::TcpTimeWait);
}

#[test]
fn a_client_side_key_that_is_a_server_side_one_is_a_conflict() {
    let mut swapped = session_v4(2);
    (swapped.client, swapped.vip) = (held().server, held().local);
    for kind in [EventKind::Upsert, EventKind::Delete, EventKind::Refresh] {
        assert_eq!(tell(kind, &swapped, false, &mut node_of(&[held()])), Err(Reject::Conflict));
    }
    let mut swapped = session_v4(2);
    (swapped.server, swapped.local) = (held().client, held().vip);
    assert_eq!(report(&swapped, false, &mut node_of(&[held()])), Err(Reject::Conflict));
}

#[test]
fn a_delete_without_a_session_leaves_a_tombstone_for_news_of_it() {
    let reset = Session { state: SessionState::TcpReset, ..session_v4(1) };
    let newer = Session { generation: Generation(2), ..session_v4(1) };
    let said = [(EventKind::Delete, reset), (EventKind::Upsert, session_v4(1)), (EventKind::Upsert, newer)];
    let events = said.map(|(kind, session)| Event { kind, session });
    let mut node = Node::new();

    let received = node.receive(&datagrams_of(&events)[0]);

    assert_eq!(received, Ok(Received { applied: 1, rejected: 2 }));
    let mut counted = node.counted();
    counted.sort_by_key(|(counter, _)| counter.name());
    let expected = [Counter::SyncRejectEnded, Counter::SyncRejectUnknownSession, Counter::SyncRxUpserts];
    assert_eq!(counted, expected.map(|counter| (counter, 1)));
    assert_eq!(node.places()[0].1.generation, Generation(2));
}

#[test]
fn who_has_seen_packets_of_a_session_that_its_owner_lets_age_takes_it_over() {
    let mut node = node_of(&[held()]);

    assert_eq!(tell(EventKind::Delete, &held(), false, &mut node), Ok(()));

    let generation = held().generation.of_next_owner();
    let expected = Session { owner: RECEIVER, generation, last_sent: NOW, ..held() };
    assert_eq!(the_session(&node), expected);
}

#[test]
fn what_a_newer_session_replaces_goes_though_the_newer_one_finds_no_place() {
    let other = Session { generation: Generation(5), ..next(HOLDER) };
    let older = Session { local: session_v4(3).local, ..other };
    let newer = Session { generation: Generation(6), ..other };
    let mut node = node_of(&[held(), older]);

    assert_eq!(report(&newer, true, &mut node), Err(Reject::Conflict));

    assert_eq!(node.sessions().into_values().collect::<Vec<_>>(), [held()]);
}

#[test]
fn a_full_table_is_counted_and_keeps_what_it_has() {
    let mut node = Node::with_tables(RECEIVER, ModelTables::new(1, 1));
    let events = [upsert(session_v4(1)), upsert(session_v4(2)), upsert(session_v4(1))];

    node.receive(&datagrams_of(&events)[0]).unwrap();

    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 2), (Counter::SyncRejectTableFull, 1)]);
    assert!(node.sessions().contains_key(&session_v4(1).client_key()));
}

#[test]
fn a_session_keeps_its_age_across_the_wire() {
    let old = Session { last_seen: NOW - 123_456, ..session_v6(1) };
    let mut node = Node::new();

    node.receive(&datagrams_of(&[upsert(old)])[0]).unwrap();

    let last_seen = node.sessions()[&old.client_key()].last_seen;
    let rounded = last_seen.since(old.last_seen);
    assert!(
        last_seen >= old.last_seen && rounded <= 600,
        "rounded up by {rounded} ms, less than a thousandth"
    );
}
