//! The gate: a node that does not know its ports opens no session.

use super::*;
use crate::sync::state::{self, SyncState};

const OPENS_AT: Millis = Millis(START.0 + 20_000);

/// A node that has just lost its tables, and its secondary's state.
fn closed() -> (Bench, Mapped<SyncState>) {
    let mut bench = Bench::sharing();
    let path = FileKind::SyncState.path(bench.directory.path(), 0);
    state::create(&path, 1472).unwrap();
    let seen = Arc::new(state::attach(&path).unwrap());
    bench.pipeline.parts.sharing.as_mut().unwrap().gate = OpenGate::new(seen, OPENS_AT);
    (bench, state::attach(&path).unwrap())
}

#[test]
fn no_session_is_opened_while_the_gate_is_closed() {
    let (mut bench, _state) = closed();
    for packet in [from_client(TcpFlags::SYN), Sample::udp_v4()] {
        let (verdict, frame) = bench.pass(START, &packet);
        assert_eq!((verdict, frame), (Verdict::Drop(DropReason::NotReady), packet.frame()));
        assert_eq!(bench.session(&packet.key), None);
    }
    assert_eq!(DropReason::NotReady.counter().name(), "drop_not_ready");
    assert_eq!((bench.counters.value(Counter::SessionsCreated), bench.notices()), (0, vec![]));
}

#[test]
fn sessions_that_are_there_go_on_while_the_gate_is_closed() {
    let (mut bench, _state) = closed();
    bench.remote_writer().insert(&remote_session()).unwrap();
    bench.forwarded(START, &from_client(TcpFlags::ACK));
    bench.forwarded(START, &from_server(endpoint("10.4.2.1:5000"), TcpFlags::ACK));
    assert_eq!(bench.counters.value(Counter::RemoteHits), 2);
    let stray = Sample::new("10.1.1.9:1", VIP, Protocol::Tcp);
    assert_eq!(bench.pass(START, &stray).0, Verdict::Drop(DropReason::NoSession));
    assert_eq!(bench.notices(), [Notice::Miss { direction: Direction::Inbound, key: stray.key }]);
}

#[test]
fn a_connection_that_would_take_the_place_of_a_closed_one_waits_too() {
    let (mut bench, state) = closed();
    let ended = Session { state: SessionState::TcpReset, ..remote_session() };
    bench.remote_writer().insert(&ended).unwrap();
    let syn = from_client(TcpFlags::SYN);
    assert_eq!(bench.pass(START, &syn).0, Verdict::Drop(DropReason::NotReady));
    state.set_was_ready();
    bench.forwarded(START, &syn);
    let next = ended.generation.of_next_session();
    assert_eq!(bench.session(&syn.key).unwrap().generation, next, "newer than the one that ended");
}

#[test]
fn the_gate_opens_when_the_node_was_ready_once() {
    let (mut bench, state) = closed();
    assert_eq!(bench.pass(START, &from_client(TcpFlags::SYN)).0, Verdict::Drop(DropReason::NotReady));
    state.set_was_ready();
    bench.forwarded(START, &from_client(TcpFlags::SYN));
    state.wipe();
    bench.forwarded(START, &Sample::udp_v4());
}

#[test]
fn the_gate_opens_when_the_time_has_passed() {
    let (mut bench, _state) = closed();
    let syn = from_client(TcpFlags::SYN);
    assert_eq!(bench.pass(OPENS_AT - 1, &syn).0, Verdict::Drop(DropReason::NotReady));
    bench.forwarded(OPENS_AT, &syn);
    bench.forwarded(START, &Sample::udp_v4());
}
