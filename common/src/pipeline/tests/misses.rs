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
