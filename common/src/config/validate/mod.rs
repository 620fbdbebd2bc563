//! Validation: from the raw configuration to the one that nobody need check again.
//!
//! Single values first, each against its range, then what must fit together ([`cross`]). Everything that is wrong is
//! reported at once, at its place in the text.

mod checker;
mod cross;

use checker::{Checker, Role};

use super::error::{ConfigError, Problem};
use super::field_path::FieldPath;
use super::locate::locate;
use super::raw::*;
use super::*;

/// Most forwarding workers of a node.
pub const WORKERS_MAX: usize = 16;
/// Most sync domains of a node.
pub const DOMAINS_MAX: usize = 8;
/// Most other nodes of a cluster.
pub const PEERS_MAX: usize = 64;
/// Most services.
pub const SERVICES_MAX: usize = 4096;
/// Most real servers of a service.
pub const REAL_SERVERS_MAX: usize = 1024;
/// Most local addresses of a worker.
pub const LOCAL_ADDRESSES_MAX: usize = 256;
/// Most NUMA nodes that DPDK knows (`RTE_MAX_NUMA_NODES`).
const NUMA_MAX: Number = 31;
const CPU_MAX: Number = 1023;
const WEEK_MS: Number = 7 * 24 * 3600 * 1000;

/// Checks `raw`, which was read from `text`; `file` is the text's name.
///
/// # Errors
/// [`ConfigError::Invalid`] with every problem, in the order of the text.
pub(super) fn validate(raw: RawConfig, text: &str, file: &str) -> Result<Config, ConfigError> {
    let mut checker = Checker::default();
    let config = convert(&mut checker, raw);
    cross::check(&mut checker, &config);
    if checker.complaints.is_empty() {
        return Ok(config);
    }
    let mut problems: Vec<Problem> = checker
        .complaints
        .into_iter()
        .map(|complaint| Problem {
            file: file.to_owned(),
            position: locate(text, &complaint.path),
            field: complaint.path.to_string(),
            found: complaint.found,
            expected: complaint.expected,
            remedy: complaint.remedy,
        })
        .collect();
    problems.sort_by_key(|problem| problem.position);
    Err(ConfigError::Invalid(problems))
}

fn convert(checker: &mut Checker, raw: RawConfig) -> Config {
    let root = FieldPath::root();
    let log = root.field("log");
    if raw.log.trim().is_empty() {
        checker.complain(&log, "an empty filter", "a log filter", "write \"info\", or take the field away");
    }
    Config {
        node: node(checker, &root.field("node"), raw.node),
        paths: paths(checker, &root.field("paths"), raw.paths),
        eal: eal(checker, &root.field("eal"), raw.eal),
        port: port(checker, &root.field("port"), raw.port),
        punt: Punt {
            interface: checker.interface(&root.field("punt").field("interface"), &raw.punt.interface),
        },
        steering: raw.steering,
        idle: idle(checker, &root.field("idle"), raw.idle),
        workers: workers(checker, &root.field("workers"), raw.workers),
        tables: tables(checker, &root.field("tables"), raw.tables),
        timeouts: timeouts(checker, &root.field("timeouts"), raw.timeouts),
        services: services(checker, &root.field("services"), raw.services),
        sync: sync(checker, &root.field("sync"), raw.sync),
        metrics: metrics(checker, &root.field("metrics"), raw.metrics),
        log: raw.log,
    }
}

fn node(checker: &mut Checker, at: &FieldPath, raw: RawNode) -> Node {
    let id = checker.number(&at.field("id"), raw.id, 1..=65_535);
    let name = if raw.name.is_empty() { format!("node-{id}") } else { raw.name };
    Node {
        id: NodeId(id),
        cluster: checker.number(&at.field("cluster"), raw.cluster, 0..=u32::MAX.into()),
        name: checker.name(&at.field("name"), &name),
    }
}

fn paths(checker: &mut Checker, at: &FieldPath, raw: RawPaths) -> Paths {
    Paths {
        runtime: checker.directory(&at.field("runtime"), &raw.runtime),
        hugepages: checker.directory(&at.field("hugepages"), &raw.hugepages),
    }
}

fn eal(checker: &mut Checker, at: &FieldPath, raw: RawEal) -> Eal {
    for (list, devices) in [("vdevs", &raw.vdevs), ("pci", &raw.pci)] {
        for (position, device) in devices.iter().enumerate() {
            if device.is_empty() || device.contains(char::is_whitespace) {
                let remedy =
                    "write it as EAL takes it, for example \"net_tap0,iface=lb0\" or \"0000:3b:00.0\"";
                checker.complain(&at.field(list).index(position), format!("{device:?}"), "a device", remedy);
            }
        }
    }
    Eal {
        file_prefix: checker.file_name(&at.field("file_prefix"), &raw.file_prefix),
        memory_mib: checker.number(&at.field("memory_mib"), raw.memory_mib, 32..=1_048_576),
        main_lcore: checker.lcore(&at.field("main_lcore"), raw.main_lcore),
        main_cpu: checker.number(&at.field("main_cpu"), raw.main_cpu, 0..=CPU_MAX),
        vdevs: raw.vdevs,
        pci: raw.pci,
    }
}

fn port(checker: &mut Checker, at: &FieldPath, raw: RawPort) -> Port {
    Port {
        device: checker.name(&at.field("device"), &raw.device),
        mac: raw.mac.map(|mac| checker.mac(&at.field("mac"), &mac)),
        mtu: checker.number(&at.field("mtu"), raw.mtu, 1280..=9000),
        rx_descriptors: checker.power_of_two(&at.field("rx_descriptors"), raw.rx_descriptors, 32..=32_768),
        tx_descriptors: checker.power_of_two(&at.field("tx_descriptors"), raw.tx_descriptors, 32..=32_768),
        mbufs: checker.number(&at.field("mbufs"), raw.mbufs, 512..=16_777_216),
    }
}

fn idle(checker: &mut Checker, at: &FieldPath, raw: RawIdle) -> Idle {
    match raw {
        RawIdle::Busy => Idle::Busy,
        RawIdle::Adaptive { polls_min, sleep_us_max } => Idle::Adaptive {
            polls_min: checker.number(&at.field("polls_min"), polls_min, 0..=1_000_000),
            sleep_us_max: checker.number(&at.field("sleep_us_max"), sleep_us_max, 1..=10_000),
        },
    }
}

fn workers(checker: &mut Checker, at: &FieldPath, raw: Vec<RawWorker>) -> Vec<Worker> {
    checker.count(at, raw.len(), 1..=WORKERS_MAX, "workers");
    let worker = |(position, raw): (usize, RawWorker)| {
        let at = at.index(position);
        let local = at.field("local_addresses");
        checker.count(&local, raw.local_addresses.len(), 1..=LOCAL_ADDRESSES_MAX, "local addresses");
        Worker {
            lcore: checker.lcore(&at.field("lcore"), raw.lcore),
            cpu: checker.number(&at.field("cpu"), raw.cpu, 0..=CPU_MAX),
            numa: NumaId(checker.number(&at.field("numa"), raw.numa, 0..=NUMA_MAX)),
            local_addresses: (raw.local_addresses.iter().enumerate())
                .map(|(position, text)| checker.address(&local.index(position), text, Role::Local).into())
                .collect(),
        }
    };
    raw.into_iter().enumerate().map(worker).collect()
}

fn tables(checker: &mut Checker, at: &FieldPath, raw: RawTables) -> Tables {
    let sessions = 64..=33_554_432;
    let (first, last) = raw.local_ports;
    let ports = at.field("local_ports");
    if first > last {
        checker.complain(&ports, format!("({first}, {last})"), "the first port, then the last", "swap them");
    }
    Tables {
        local_sessions: checker.number(&at.field("local_sessions"), raw.local_sessions, sessions.clone()),
        remote_sessions: checker.number(&at.field("remote_sessions"), raw.remote_sessions, sessions),
        event_ring_slots: checker.power_of_two(
            &at.field("event_ring_slots"),
            raw.event_ring_slots,
            64..=16_777_216,
        ),
        datagram_ring_slots: checker.power_of_two(
            &at.field("datagram_ring_slots"),
            raw.datagram_ring_slots,
            16..=65_536,
        ),
        local_ports: (
            checker.number(&ports.index(0), first, 1..=65_535),
            checker.number(&ports.index(1), last, 1..=65_535),
        ),
    }
}

fn timeouts(checker: &mut Checker, at: &FieldPath, raw: RawTimeouts) -> Timeouts {
    let mut timeout = |name: &str, value: Number, least: Number| -> u32 {
        checker.number(&at.field(name), value, least..=WEEK_MS)
    };
    Timeouts {
        tcp_handshake_ms: timeout("tcp_handshake_ms", raw.tcp_handshake_ms, 100),
        tcp_established_ms: timeout("tcp_established_ms", raw.tcp_established_ms, 100),
        tcp_closing_ms: timeout("tcp_closing_ms", raw.tcp_closing_ms, 100),
        tcp_closed_ms: timeout("tcp_closed_ms", raw.tcp_closed_ms, 100),
        udp_ms: timeout("udp_ms", raw.udp_ms, 100),
        remote_margin_ms: timeout("remote_margin_ms", raw.remote_margin_ms, 0),
    }
}

fn services(checker: &mut Checker, at: &FieldPath, raw: Vec<RawService>) -> Vec<Service> {
    checker.count(at, raw.len(), 0..=SERVICES_MAX, "services");
    let service = |(position, raw): (usize, RawService)| {
        let at = at.index(position);
        Service {
            name: checker.name(&at.field("name"), &raw.name),
            vip: checker.endpoint(&at.field("vip"), &raw.vip, Role::Vip),
            protocol: raw.protocol,
            scheduler: raw.scheduler,
            sync_after: sync_after(checker, &at.field("sync_after"), raw.sync_after),
            real_servers: real_servers(checker, &at.field("real_servers"), raw.real_servers),
        }
    };
    raw.into_iter().enumerate().map(service).collect()
}

fn sync_after(checker: &mut Checker, at: &FieldPath, raw: RawSyncAfter) -> SyncAfter {
    match raw {
        RawSyncAfter::Packets(count) => SyncAfter::Packets(checker.number(at, count, 1..=1_000_000)),
        RawSyncAfter::AgeMs(age) => SyncAfter::AgeMs(checker.number(at, age, 0..=WEEK_MS)),
    }
}

fn real_servers(checker: &mut Checker, at: &FieldPath, raw: Vec<RawRealServer>) -> Vec<RealServer> {
    checker.count(at, raw.len(), 1..=REAL_SERVERS_MAX, "real servers");
    let server = |(position, raw): (usize, RawRealServer)| {
        let at = at.index(position);
        RealServer {
            endpoint: checker.endpoint(&at.field("endpoint"), &raw.endpoint, Role::RealServer),
            weight: checker.number(&at.field("weight"), raw.weight, 0..=65_535),
        }
    };
    raw.into_iter().enumerate().map(server).collect()
}

fn sync(checker: &mut Checker, at: &FieldPath, raw: RawSync) -> Sync {
    Sync {
        enabled: raw.enabled,
        port: checker.number(&at.field("port"), raw.port, 1..=65_535),
        mtu: checker.number(&at.field("mtu"), raw.mtu, 576..=9000),
        flush_us: checker.number(&at.field("flush_us"), raw.flush_us, 1..=1_000_000),
        security: match raw.security {
            RawSecurity::Aead { key_file } => {
                Security::Aead { key_file: checker.file(&at.field("security").field("key_file"), &key_file) }
            }
            RawSecurity::Off => Security::Off,
        },
        claim_holdoff_ms: checker.number(&at.field("claim_holdoff_ms"), raw.claim_holdoff_ms, 0..=600_000),
        digest_ms: checker.number(&at.field("digest_ms"), raw.digest_ms, 100..=60_000),
        tombstone_ms: checker.number(&at.field("tombstone_ms"), raw.tombstone_ms, 1000..=600_000),
        tombstones: checker.number(&at.field("tombstones"), raw.tombstones, 1024..=16_777_216),
        ready_timeout_ms: checker.number(&at.field("ready_timeout_ms"), raw.ready_timeout_ms, 1000..=WEEK_MS),
        ready_percent: checker.number(&at.field("ready_percent"), raw.ready_percent, 1..=100),
        hook: hook(checker, &at.field("hook"), raw.hook),
        domains: domains(checker, &at.field("domains"), raw.domains, raw.enabled),
        peers: peers(checker, &at.field("peers"), raw.peers),
    }
}

fn hook(checker: &mut Checker, at: &FieldPath, raw: Vec<String>) -> Vec<String> {
    if let Some(program) = raw.first() {
        checker.file(&at.index(0), program);
    }
    raw
}

fn domains(checker: &mut Checker, at: &FieldPath, raw: Vec<RawSyncDomain>, enabled: bool) -> Vec<SyncDomain> {
    checker.count(at, raw.len(), usize::from(enabled)..=DOMAINS_MAX, "sync domains");
    let domain = |(position, raw): (usize, RawSyncDomain)| {
        let at = at.index(position);
        SyncDomain {
            numa: NumaId(checker.number(&at.field("numa"), raw.numa, 0..=NUMA_MAX)),
            lcore: checker.lcore(&at.field("lcore"), raw.lcore),
            cpu: checker.number(&at.field("cpu"), raw.cpu, 0..=CPU_MAX),
            address: checker.address(&at.field("address"), &raw.address, Role::OwnSync),
            metrics: metrics(checker, &at.field("metrics"), raw.metrics),
        }
    };
    raw.into_iter().enumerate().map(domain).collect()
}

fn metrics(checker: &mut Checker, at: &FieldPath, raw: RawMetrics) -> Metrics {
    Metrics { address: raw.address.map(|text| checker.listener(&at.field("address"), &text)) }
}

fn peers(checker: &mut Checker, at: &FieldPath, raw: Vec<RawPeer>) -> Vec<Peer> {
    checker.count(at, raw.len(), 0..=PEERS_MAX, "peers");
    let peer = |(position, raw): (usize, RawPeer)| {
        let at = at.index(position);
        let addresses = at.field("addresses");
        checker.count(&addresses, raw.addresses.len(), 1..=DOMAINS_MAX, "addresses");
        Peer {
            node: NodeId(checker.number(&at.field("node"), raw.node, 1..=65_535)),
            addresses: (raw.addresses.iter().enumerate())
                .map(|(position, text)| checker.address(&addresses.index(position), text, Role::PeerSync))
                .collect(),
        }
    };
    raw.into_iter().enumerate().map(peer).collect()
}
