//! Misses: packets that open nothing and find no session.

use super::*;

fn miss(direction: Direction, sample: &Sample) -> Notice {
    Notice::Miss { direction, key: sample.key }
}

#[test]
fn a_tcp_packet_of_no_session_is_told_with_the_way_it_came() {
    let mut bench = Bench::sharing();
    let ack = from_client(TcpFlags::ACK);
    let fin = from_client(TcpFlags(0x11));
    let answer = from_server(endpoint("10.4.1.1:2000"), TcpFlags::SYN | TcpFlags::ACK);
    for packet in [&ack, &fin, &answer] {
        assert_eq!(bench.pass(START, packet).0, Verdict::Drop(DropReason::NoSession));
    }
    let told =
        [miss(Direction::Inbound, &ack), miss(Direction::Inbound, &fin), miss(Direction::Outbound, &answer)];
    assert_eq!(bench.notices(), told);
    assert_eq!(bench.counters.value(Counter::MissesTold), 3);
}

#[test]
fn who_shares_nothing_tells_no_miss() {
    let mut bench = Bench::new();
    bench.pass(START, &from_client(TcpFlags::ACK));
    assert_eq!(bench.notices(), []);
}

#[test]
fn what_opens_a_connection_or_is_udp_is_no_miss() {
    let mut bench = Bench::sharing();
    let syn_from_a_server = from_server(endpoint("10.4.1.1:2000"), TcpFlags::SYN);
    let udp_answer = Sample::new("10.3.0.11:53", "10.4.1.1:2000", Protocol::Udp);
    let elsewhere = Sample::new(CLIENT, "10.9.0.1:8080", Protocol::Tcp);
    for packet in [&syn_from_a_server, &udp_answer] {
        assert_eq!(bench.pass(START, packet).0, Verdict::Drop(DropReason::NoSession));
    }
    assert_eq!(bench.pass(START, &elsewhere).0, Verdict::Drop(DropReason::NoService));
    bench.forwarded(START, &from_client(TcpFlags::SYN));
    assert_eq!(bench.notices(), []);
}

#[test]
fn misses_leave_room_for_sessions() {
    let mut bench = Bench::sharing();
    for port in 0..10_000 {
        let stray = Sample::new(&format!("10.1.1.3:{port}"), VIP, Protocol::Tcp);
        assert_eq!(bench.pass(START, &stray).0, Verdict::Drop(DropReason::NoSession));
    }
    bench.forwarded(START, &Sample::udp_v4());
    let (told, refused) =
        (bench.counters.value(Counter::MissesTold), bench.counters.value(Counter::MissesNotTold));
    assert_eq!(told + refused, 10_000);
    assert!((1..u64::from(EVENT_SLOTS)).contains(&told));
    assert_eq!(bench.counters.value(Counter::EventsDeferred), 0);
    assert!(matches!(bench.notices().last(), Some(Notice::Session { .. })));
    bench.pass(START + 1, &from_client(TcpFlags::ACK));
    assert_eq!(bench.notices(), [miss(Direction::Inbound, &from_client(TcpFlags::ACK))]);
}
