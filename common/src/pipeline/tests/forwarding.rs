//! Packets of a node that shares nothing: forwarded, refused, handed on.

use super::*;

#[test]
fn a_connection_goes_both_ways_through_one_local_endpoint() {
    let mut bench = Bench::new();
    let inbound = bench.forwarded(START, &from_client(TcpFlags::SYN));
    assert_eq!(
        (inbound.source.address, inbound.destination),
        (endpoint("10.4.1.1:0").address, endpoint(SERVER))
    );
    let outbound = bench.forwarded(START, &from_server(inbound.source, TcpFlags::SYN | TcpFlags::ACK));
    assert_eq!((outbound.source, outbound.destination), (endpoint(VIP), endpoint(CLIENT)));
    assert_eq!(bench.counters.value(Counter::SessionsCreated), 1);
    assert_eq!(bench.counters.value(Counter::LocalHits), 1);
}

#[test]
fn ipv6_connections_use_the_ipv6_local_address() {
    let mut bench = Bench::new();
    let syn = Sample { tcp_flags: TcpFlags::SYN, ..Sample::tcp_v6() };
    let inbound = bench.forwarded(START, &syn);
    assert_eq!(inbound.source.address, endpoint("[fd00:4:1::1]:0").address);
    assert_eq!(inbound.destination, endpoint("[fd00:3::11]:80"));
}

#[test]
fn peers_hear_of_the_handshake_the_first_fin_and_the_end() {
    let mut bench = Bench::new();
    let local = bench.connect(START);
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::TcpEstablished)]);
    bench.forwarded(START, &from_client(TcpFlags::FIN | TcpFlags::ACK));
    assert_eq!(bench.events(), [(EventKind::Refresh, SessionState::TcpFinFromClient)]);
    bench.forwarded(START, &from_server(local, TcpFlags::FIN | TcpFlags::ACK));
    assert_eq!(bench.events(), [(EventKind::Delete, SessionState::TcpTimeWait)]);
    bench.forwarded(START, &from_client(TcpFlags::ACK));
    assert_eq!(bench.events(), []);
}

#[test]
fn a_handshake_that_is_never_finished_is_told_to_nobody() {
    let mut bench = Bench::new();
    bench.forwarded(START, &from_client(TcpFlags::SYN));
    bench.age(START + u64::from(bench.config.timeouts.tcp_handshake_ms));
    assert_eq!(bench.counters.value(Counter::SessionsExpired), 1);
    assert_eq!(bench.events(), []);
}

#[test]
fn udp_is_told_at_the_first_packet() {
    let mut bench = Bench::new();
    bench.forwarded(START, &Sample::udp_v4());
    assert_eq!(bench.events(), [(EventKind::Upsert, SessionState::UdpOneWay)]);
}

#[test]
fn a_session_in_use_is_refreshed_when_half_its_timeout_is_over() {
    let mut bench = Bench::new();
    bench.connect(START);
    bench.events();
    let half = u64::from(bench.config.timeouts.tcp_established_ms) / 2;
    bench.forwarded(START + (half - 1), &from_client(TcpFlags::ACK));
    assert_eq!(bench.events(), []);
    bench.forwarded(START + half, &from_client(TcpFlags::ACK));
    assert_eq!(bench.events(), [(EventKind::Refresh, SessionState::TcpEstablished)]);
    bench.forwarded(START + half, &from_client(TcpFlags::ACK));
    assert_eq!(bench.events(), []);
}

#[test]
fn an_idle_session_expires_and_nothing_is_told_of_it() {
    let mut bench = Bench::new();
    bench.connect(START);
    bench.events();
    let timeout = u64::from(bench.config.timeouts.tcp_established_ms);
    bench.age(START + (timeout - 1));
    assert_eq!(bench.counters.value(Counter::SessionsExpired), 0);
    bench.age(START + timeout);
    assert_eq!(bench.counters.value(Counter::SessionsExpired), 1);
    assert_eq!(bench.events(), [], "another node may carry it by now");
    assert_eq!(
        bench.pass(START + timeout, &from_client(TcpFlags::ACK)).0,
        Verdict::Drop(DropReason::NoSession)
    );
}

#[test]
fn a_syn_after_the_end_opens_a_new_session() {
    let mut bench = Bench::new();
    let local = bench.connect(START);
    bench.forwarded(START, &from_server(local, TcpFlags::RST));
    bench.forwarded(START, &from_client(TcpFlags::SYN));
    let session = bench.session(&from_client(TcpFlags::SYN).key).unwrap();
    assert_eq!(session.state, SessionState::TcpSynReceived);
    assert_eq!(bench.counters.value(Counter::SessionsCreated), 2);
    assert_eq!(bench.counters.value(Counter::SessionsExpired), 1);
}

#[test]
fn a_remote_session_is_served_both_ways_in_place() {
    let mut bench = Bench::new();
    let index = bench.remote_writer().insert(&remote_session()).unwrap();
    let now = START + 5;
    let inbound = bench.forwarded(now, &from_client(TcpFlags::ACK));
    assert_eq!((inbound.source, inbound.destination), (endpoint("10.4.2.1:5000"), endpoint(SERVER)));
    let outbound =
        bench.forwarded(now, &from_server(endpoint("10.4.2.1:5000"), TcpFlags::FIN | TcpFlags::ACK));
    assert_eq!((outbound.source, outbound.destination), (endpoint(VIP), endpoint(CLIENT)));
    assert_eq!(bench.counters.value(Counter::RemoteHits), 2);
    let session = bench.remote_writer().session(index).unwrap();
    assert_eq!((session.last_seen, session.state), (now, SessionState::TcpFinFromServer));
    assert_eq!(bench.events(), [], "only the owner reports a session");
}

#[test]
fn a_local_port_that_another_node_uses_is_not_taken() {
    let mut bench = Bench::new();
    let taken = bench.forwarded(START, &from_client(TcpFlags::SYN)).source;
    bench.forwarded(START, &from_server(taken, TcpFlags::RST));
    let timeout = u64::from(tcp::timeout_ms(SessionState::TcpReset, &bench.config.timeouts));
    bench.age(START + timeout);
    let elsewhere = Session { client: endpoint("10.1.1.9:1"), local: taken, ..remote_session() };
    bench.remote_writer().insert(&elsewhere).unwrap();
    let chosen = bench.forwarded(START + timeout, &from_client(TcpFlags::SYN)).source;
    assert_ne!(chosen, taken);
}

#[test]
fn every_refusal_has_its_reason() {
    let bench = || Bench::new();
    let syn_to = |vip| Sample { tcp_flags: TcpFlags::SYN, ..Sample::new(CLIENT, vip, Protocol::Tcp) };
    let dropped = |sample: &Sample| bench().pass(START, sample).0;
    assert_eq!(dropped(&from_client(TcpFlags::ACK)), Verdict::Drop(DropReason::NoSession));
    assert_eq!(dropped(&syn_to("10.9.0.1:8080")), Verdict::Drop(DropReason::NoService));
    assert_eq!(dropped(&syn_to("10.9.0.1:81")), Verdict::Drop(DropReason::NoRealServer));
    assert_eq!(dropped(&syn_to("10.4.1.1:2000")), Verdict::Drop(DropReason::NoSession));
    let last_hop = Sample { hop_limit: 1, ..from_client(TcpFlags::SYN) };
    assert_eq!(dropped(&last_hop), Verdict::Drop(DropReason::TtlExpired));
    let large = Sample { payload: vec![0; 1600], ..from_client(TcpFlags::SYN) };
    assert_eq!(dropped(&large), Verdict::Drop(DropReason::TooBig));
}

#[test]
fn a_refused_packet_leaves_no_session() {
    let mut bench = Bench::new();
    let last_hop = Sample { hop_limit: 1, ..from_client(TcpFlags::SYN) };
    bench.pass(START, &last_hop);
    assert_eq!(bench.session(&last_hop.key), None);
}

#[test]
fn damaged_frames_have_their_reasons() {
    let mut bench = Bench::new();
    let good = from_client(TcpFlags::SYN).frame();
    assert_eq!(bench.pass_frame(START, good[..4].to_vec()).0, Verdict::Drop(DropReason::Malformed));
    assert_eq!(bench.pass_frame(START, good[..30].to_vec()).0, Verdict::Drop(DropReason::Malformed));
    let mut bad_checksum = good.clone();
    bad_checksum[24] ^= 1;
    assert_eq!(bench.pass_frame(START, bad_checksum).0, Verdict::Drop(DropReason::IpChecksum));
    let mut fragment = good.clone();
    fragment[20] = 0x20; // more fragments
    Sample::seal_ipv4_header(&mut fragment);
    assert_eq!(bench.pass_frame(START, fragment).0, Verdict::Drop(DropReason::Fragment));
    let mut elsewhere = good;
    elsewhere[5] = 0x77;
    assert_eq!(bench.pass_frame(START, elsewhere).0, Verdict::Drop(DropReason::NotForUs));
}

#[test]
fn what_is_not_balanced_goes_to_the_kernel_unchanged() {
    let mut bench = Bench::new();
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 9, 0x08, 0x06, 0, 1]);
    assert_eq!(bench.pass_frame(START, arp.clone()), (Verdict::Punt, arp));
    let ssh = Sample::new(CLIENT, "10.2.0.11:22", Protocol::Tcp);
    assert_eq!(bench.pass(START, &ssh), (Verdict::Punt, ssh.frame()));
    let mut ping = ssh.frame();
    ping[23] = 1; // ICMP
    Sample::seal_ipv4_header(&mut ping);
    assert_eq!(bench.pass_frame(START, ping.clone()), (Verdict::Punt, ping));
}

#[test]
fn packets_of_others_are_handed_on_unchanged() {
    let mut bench = Bench::new();
    let other_worker = Sample::new(SERVER, "10.4.1.2:2000", Protocol::Tcp);
    assert_eq!(bench.pass(START, &other_worker), (Verdict::Handoff(WorkerId(1)), other_worker.frame()));
    let port = bench.config.sync.port;
    let sync = Sample::new("10.2.0.102:7400", &format!("10.2.0.101:{port}"), Protocol::Udp);
    assert_eq!(bench.pass(START, &sync), (Verdict::Sync, sync.frame()));
    assert_eq!(bench.pipeline.parts.steering.worker_queue(WorkerId(1)), QueueId(1));
}

#[test]
fn an_unknown_next_hop_is_asked_for() {
    let mut bench = Bench::with(64, Neighbours::new(&[default_route("0.0.0.0")], []));
    assert_eq!(bench.pass(START, &from_client(TcpFlags::SYN)).0, Verdict::Drop(DropReason::NoNeighbour));
    assert_eq!(bench.wanted.try_recv(), Ok(endpoint("10.2.0.1:0").address));
    let mut bench = Bench::with(64, Neighbours::new(&[], []));
    assert_eq!(bench.pass(START, &from_client(TcpFlags::SYN)).0, Verdict::Drop(DropReason::NoRoute));
}

/// Opens connections from one port after another until one is refused, and says how many there were and why.
fn fill(bench: &mut Bench) -> (u32, Verdict) {
    for opened in 0.. {
        let client = format!("10.1.1.2:{}", 1024 + opened);
        let syn = Sample { tcp_flags: TcpFlags::SYN, ..Sample::new(&client, VIP, Protocol::Tcp) };
        match bench.pass(START, &syn).0 {
            Verdict::Transmit => {}
            refusal => return (opened, refusal),
        }
    }
    unreachable!()
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut bench = Bench::with(16, Neighbours::new(&[default_route("0.0.0.0")], gateways()));
    let (opened, refusal) = fill(&mut bench);
    assert_eq!(refusal, Verdict::Drop(DropReason::TableFull));
    assert!(opened >= 16);
    assert_eq!(bench.pipeline.parts.local.len(), opened);
    let first = Sample::new("10.1.1.2:1024", VIP, Protocol::Tcp);
    bench.forwarded(START, &first);
}

#[test]
fn a_full_event_ring_marks_the_range_and_blocks_nothing() {
    let mut bench = Bench::new();
    for port in 0..2 * EVENT_SLOTS {
        let client = format!("10.1.1.2:{}", 2000 + port);
        bench.forwarded(START, &Sample::new(&client, "10.9.0.1:53", Protocol::Udp));
    }
    assert_eq!(bench.events().len(), EVENT_SLOTS as usize);
    assert_eq!(bench.counters.value(Counter::EventsSent), u64::from(EVENT_SLOTS));
    assert_eq!(bench.counters.value(Counter::EventsDeferred), u64::from(EVENT_SLOTS));
    assert!(bench.events.dirty().count() > 0);
}

#[test]
fn a_burst_gets_one_verdict_a_frame() {
    let mut bench = Bench::new();
    let mut frames = [
        from_client(TcpFlags::SYN).frame(),
        vec![0; 3],
        Sample::new(CLIENT, "10.2.0.11:22", Protocol::Tcp).frame(),
        Sample::udp_v4().frame(),
    ];
    let mut verdicts = [Verdict::Drop(DropReason::TxFull); 4];
    let mut burst: Vec<&mut [u8]> = frames.iter_mut().map(Vec::as_mut_slice).collect();
    bench.pipeline.process(START, &mut burst, &mut verdicts);
    let malformed = Verdict::Drop(DropReason::Malformed);
    assert_eq!(verdicts, [Verdict::Transmit, malformed, Verdict::Punt, Verdict::Transmit]);
}

#[test]
fn every_drop_reason_has_a_counter_of_its_own() {
    let counters: std::collections::HashSet<_> =
        DropReason::ALL.iter().map(|reason| reason.counter()).collect();
    assert_eq!(counters.len(), DropReason::ALL.len());
    assert!(counters.iter().all(|counter| counter.name().starts_with("drop_")));
}
