//! The node's configuration: one RON file, read by every process, parsed, validated, with errors that help.
//!
//! The types here are the validated ones: whoever holds a [`Config`] need check nothing again.

mod digest;
mod error;
mod field_path;
mod key_file;
mod load;
mod locate;
mod raw;
mod shape;
#[cfg(test)]
mod tests;
mod validate;

pub use error::{ConfigError, Problem};
pub use key_file::{ChangeError, KEYS_MAX, KeyFile, KeyFileError, KeyUse, Secret, SyncKey};
pub use load::{DEFAULT_KEY_FILE, DEFAULT_PATH, SAMPLE, SECURITY_OFF, check_report};
pub use locate::Position;
pub use validate::{
    DOMAINS_MAX, LOCAL_ADDRESSES_MAX, PEERS_MAX, REAL_SERVERS_MAX, SERVICES_MAX, WORKERS_MAX,
};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::flow::{Address, Endpoint, Protocol};
use crate::id::{NodeId, NumaId};

/// A validated configuration of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// Where files live.
    pub paths: Paths,
    /// What DPDK is started with.
    pub eal: Eal,
    /// The port that carries the traffic.
    pub port: Port,
    /// The kernel's interface for everything that is not balanced.
    pub punt: Punt,
    /// How packets are brought to their worker and to the secondary.
    pub steering: SteeringMode,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
    /// The forwarding workers, at least one. `WorkerId` is the position.
    pub workers: Vec<Worker>,
    /// Sizes of tables and rings.
    pub tables: Tables,
    /// Idle timeouts of sessions.
    pub timeouts: Timeouts,
    /// The balanced services. `ServiceId` is the position.
    pub services: Vec<Service>,
    /// Session synchronisation.
    pub sync: Sync,
    /// The primary's metrics.
    pub metrics: Metrics,
    /// Log filter, as `tracing_subscriber::EnvFilter` reads it: `info`, `baton_primary=debug`.
    pub log: String,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// This node's number, unique in the cluster, not zero.
    pub id: NodeId,
    /// The cluster's number; datagrams of another are rejected.
    pub cluster: u32,
    /// A name for people.
    pub name: String,
}

/// Where files live.
#[derive(Clone, Debug, PartialEq)]
pub struct Paths {
    /// Directory for sockets, pid and lock files. Shared by primary and secondaries.
    pub runtime: PathBuf,
    /// A hugetlbfs mount of Baton's own, for DPDK's pages and the table files.
    pub hugepages: PathBuf,
}

/// What DPDK is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Eal {
    /// DPDK's `--file-prefix`; unique per node on a machine.
    pub file_prefix: String,
    /// DPDK memory (`-m`), MiB; it never grows after the start.
    pub memory_mib: u32,
    /// The lcore id of the primary's main thread; no worker runs on it.
    pub main_lcore: u16,
    /// The CPU that the main lcore runs on.
    pub main_cpu: u16,
    /// Virtual devices (`--vdev`), for example `net_tap0,iface=lb0`.
    pub vdevs: Vec<String>,
    /// PCI devices to allow (`-a`); empty means `--no-pci`.
    pub pci: Vec<String>,
}

/// The port that carries the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// DPDK's device name: `net_tap0` or `0000:3b:00.0`.
    pub device: String,
    /// The link-layer address that Baton uses on this port; the device's own if `None`.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, bytes, 1280..=9000.
    pub mtu: u16,
    /// Receive descriptors a queue.
    pub rx_descriptors: u16,
    /// Transmit descriptors a queue.
    pub tx_descriptors: u16,
    /// Packet buffers of the workers' pool.
    pub mbufs: u32,
}

/// The kernel's interface for everything that is not balanced.
#[derive(Clone, Debug, PartialEq)]
pub struct Punt {
    /// The name of the tap interface, at most 15 bytes. It is made if it does not exist.
    pub interface: String,
}

/// How packets are brought to their worker and to the secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SteeringMode {
    /// The first of `RteFlow`, `TapBpf`, `Software` that the port really supports.
    Auto,
    /// `rte_flow` rules in the port. An error at start if the port does not create them.
    RteFlow,
    /// An eBPF program in the tap device. An error at start if the port is no tap.
    TapBpf,
    /// Workers hand packets to each other and to the secondary over rings.
    Software,
}

/// What a thread does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Idle {
    /// Polls without rest: for dedicated CPUs.
    Busy,
    /// Sleeps, twice as long each time up to `sleep_us_max`, after `polls_min` empty polls.
    Adaptive {
        /// Empty polls before the first sleep.
        polls_min: u32,
        /// Longest sleep, microseconds, 1..=10_000.
        sleep_us_max: u32,
    },
}

/// One forwarding worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// DPDK's lcore id, unique among all processes of the node.
    pub lcore: u16,
    /// The CPU it runs on.
    pub cpu: u16,
    /// The NUMA node it belongs to; has an entry in `sync.domains` if sync is enabled.
    pub numa: NumaId,
    /// The addresses that the worker uses towards real servers; its own alone.
    pub local_addresses: Vec<Address>,
}

/// Sizes of tables and rings.
#[derive(Clone, Debug, PartialEq)]
pub struct Tables {
    /// Sessions that one worker's local table holds.
    pub local_sessions: u32,
    /// Sessions that one NUMA node's remote table holds.
    pub remote_sessions: u32,
    /// Slots of a worker's event ring, a power of two.
    pub event_ring_slots: u32,
    /// Slots of each datagram ring between workers and secondary, a power of two.
    pub datagram_ring_slots: u32,
    /// Ports of a local address that may be used: first and last.
    pub local_ports: (u16, u16),
}

/// Idle timeouts of sessions, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is done.
    pub tcp_handshake_ms: u32,
    /// TCP established.
    pub tcp_established_ms: u32,
    /// TCP after the first FIN.
    pub tcp_closing_ms: u32,
    /// TCP after both FINs, or a RST.
    pub tcp_closed_ms: u32,
    /// UDP.
    pub udp_ms: u32,
    /// What a remote session is kept longer than its owner would.
    pub remote_margin_ms: u32,
}

/// One balanced service: one virtual endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// A name for people.
    pub name: String,
    /// The virtual address and port.
    pub vip: Endpoint,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How a real server is chosen for a new session.
    pub scheduler: Scheduler,
    /// When the peers are told of a new UDP session; those of TCP are told when the handshake is done.
    pub sync_after: SyncAfter,
    /// The real servers, at least one, of the VIP's address family.
    pub real_servers: Vec<RealServer>,
}

/// When the peers are told of a new UDP session: the first packet that comes after this tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncAfter {
    /// With this packet, counted from 1, both ways.
    Packets(u32),
    /// With the first packet when the session is this old, milliseconds.
    AgeMs(u32),
}

/// How a real server is chosen for a new session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Scheduler {
    /// In turn, in proportion to the weights, evenly interleaved.
    WeightedRoundRobin,
}

/// A real server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServer {
    /// Its address and port.
    pub endpoint: Endpoint,
    /// Its share of new sessions; 0 gets none.
    pub weight: u16,
}

/// Session synchronisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sync {
    /// Off: sessions live on this node only.
    pub enabled: bool,
    /// UDP port of the protocol, on every node the same.
    pub port: u16,
    /// Largest IP packet of the sync network, bytes, 576..=9000.
    pub mtu: u16,
    /// Longest time that a record waits for its datagram to fill, microseconds.
    pub flush_us: u32,
    /// How datagrams are kept from others.
    pub security: Security,
    /// How long packets of a client must keep coming before this node claims its session from a living owner, milliseconds.
    pub claim_holdoff_ms: u32,
    /// How often peers compare digests, milliseconds.
    pub digest_ms: u32,
    /// How long the end of a session keeps late news of it out, milliseconds.
    pub tombstone_ms: u32,
    /// Ends of sessions that are remembered for that at a time.
    pub tombstones: u32,
    /// After which time a node that is not ready raises the alarm, and opens sessions nevertheless, milliseconds.
    pub ready_timeout_ms: u32,
    /// Of what the members announce, the share that is enough when an operator does not want to wait, percent.
    pub ready_percent: u8,
    /// The program that is run when the node's state of readiness changes, and its arguments; none if empty.
    pub hook: Vec<String>,
    /// One sync secondary each.
    pub domains: Vec<SyncDomain>,
    /// The other nodes.
    pub peers: Vec<Peer>,
}

/// How sync datagrams are kept from being read, forged and repeated by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Authenticated and encrypted, with keys that only the cluster's nodes have.
    Aead {
        /// The file with the keys; see [`KeyFile`].
        key_file: PathBuf,
    },
    /// Not at all: for a network that nobody else can reach.
    Off,
}

/// A NUMA node with a sync secondary of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncDomain {
    /// Which NUMA node.
    pub numa: NumaId,
    /// The secondary's lcore id, unique among all processes of the node.
    pub lcore: u16,
    /// The CPU it runs on.
    pub cpu: u16,
    /// The sync address: what peers send to.
    pub address: IpAddr,
    /// The secondary's metrics.
    pub metrics: Metrics,
}

/// Where a process answers Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Address and TCP port; none: nowhere.
    pub address: Option<SocketAddr>,
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Its number.
    pub node: NodeId,
    /// Its sync addresses, one a NUMA node.
    pub addresses: Vec<IpAddr>,
}
