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
