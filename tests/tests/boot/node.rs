//! The configuration of the container's node, and the addresses of those around it.

use std::path::Path;

/// DPDK memory that the node needs. MiB.
pub const MEMORY_MIB: u32 = 96;
/// The service that the node balances, UDP.
pub const VIP: &str = "203.0.113.1:7";
/// The real server of it.
pub const REAL_SERVER: &str = "192.0.2.11:7";
/// What the hook has written, inside.
pub const HOOK_FILE: &str = "/run/baton/hook";

/// The configuration with these directories. The peer is never there, so the node opens sessions after a second.
pub fn config(runtime: &Path, hugepages: &Path, memory_mib: u32) -> String {
    format!(
        r#"(
    node: (id: 1),
    paths: (runtime: "{}", hugepages: "{}"),
    eal: (memory_mib: {memory_mib}, vdevs: ["net_tap0,iface=lb0"]),
    port: (device: "net_tap0", mac: "02:ba:70:00:00:01", mbufs: 8192),
    punt: (interface: "punt0"),
    steering: TapBpf,
    idle: Adaptive(polls_min: 32, sleep_us_max: 250),
    workers: [(lcore: 1, cpu: 0, local_addresses: ["198.51.100.1"])],
    tables: (local_sessions: 4096, remote_sessions: 4096, event_ring_slots: 1024),
    services: [(name: "echo", vip: "{VIP}", protocol: Udp, real_servers: [(endpoint: "{REAL_SERVER}")])],
    sync: (
        enabled: true,
        ready_timeout_ms: 1000,
        hook: ["/bin/sh", "-c", "ip route replace blackhole 203.0.113.99; echo $BATON_STATE >>{HOOK_FILE}"],
        domains: [(lcore: 32, cpu: 0, address: "192.0.2.101")],
        peers: [(node: 2, addresses: ["192.0.2.102"])],
    ),
)
"#,
        runtime.display(),
        hugepages.display()
    )
}
