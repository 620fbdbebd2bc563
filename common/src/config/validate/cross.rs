//! What must fit together across fields: identities, addresses, families, queues, memory.

use std::collections::HashMap;

use super::checker::{Checker, Role};
use crate::config::field_path::FieldPath;
use crate::config::{Config, Service, SteeringMode};
use crate::flow::Address;

/// Most queue pairs of a `net_tap` device: its descriptors travel to the secondary in one message of DPDK's, which holds
/// eight (`RTE_MP_MAX_FD_NUM`); one more aborts the primary.
const TAP_QUEUES_MAX: usize = 4;

/// Bytes of an mbuf besides its packet: `struct rte_mbuf`, headroom, the pool's own header and alignment.
const MBUF_OVERHEAD_BYTES: u64 = 128 + 128 + 64;

pub(super) fn check(checker: &mut Checker, config: &Config) {
    lcores(checker);
    listeners(checker);
    paths(checker, config);
    devices(checker, config);
    tap_queues(checker, config);
    packet_buffers(checker, config);
    services(checker, config);
    local_addresses_serve_every_family(checker, config);
    addresses(checker);
    sync(checker, config);
    peers(checker, config);
}

/// Complains about each path whose key has stood before. `remedy` is told the path of the first.
fn distinct<K: std::hash::Hash + Eq + std::fmt::Display>(
    checker: &mut Checker,
    keys: impl IntoIterator<Item = (K, FieldPath)>,
    noun: &str,
    remedy: &str,
) {
    let mut seen: HashMap<K, FieldPath> = HashMap::new();
    for (key, path) in keys {
        match seen.get(&key) {
            Some(first) => checker.complain(
                &path,
                format!("{key}, which is {first} too"),
                format!("{noun} of its own"),
                remedy,
            ),
            None => {
                seen.insert(key, path);
            }
        }
    }
}

fn lcores(checker: &mut Checker) {
    let lcores = checker.lcores.clone();
    distinct(checker, lcores, "an lcore id", "choose a free lcore id; CPUs may be shared, lcore ids may not");
}

fn listeners(checker: &mut Checker) {
    let listeners = checker.listeners.clone();
    distinct(
        checker,
        listeners,
        "an address and port",
        "choose another port: each process answers for itself",
    );
}

fn paths(checker: &mut Checker, config: &Config) {
    let (runtime, hugepages) = (&config.paths.runtime, &config.paths.hugepages);
    if runtime.starts_with(hugepages) {
        let at = FieldPath::root().field("paths").field("runtime");
        let found = format!("{}, inside paths.hugepages", runtime.display());
        checker.complain(&at, found, "a directory outside the hugetlbfs mount", "choose another directory");
    }
}

/// The port's device must be one that EAL is told of.
fn devices(checker: &mut Checker, config: &Config) {
    let device = &config.port.device;
    let names = || config.eal.vdevs.iter().chain(&config.eal.pci).map(|device| first_part(device));
    if !names().any(|name| name == device) {
        let known: Vec<&str> = names().collect();
        let expected = match known.as_slice() {
            [] => "a device of eal.vdevs or eal.pci, which are both empty".to_owned(),
            known => format!("one of {} (eal.vdevs, eal.pci)", known.join(", ")),
        };
        let at = FieldPath::root().field("port").field("device");
        checker.complain(
            &at,
            format!("\"{device}\""),
            expected,
            "add the device there, or name one of those",
        );
    }
    let vdevs = FieldPath::root().field("eal").field("vdevs");
    let named: Vec<_> = (config.eal.vdevs.iter().enumerate())
        .map(|(position, vdev)| (first_part(vdev).to_owned(), vdevs.index(position)))
        .collect();
    distinct(checker, named, "a device name", "give it another number, for example net_tap1");
    let punt = &config.punt.interface;
    for (position, vdev) in config.eal.vdevs.iter().enumerate() {
        if vdev.split(',').skip(1).any(|argument| argument.strip_prefix("iface=") == Some(punt)) {
            let found = format!("\"{vdev}\", whose interface is the punt interface too");
            let remedy = "give one of them another interface name";
            checker.complain(&vdevs.index(position), found, "an interface of its own", remedy);
        }
    }
}

/// The device's name in an EAL device argument: `net_tap0` of `net_tap0,iface=lb0`.
fn first_part(device: &str) -> &str {
    device.split(',').next().unwrap_or_default()
}

fn tap_queues(checker: &mut Checker, config: &Config) {
    if !config.port.device.starts_with("net_tap") {
        return;
    }
    let workers = config.workers.len();
    let domains = match config.steering {
        SteeringMode::Software => 0,
        _ => config.sync.domains.len(),
    };
    if workers + domains > TAP_QUEUES_MAX {
        let found = format!(
            "{workers} workers and {domains} sync domains with queues of their own on a net_tap device"
        );
        let expected = format!("at most {TAP_QUEUES_MAX} queue pairs");
        let remedy = "take workers away, or use `steering: Software`, which needs none for sync";
        checker.complain(&FieldPath::root().field("workers"), found, expected, remedy);
    }
}

/// The pool must fill the queues and fit into DPDK's memory: EAL's own messages about either do not name the reason.
fn packet_buffers(checker: &mut Checker, config: &Config) {
    let port = &config.port;
    let at = FieldPath::root().field("port").field("mbufs");
    let queued =
        config.workers.len() as u64 * (u64::from(port.rx_descriptors) + u64::from(port.tx_descriptors));
    if u64::from(port.mbufs) < queued {
        let expected = format!("at least {queued}: workers × (rx_descriptors + tx_descriptors)");
        checker.complain(&at, port.mbufs.to_string(), expected, "raise it, or have fewer descriptors");
    }
    let each = u64::from(port.mtu).max(2048) + MBUF_OVERHEAD_BYTES;
    let mib = (u64::from(port.mbufs) * each).div_ceil(1 << 20);
    if mib > u64::from(config.eal.memory_mib) {
        let found = format!("{}, which take {mib} MiB", port.mbufs);
        let expected = format!("what fits eal.memory_mib, {}", config.eal.memory_mib);
        checker.complain(
            &at,
            found,
            expected,
            format!("lower it, or raise eal.memory_mib to {} or more", mib + 32),
        );
    }
}

fn services(checker: &mut Checker, config: &Config) {
    let at = FieldPath::root().field("services");
    let path = |position: usize, name: &str| at.index(position).field(name);
    let all = || config.services.iter().enumerate();
    let names: Vec<_> = all().map(|(i, s)| (s.name.clone(), path(i, "name"))).collect();
    distinct(checker, names, "a name", "rename one of the services");
    let vips: Vec<_> = all()
        .filter(|(_, service)| service.vip.port != 0)
        .map(|(i, s)| (format!("{} {:?}", s.vip, s.protocol), path(i, "vip")))
        .collect();
    distinct(checker, vips, "a virtual endpoint", "change address, port or protocol, or merge the services");
    for (position, service) in all() {
        real_servers(checker, &path(position, "real_servers"), service);
    }
}

fn real_servers(checker: &mut Checker, at: &FieldPath, service: &Service) {
    for (position, server) in service.real_servers.iter().enumerate() {
        let vip = service.vip;
        let both_known = vip.port != 0 && server.endpoint.port != 0;
        if both_known && server.endpoint.address.is_v4() != vip.address.is_v4() {
            let expected = format!("an address of the VIP's family ({})", vip.address);
            let remedy = "a service has one family: make a second service for the other";
            checker.complain(
                &at.index(position).field("endpoint"),
                server.endpoint.to_string(),
                expected,
                remedy,
            );
        }
    }
    let endpoints: Vec<_> = (service.real_servers.iter().enumerate())
        .filter(|(_, server)| server.endpoint.port != 0)
        .map(|(position, server)| (server.endpoint, at.index(position).field("endpoint")))
        .collect();
    distinct(checker, endpoints, "an endpoint", "take one away, and give the other the weight of both");
}

/// A worker without a local address of a service's family could not take a single connection of that service.
fn local_addresses_serve_every_family(checker: &mut Checker, config: &Config) {
    for (v4, family) in [(true, "IPv4"), (false, "IPv6")] {
        let of_family = |service: &&Service| service.vip.port != 0 && service.vip.address.is_v4() == v4;
        let Some(service) = config.services.iter().find(of_family) else { continue };
        for (position, worker) in config.workers.iter().enumerate() {
            let local = &worker.local_addresses;
            let all_known = !local.is_empty() && !local.contains(&Address::v4([0; 4]));
            if all_known && !local.iter().any(|address| address.is_v4() == v4) {
                let at = FieldPath::root().field("workers").index(position).field("local_addresses");
                let expected = format!("one for service \"{}\" ({})", service.name, service.vip);
                let found = format!("no {family} address");
                checker.complain(
                    &at,
                    found,
                    expected,
                    format!("add an {family} address that is routed to this node"),
                );
            }
        }
    }
}

/// An address that is the balancer's own has one role and one place; VIPs and real servers may repeat among themselves.
fn addresses(checker: &mut Checker) {
    let mut first: HashMap<_, (FieldPath, Role)> = HashMap::new();
    for (address, path, role) in checker.addresses.clone() {
        match first.get(&address) {
            None => {
                first.insert(address, (path, role));
            }
            Some((_, earlier)) if *earlier == role && matches!(role, Role::Vip | Role::RealServer) => {}
            Some((earlier, _)) => {
                let found = format!("{address}, which is {earlier} too");
                let remedy =
                    "local, sync, virtual and real server addresses must all differ: change one of the two";
                checker.complain(&path, found, "an address of its own", remedy);
            }
        }
    }
}

fn sync(checker: &mut Checker, config: &Config) {
    let sync = &config.sync;
    let root = FieldPath::root();
    let at = root.field("sync");
    let numas: Vec<_> = (sync.domains.iter().enumerate())
        .map(|(position, domain)| (domain.numa, at.field("domains").index(position).field("numa")))
        .collect();
    distinct(checker, numas, "a NUMA node", "one sync domain serves the whole NUMA node: merge them");
    if sync.enabled && !sync.domains.is_empty() {
        for (position, worker) in config.workers.iter().enumerate() {
            if !sync.domains.iter().any(|domain| domain.numa == worker.numa) {
                let found = format!("NUMA node {} without a sync domain", worker.numa);
                let expected = "a NUMA node of sync.domains";
                let remedy = "add a domain for it to sync.domains, or move the worker";
                checker.complain(
                    &root.field("workers").index(position).field("numa"),
                    found,
                    expected,
                    remedy,
                );
            }
        }
    }
    if sync.mtu > config.port.mtu {
        let expected =
            format!("at most port.mtu, {}: sync datagrams leave through the same port", config.port.mtu);
        checker.complain(&at.field("mtu"), sync.mtu.to_string(), expected, "lower it, or raise port.mtu");
    }
}

fn peers(checker: &mut Checker, config: &Config) {
    let at = FieldPath::root().field("sync").field("peers");
    let node = |position: usize| at.index(position).field("node");
    for (position, peer) in config.sync.peers.iter().enumerate() {
        if peer.node == config.node.id {
            let found = format!("{}, this node's own id", peer.node);
            checker.complain(
                &node(position),
                found,
                "another node's id",
                "list only the other nodes as peers",
            );
        }
    }
    let ids: Vec<_> = (config.sync.peers.iter().enumerate()).map(|(i, peer)| (peer.node, node(i))).collect();
    distinct(checker, ids, "a node id", "list each peer once, with all its addresses");
    sync_addresses_have_one_family(checker);
}

fn sync_addresses_have_one_family(checker: &mut Checker) {
    let family = |address: &Address| if address.is_v4() { "IPv4" } else { "IPv6" };
    let all: Vec<_> = (checker.addresses.iter())
        .filter(|(_, _, role)| matches!(role, Role::OwnSync | Role::PeerSync))
        .cloned()
        .collect();
    let Some((first, first_path, _)) = all.first() else { return };
    for (address, path, _) in all.iter().filter(|(address, ..)| family(address) != family(first)) {
        let found = format!("the {} address {address}", family(address));
        let expected = format!("{}, as {first_path} is", family(first));
        checker.complain(path, found, expected, "the sync network has one family: use that one everywhere");
    }
}
