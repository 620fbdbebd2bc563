//! Telling: which sessions the peers hear of, when, and what becomes of it when the event ring is full.

use super::*;

const FIN_ACK: TcpFlags = TcpFlags(0x11);

fn to_port(port: u16) -> Sample {
    Sample::new(CLIENT, &format!("10.9.0.1:{port}"), Protocol::Udp)
}

#[test]
fn udp_is_told_at_the_packet_that_its_service_says() {
    let mut bench = Bench::sharing();
    for packet in 1..=2 {
        bench.forwarded(START, &to_port(54));
        assert_eq!(bench.events(), [], "packet {packet}");
    }
    bench.forwarded(START, &to_port(54));
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::UdpOneWay)]);
    bench.forwarded(START, &to_port(54));
    assert_eq!(bench.events(), []);
}

#[test]
fn a_servers_packets_count_too() {
    let mut bench = Bench::sharing();
    let local = bench.forwarded(START, &to_port(54)).source;
    let answer = Sample::new("10.3.0.11:54", &local.to_string(), Protocol::Udp);
    bench.forwarded(START, &answer);
    assert_eq!(bench.events(), []);
    bench.forwarded(START, &answer);
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::UdpTwoWay)]);
}

#[test]
fn udp_is_told_at_the_age_that_its_service_says() {
    let mut bench = Bench::sharing();
    for after_ms in [0, 100, 499] {
        bench.forwarded(START + after_ms, &to_port(55));
        assert_eq!(bench.events(), [], "{after_ms} ms");
    }
    bench.forwarded(START + 500, &to_port(55));
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::UdpOneWay)]);
}

#[test]
fn a_udp_session_that_nobody_was_told_of_ends_in_silence() {
    let mut bench = Bench::sharing();
    bench.forwarded(START, &to_port(54));
    bench.age(START + u64::from(bench.config.timeouts.udp_ms));
    assert_eq!(bench.counters.value(Counter::SessionsExpired), 1);
    assert_eq!(bench.events(), []);
}

#[test]
fn tcp_is_told_after_the_handshake() {
    let mut bench = Bench::sharing();
    let local = bench.forwarded(START, &from_client(TcpFlags::SYN)).source;
    bench.forwarded(START, &from_server(local, TcpFlags::SYN | TcpFlags::ACK));
    assert_eq!(bench.events(), []);
    bench.forwarded(START, &from_client(TcpFlags::ACK));
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::TcpEstablished)]);
}

#[test]
fn an_idle_sessions_end_is_told_by_who_shares() {
    let mut bench = Bench::sharing();
    bench.connect(START);
    bench.events();
    bench.age(START + u64::from(bench.config.timeouts.tcp_established_ms));
    assert_eq!(bench.events(), [(EventKind::Delete, SessionState::TcpEstablished)]);
}

#[test]
fn a_session_that_a_full_ring_kept_from_being_told_lies_in_a_dirty_range() {
    let mut bench = Bench::sharing();
    let mut keys = Vec::new();
    for port in 0..3 * EVENT_SLOTS {
        let sample = Sample::new(&format!("10.1.1.2:{}", 2000 + port), "10.9.0.1:53", Protocol::Udp);
        bench.forwarded(START, &sample);
        keys.push(sample.key);
    }
    let mut known: Vec<FlowKey> = Vec::new();
    for notice in bench.notices() {
        let Notice::Session { event, .. } = notice else { panic!("{notice:?}") };
        known.push(event.session.client_key());
    }
    assert_eq!(known.len(), EVENT_SLOTS as usize);
    // The secondary's part: what lies in a dirty range is read from the table.
    while let Some(range) = bench.events.dirty().take_next() {
        let local = &bench.pipeline.parts.local;
        let sessions = range.slots(local.capacity()).filter_map(|slot| local.session(RecordIndex(slot)));
        known.extend(sessions.map(|session| session.client_key()));
        bench.events.dirty().finish(range);
    }
    assert!(keys.iter().all(|key| known.contains(key)));
    assert!(keys.iter().all(|key| bench.session(key).is_some_and(|session| session.last_sent == START)));
}

#[test]
fn a_claim_that_a_full_ring_kept_from_being_told_counts_as_told_and_its_range_is_dirty() {
    for home in [Home::Local, Home::Remote] {
        let mut bench = Bench::sharing();
        bench.pipeline.parts.sharing.as_ref().unwrap().members.remove(NodeId(2));
        let slot = match home {
            Home::Local => bench.pipeline.parts.local.insert(&remote_session()).unwrap(),
            Home::Remote => bench.remote_writer().insert(&remote_session()).unwrap(),
        };
        for port in 0..EVENT_SLOTS {
            bench.forwarded(START, &Sample::new(&format!("10.1.1.2:{port}"), "10.9.0.1:53", Protocol::Udp));
        }
        bench.forwarded(START, &from_client(TcpFlags::ACK));
        assert_eq!(bench.counters.value(Counter::EventsDeferred), 1);
        let session = match home {
            Home::Local => bench.pipeline.parts.local.session(slot),
            Home::Remote => bench.remote_writer().session(slot),
        };
        let session = session.unwrap();
        // By these the secondary's sweep of the remote table finds it.
        assert_eq!((session.owner, session.last_sent), (NodeId(1), START));
        let dirty = bench.events.dirty().take_next();
        let holds = |range: crate::shm::dirty::DirtyRange| {
            range.slots(bench.pipeline.parts.local.capacity()).contains(&slot.0)
        };
        assert_eq!(dirty.map(holds), (home == Home::Local).then_some(true), "{home:?}");
    }
}

#[test]
fn a_handshake_that_a_fin_finishes_is_told() {
    let mut bench = Bench::sharing();
    let local = bench.forwarded(START, &from_client(TcpFlags::SYN)).source;
    bench.forwarded(START, &from_server(local, TcpFlags::SYN | TcpFlags::ACK));
    // The acknowledgement was lost on its way here.
    bench.forwarded(START, &from_client(FIN_ACK));
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::TcpFinFromClient)]);
    bench.forwarded(START, &from_server(local, FIN_ACK));
    assert_eq!(bench.events(), [(EventKind::Delete, SessionState::TcpTimeWait)]);
}
