//! Tests of the plan, on a node with four workers and two sync domains.

use std::path::PathBuf;

use super::*;
use crate::config;
use crate::id::NodeId;
use crate::packet::testing::Sample;
use crate::packet::{Parsed, parse};

const KEY: HashKey = HashKey([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
const SYNC_PORT: u16 = 7946;

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

/// Workers 0 and 1 on NUMA node 0, workers 2 and 3 on NUMA node 1, one sync domain each.
fn config() -> Config {
    let worker = |number: u16| config::Worker {
        lcore: number + 1,
        cpu: 0,
        numa: NumaId((number / 2) as u8),
        local_addresses: vec![
            address(&format!("10.4.1.{}", number + 1)),
            address(&format!("fd00:4:1::{}", number + 1)),
        ],
    };
    let domain = |number: u8| config::SyncDomain {
        metrics: config::Metrics::default(),
        numa: NumaId(number),
        lcore: 32 + u16::from(number),
        cpu: 0,
        address: format!("10.2.0.{}", 101 + number).parse().unwrap(),
    };
    let service = |vip: &str| config::Service {
        name: vip.to_owned(),
        vip: vip.parse::<std::net::SocketAddr>().unwrap().into(),
        protocol: Protocol::Tcp,
        scheduler: config::Scheduler::WeightedRoundRobin,
        sync_after: config::SyncAfter::Packets(1),
        real_servers: Vec::new(),
    };
    Config {
        metrics: config::Metrics::default(),
        node: config::Node { id: NodeId(1), cluster: 1, name: "node".to_owned() },
        paths: config::Paths { runtime: PathBuf::new(), hugepages: PathBuf::new() },
        eal: config::Eal {
            file_prefix: "baton".to_owned(),
            memory_mib: 128,
            main_lcore: 0,
            main_cpu: 0,
            vdevs: Vec::new(),
            pci: Vec::new(),
        },
        port: config::Port {
            device: "net_tap0".to_owned(),
            mac: None,
            mtu: 1500,
            rx_descriptors: 512,
            tx_descriptors: 512,
            mbufs: 4096,
        },
        punt: config::Punt { interface: "punt0".to_owned() },
        steering: config::SteeringMode::Auto,
        idle: config::Idle::Busy,
        workers: (0..4).map(worker).collect(),
        tables: config::Tables {
            local_sessions: 1024,
            remote_sessions: 1024,
            event_ring_slots: 64,
            datagram_ring_slots: 64,
            local_ports: (1024, 65535),
        },
        timeouts: config::Timeouts {
            tcp_handshake_ms: 1000,
            tcp_established_ms: 1000,
            tcp_closing_ms: 1000,
            tcp_closed_ms: 1000,
            udp_ms: 1000,
            remote_margin_ms: 1000,
        },
        services: vec![service("10.9.0.1:80"), service("[fd00:9::1]:80")],
        sync: config::Sync {
            enabled: true,
            port: SYNC_PORT,
            mtu: 1500,
            flush_us: 100,
            security: config::Security::Off,
            claim_holdoff_ms: 500,
            digest_ms: 2000,
            tombstone_ms: 10_000,
            tombstones: 1024,
            ready_timeout_ms: 30_000,
            ready_percent: 70,
            hook: Vec::new(),
            domains: vec![domain(0), domain(1)],
            peers: Vec::new(),
        },
        log: "info".to_owned(),
    }
}

fn plan(backend: SteeringBackend) -> SteeringPlan {
    SteeringPlan::new(&config(), backend, KEY)
}

fn flow(source: &str, destination: &str, protocol: Protocol) -> ParsedFlow {
    match parse(&Sample::new(source, destination, protocol).frame()) {
        Parsed::Transport(flow) => flow,
        other => panic!("{other:?}"),
    }
}

fn client(number: u32) -> Endpoint {
    let [_, a, b, c] = (number / 1000).to_be_bytes();
    Endpoint { address: Address::v4([10, a, b, c]), port: 30000 + (number % 1000) as u16 }
}

#[test]
fn queues_are_the_workers_then_the_sync_domains() {
    let plan = plan(SteeringBackend::RteFlow);
    assert_eq!((plan.worker_queues(), plan.sync_queues(), plan.queue_pairs()), (4, 2, 6));
    assert_eq!(plan.worker_queue(WorkerId(3)), QueueId(3));
    assert_eq!(plan.sync_queue(SyncDomainId(1)), Some(QueueId(5)));
    assert_eq!(plan.sync_queue(SyncDomainId(2)), None);
}

#[test]
fn software_gives_the_secondaries_no_queue() {
    let plan = plan(SteeringBackend::Software);
    assert_eq!((plan.queue_pairs(), plan.sync_queue(SyncDomainId(0))), (4, None));
    assert_eq!(plan.rules(), []);
}

#[test]
fn rules_bring_sync_and_local_addresses_to_their_queues() {
    let plan = plan(SteeringBackend::TapBpf);
    let rule = |destination, udp_port, queue| SteeringRule {
        destination: address(destination),
        udp_port,
        queue: QueueId(queue),
    };
    assert_eq!(plan.rules().len(), 2 + 8);
    assert_eq!(plan.rules()[0], rule("10.2.0.101", Some(SYNC_PORT), 4));
    assert_eq!(plan.rules()[1], rule("10.2.0.102", Some(SYNC_PORT), 5));
    assert_eq!(plan.rules()[2], rule("10.4.1.1", None, 0));
    assert_eq!(plan.rules()[9], rule("fd00:4:1::4", None, 3));
}

#[test]
fn packets_from_real_servers_belong_to_the_worker_of_the_local_address() {
    for backend in [SteeringBackend::RteFlow, SteeringBackend::TapBpf, SteeringBackend::Software] {
        let plan = plan(backend);
        let v4 = flow("10.3.0.2:80", "10.4.1.2:5000", Protocol::Tcp);
        let v6 = flow("[fd00:3::2]:80", "[fd00:4:1::2]:5000", Protocol::Udp);
        for packet in [v4, v6] {
            assert_eq!(plan.classify(&packet, WorkerId(1)), Steer::Mine(Target::Local));
            assert_eq!(plan.classify(&packet, WorkerId(3)), Steer::Worker(WorkerId(1)));
        }
    }
}

#[test]
fn packets_that_concern_nobody_stay_where_they_are() {
    let plan = plan(SteeringBackend::Software);
    for destination in ["10.4.2.1:5000", "10.2.0.11:179", "10.2.0.101:22", "10.2.0.101:7946"] {
        let packet = flow("10.3.0.2:80", destination, Protocol::Tcp);
        assert_eq!(plan.classify(&packet, WorkerId(2)), Steer::Mine(Target::Other), "{destination}");
    }
    let other_port = flow("10.3.0.2:80", "10.2.0.101:53", Protocol::Udp);
    assert_eq!(plan.classify(&other_port, WorkerId(0)), Steer::Mine(Target::Other));
}

#[test]
fn sync_datagrams_go_to_the_secondary_of_the_address() {
    for backend in [SteeringBackend::RteFlow, SteeringBackend::Software] {
        let datagram = flow("10.2.0.111:7946", "10.2.0.102:7946", Protocol::Udp);
        assert_eq!(plan(backend).classify(&datagram, WorkerId(2)), Steer::Sync(SyncDomainId(1)));
        assert_eq!(plan(backend).classify(&datagram, WorkerId(3)), Steer::Sync(SyncDomainId(1)));
        assert_eq!(plan(backend).classify(&datagram, WorkerId(0)), Steer::Worker(WorkerId(2)));
    }
}

#[test]
fn sync_domain_without_a_worker_is_served_by_any() {
    let mut config = config();
    config.workers.truncate(2);
    let plan = SteeringPlan::new(&config, SteeringBackend::Software, KEY);
    let datagram = flow("10.2.0.111:7946", "10.2.0.102:7946", Protocol::Udp);
    assert_eq!(plan.classify(&datagram, WorkerId(1)), Steer::Sync(SyncDomainId(1)));
}

#[test]
fn sync_switched_off_leaves_no_trace_in_the_plan() {
    let mut config = config();
    config.sync.enabled = false;
    let plan = SteeringPlan::new(&config, SteeringBackend::RteFlow, KEY);
    let datagram = flow("10.2.0.111:7946", "10.2.0.101:7946", Protocol::Udp);
    assert_eq!(plan.classify(&datagram, WorkerId(0)), Steer::Mine(Target::Other));
    assert_eq!((plan.queue_pairs(), plan.rules().len()), (4, 8));
}

#[test]
fn clients_stay_where_the_port_brought_them() {
    let plan = plan(SteeringBackend::RteFlow);
    let packet = flow("10.1.1.2:40000", "10.9.0.1:80", Protocol::Tcp);
    for worker in (0..4).map(WorkerId) {
        assert_eq!(plan.classify(&packet, worker), Steer::Mine(Target::Vip));
    }
}

#[test]
fn hashed_client_has_one_worker_whatever_it_talks_to() {
    for plan in [
        plan(SteeringBackend::Software),
        plan(SteeringBackend::RteFlow).with_client_spread(ClientSpread::ByHash),
    ] {
        let web = flow("10.1.1.2:40000", "10.9.0.1:80", Protocol::Tcp);
        let owner = plan.client_worker(web.key.source).unwrap();
        for worker in (0..4).map(WorkerId) {
            let expected = if worker == owner { Steer::Mine(Target::Vip) } else { Steer::Worker(owner) };
            for destination in ["10.9.0.1:80", "10.9.0.1:443"] {
                let packet = flow("10.1.1.2:40000", destination, Protocol::Tcp);
                assert_eq!(plan.classify(&packet, worker), expected);
            }
        }
    }
}

#[test]
fn packet_handed_on_is_the_next_workers_own() {
    let plan = plan(SteeringBackend::Software);
    let packets = (0..200)
        .map(|port| flow(&format!("10.1.1.2:{}", 40000 + port), "10.9.0.1:80", Protocol::Tcp))
        .chain([
            flow("10.3.0.2:80", "10.4.1.2:5000", Protocol::Tcp),
            flow("10.2.0.9:1", "10.2.0.102:7946", Protocol::Udp),
        ]);
    for packet in packets {
        if let Steer::Worker(next) = plan.classify(&packet, WorkerId(0)) {
            let there = plan.classify(&packet, next);
            assert!(!matches!(there, Steer::Worker(_)), "{packet:?} is sent on by {next}");
        }
    }
}

#[test]
fn hashed_clients_are_balanced() {
    let plan = plan(SteeringBackend::Software);
    let mut counts = [0u32; 4];
    for number in 0..40_000 {
        counts[usize::from(plan.client_worker(client(number)).unwrap().0)] += 1;
    }
    // Four standard deviations of a fair draw are 346.
    assert!(counts.iter().all(|count| count.abs_diff(10_000) < 350), "{counts:?}");
}

/// Sessions outlive the primary in the table of the worker that the hash chose, so no build may choose another.
#[test]
fn hash_never_changes_for_a_key() {
    let workers = |key| {
        let plan = SteeringPlan::new(&config(), SteeringBackend::Software, key);
        (0..64).map(|number| plan.client_worker(client(number)).unwrap().0).collect::<Vec<_>>()
    };
    assert_eq!(workers(KEY)[..16], [1, 1, 0, 1, 3, 3, 3, 1, 0, 2, 3, 2, 0, 0, 2, 0]);
    assert_ne!(workers(KEY), workers(HashKey([1, 2])));
}

#[test]
fn backend_is_written_by_its_name() {
    for backend in [SteeringBackend::RteFlow, SteeringBackend::TapBpf, SteeringBackend::Software] {
        let json = serde_json::to_string(&backend).unwrap();
        assert_eq!(json, format!("\"{}\"", backend.name()));
        assert_eq!(serde_json::from_str::<SteeringBackend>(&json).unwrap(), backend);
    }
}
