//! The configuration file of a lab's node.

use std::fmt::Write;

use crate::host::{Host, SYNC_PORT, VIP4, VIP6};
use crate::server::{DATABASE_PORT, ECHO_PORT, HTTP_PORT};
use crate::state::Lab;

/// DPDK's id of the first secondary's lcore; ids must differ between the processes of a node, CPUs need not.
const SYNC_LCORE: u16 = 32;

/// Where a node's processes answer Prometheus.
const PRIMARY_METRICS: &str = "127.0.0.1:9909";
const SYNC_METRICS: &str = "127.0.0.1:9910";

/// The configuration of node `node`, RON.
pub fn render(lab: &Lab, node: u16) -> String {
    let host = Host::Node(node);
    let dir = lab.host_dir(host);
    let mac = Host::mac(node);
    let cpu = |position: u16| position % cpus();
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        r#"// Node {host} of the lab `{name}`, written by baton-lab.
Config(
    node: Node(id: {node}, cluster: 1, name: "{host}"),
    paths: Paths(
        runtime: "{runtime}",
        hugepages: "{hugepages}",
    ),
    eal: Eal(
        file_prefix: "{name}-{host}",
        memory_mib: 128,
        main_lcore: 0,
        main_cpu: {main_cpu},
        vdevs: ["net_tap0,iface=lb0"],
    ),
    port: Port(device: "net_tap0", mac: "{mac}", mtu: 1500, rx_descriptors: 1024, tx_descriptors: 1024, mbufs: 16384),
    punt: Punt(interface: "punt0"),
    steering: {steering},
    // All nodes of a lab share a few CPUs.
    idle: Adaptive(polls_min: 32, sleep_us_max: 250),
    workers: [
"#,
        name = lab.name,
        runtime = dir.join("run").display(),
        hugepages = dir.join("hugepages").display(),
        main_cpu = cpu(node),
        steering = lab.shape.steering,
    );
    for worker in 0..lab.shape.workers {
        let (local4, local6) = Host::local_addresses(node, worker);
        let _ = writeln!(
            text,
            r#"        Worker(lcore: {}, cpu: {}, numa: 0, local_addresses: ["{local4}", "{local6}"]),"#,
            worker + 1,
            cpu(node + worker),
        );
    }
    text.push_str(
        "    ],\n    tables: Tables(\n        local_sessions: 65536,\n        remote_sessions: 65536,\n        \
         event_ring_slots: 16384,\n        datagram_ring_slots: 512,\n        local_ports: (1024, 65535),\n    ),\n",
    );
    text.push_str("    services: [\n");
    for service in services(lab) {
        text.push_str(&service);
    }
    text.push_str("    ],\n");
    let _ = write!(
        text,
        r#"    sync: Sync(
        enabled: {enabled},
        port: {SYNC_PORT},
        mtu: 1500,
        flush_us: 200,
        security: {security},
        digest_ms: 500,
        domains: [SyncDomain(
            numa: 0, lcore: {SYNC_LCORE}, cpu: {sync_cpu}, address: "{address}",
            metrics: Metrics(address: "{SYNC_METRICS}"),
        )],
        peers: [{peers}],
    ),
    // In the node's own network namespace.
    metrics: Metrics(address: "{PRIMARY_METRICS}"),
    log: "info",
)
"#,
        enabled = lab.shape.sync,
        security = match lab.shape.sealed {
            true => format!("Aead(key_file: {:?})", lab.key_file().display().to_string()),
            false => "Off".to_owned(),
        },
        sync_cpu = cpu(node + lab.shape.workers),
        address = Host::sync_address(node),
        peers = lab
            .shape
            .node_numbers()
            .filter(|&peer| peer != node)
            .map(|peer| format!(r#"Peer(node: {peer}, addresses: ["{}"])"#, Host::sync_address(peer)))
            .collect::<Vec<_>>()
            .join(", "),
    );
    text
}

fn services(lab: &Lab) -> Vec<String> {
    let servers: Vec<Host> = (1..=lab.shape.servers).map(Host::Server).collect();
    let mut services = Vec::new();
    services.extend(both_families("http", "Tcp", HTTP_PORT, &servers));
    services.extend(both_families("echo", "Udp", ECHO_PORT, &servers));
    if lab.shape.database {
        services.extend(both_families("database", "Tcp", DATABASE_PORT, &[Host::Database]));
    }
    services
}

/// A service on the IPv4 and the IPv6 address of the VIP.
fn both_families(name: &str, protocol: &str, port: u16, servers: &[Host]) -> [String; 2] {
    let service = |name: String, vip: String, endpoints: Vec<String>| {
        let servers: Vec<String> = endpoints
            .iter()
            .map(|endpoint| format!(r#"RealServer(endpoint: "{endpoint}", weight: 1)"#))
            .collect();
        format!(
            "        Service(\n            name: \"{name}\",\n            vip: \"{vip}\",\n            protocol: {protocol},\n            \
             scheduler: WeightedRoundRobin,\n            real_servers: [{}],\n        ),\n",
            servers.join(", ")
        )
    };
    let endpoints4 = servers.iter().map(|server| format!("{}:{port}", server.ipv4())).collect();
    let endpoints6 = servers.iter().map(|server| format!("[{}]:{port}", server.ipv6())).collect();
    [
        service(format!("{name}4"), format!("{VIP4}:{port}"), endpoints4),
        service(format!("{name}6"), format!("[{VIP6}]:{port}"), endpoints6),
    ]
}

/// CPUs of this machine, at least one.
fn cpus() -> u16 {
    std::thread::available_parallelism().map_or(1, |count| u16::try_from(count.get()).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use baton_common::config::{Config, Security, SteeringMode};

    use super::*;
    use crate::process::ProcessId;
    use crate::state::Shape;

    fn lab(workers: u16, sync: bool, database: bool) -> Lab {
        Lab {
            name: "test".into(),
            dir: "/run/baton-lab/test".into(),
            shape: Shape {
                nodes: 3,
                servers: 2,
                clients: 1,
                workers,
                sync,
                sealed: !database,
                steering: "TapBpf".into(),
                database,
                bin_dir: "/usr/bin".into(),
            },
            creator: ProcessId::own(),
            complete: false,
            owner: None,
            withdrawn: BTreeSet::new(),
            impaired: BTreeMap::new(),
            processes: BTreeMap::new(),
        }
    }

    #[test]
    fn baton_takes_the_configuration_of_every_shape() {
        for (workers, sync, database) in [(1, true, true), (3, true, false), (2, false, false)] {
            let text = render(&lab(workers, sync, database), 2);
            let config = Config::parse(&text, "lab").unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.node.id.0, 2);
            assert_eq!(config.workers.len(), usize::from(workers));
            assert_eq!(config.services.len(), if database { 6 } else { 4 });
            assert_eq!(config.steering, SteeringMode::TapBpf);
            assert_eq!(config.sync.enabled, sync);
            let key_file = PathBuf::from("/run/baton-lab/test/sync.key");
            let security = if database { Security::Off } else { Security::Aead { key_file } };
            assert_eq!(config.sync.security, security);
            assert_eq!(config.sync.peers.iter().map(|peer| peer.node.0).collect::<Vec<_>>(), [1, 3]);
        }
    }
}
