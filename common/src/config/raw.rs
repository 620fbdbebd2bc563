//! The raw configuration: the shape of the file, before anything is checked.
//!
//! Fields are those of the validated types in [`super`], where they are documented. Numbers are as wide as can be and
//! addresses are strings, so that a bad one is reported with its range and remedy, and together with all others.

use serde::Deserialize;

use super::{DEFAULT_KEY_FILE, Scheduler, SteeringMode};
use crate::flow::Protocol;

/// Any number that a file may hold; ranges are checked later.
pub(super) type Number = i64;

#[derive(Deserialize)]
#[serde(rename = "Config", deny_unknown_fields)]
pub(super) struct RawConfig {
    pub node: RawNode,
    #[serde(default)]
    pub paths: RawPaths,
    #[serde(default)]
    pub eal: RawEal,
    pub port: RawPort,
    #[serde(default)]
    pub punt: RawPunt,
    #[serde(default = "default_steering")]
    pub steering: SteeringMode,
    #[serde(default = "default_idle")]
    pub idle: RawIdle,
    pub workers: Vec<RawWorker>,
    #[serde(default)]
    pub tables: RawTables,
    #[serde(default)]
    pub timeouts: RawTimeouts,
    #[serde(default)]
    pub services: Vec<RawService>,
    #[serde(default)]
    pub sync: RawSync,
    #[serde(default)]
    pub metrics: RawMetrics,
    #[serde(default = "default_log")]
    pub log: String,
}

fn default_steering() -> SteeringMode {
    SteeringMode::Auto
}

fn default_idle() -> RawIdle {
    RawIdle::Adaptive { polls_min: default_polls_min(), sleep_us_max: default_sleep_us_max() }
}

fn default_log() -> String {
    "info".to_owned()
}

#[derive(Deserialize)]
#[serde(rename = "Idle", deny_unknown_fields)]
pub(super) enum RawIdle {
    Busy,
    Adaptive {
        #[serde(default = "default_polls_min")]
        polls_min: Number,
        #[serde(default = "default_sleep_us_max")]
        sleep_us_max: Number,
    },
}

fn default_polls_min() -> Number {
    64
}

fn default_sleep_us_max() -> Number {
    100
}

#[derive(Deserialize)]
#[serde(rename = "Node", deny_unknown_fields)]
pub(super) struct RawNode {
    pub id: Number,
    #[serde(default = "default_cluster")]
    pub cluster: Number,
    /// Empty: `node-<id>`.
    #[serde(default)]
    pub name: String,
}

fn default_cluster() -> Number {
    1
}

#[derive(Deserialize)]
#[serde(rename = "Paths", deny_unknown_fields, default)]
pub(super) struct RawPaths {
    pub runtime: String,
    pub hugepages: String,
}

impl Default for RawPaths {
    fn default() -> Self {
        RawPaths { runtime: "/run/baton".to_owned(), hugepages: "/run/baton-hugepages".to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Eal", deny_unknown_fields, default)]
pub(super) struct RawEal {
    pub file_prefix: String,
    pub memory_mib: Number,
    pub main_lcore: Number,
    pub main_cpu: Number,
    pub vdevs: Vec<String>,
    pub pci: Vec<String>,
}

impl Default for RawEal {
    fn default() -> Self {
        RawEal {
            file_prefix: "baton".to_owned(),
            memory_mib: 256,
            main_lcore: 0,
            main_cpu: 0,
            vdevs: Vec::new(),
            pci: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Port", deny_unknown_fields)]
pub(super) struct RawPort {
    pub device: String,
    #[serde(default)]
    pub mac: Option<String>,
    #[serde(default = "default_mtu")]
    pub mtu: Number,
    #[serde(default = "default_descriptors")]
    pub rx_descriptors: Number,
    #[serde(default = "default_descriptors")]
    pub tx_descriptors: Number,
    #[serde(default = "default_mbufs")]
    pub mbufs: Number,
}

fn default_mtu() -> Number {
    1500
}

fn default_descriptors() -> Number {
    1024
}

fn default_mbufs() -> Number {
    32_768
}

#[derive(Deserialize)]
#[serde(rename = "Punt", deny_unknown_fields, default)]
pub(super) struct RawPunt {
    pub interface: String,
}

impl Default for RawPunt {
    fn default() -> Self {
        RawPunt { interface: "punt0".to_owned() }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Worker", deny_unknown_fields)]
pub(super) struct RawWorker {
    pub lcore: Number,
    pub cpu: Number,
    #[serde(default)]
    pub numa: Number,
    pub local_addresses: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename = "Tables", deny_unknown_fields, default)]
pub(super) struct RawTables {
    pub local_sessions: Number,
    pub remote_sessions: Number,
    pub event_ring_slots: Number,
    pub datagram_ring_slots: Number,
    pub local_ports: (Number, Number),
}

impl Default for RawTables {
    fn default() -> Self {
        RawTables {
            local_sessions: 262_144,
            remote_sessions: 1_048_576,
            event_ring_slots: 16_384,
            datagram_ring_slots: 512,
            local_ports: (1024, 65_535),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Timeouts", deny_unknown_fields, default)]
pub(super) struct RawTimeouts {
    pub tcp_handshake_ms: Number,
    pub tcp_established_ms: Number,
    pub tcp_closing_ms: Number,
    pub tcp_closed_ms: Number,
    pub udp_ms: Number,
    pub remote_margin_ms: Number,
}

impl Default for RawTimeouts {
    fn default() -> Self {
        RawTimeouts {
            tcp_handshake_ms: 10_000,
            tcp_established_ms: 900_000,
            tcp_closing_ms: 30_000,
            tcp_closed_ms: 5_000,
            udp_ms: 60_000,
            remote_margin_ms: 60_000,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Service", deny_unknown_fields)]
pub(super) struct RawService {
    pub name: String,
    pub vip: String,
    #[serde(default = "default_protocol")]
    pub protocol: Protocol,
    #[serde(default = "default_scheduler")]
    pub scheduler: Scheduler,
    #[serde(default = "default_sync_after")]
    pub sync_after: RawSyncAfter,
    pub real_servers: Vec<RawRealServer>,
}

fn default_protocol() -> Protocol {
    Protocol::Tcp
}

fn default_scheduler() -> Scheduler {
    Scheduler::WeightedRoundRobin
}

#[derive(Deserialize)]
#[serde(rename = "SyncAfter")]
pub(super) enum RawSyncAfter {
    Packets(Number),
    AgeMs(Number),
}

fn default_sync_after() -> RawSyncAfter {
    RawSyncAfter::Packets(1)
}

#[derive(Deserialize)]
#[serde(rename = "RealServer", deny_unknown_fields)]
pub(super) struct RawRealServer {
    pub endpoint: String,
    #[serde(default = "default_weight")]
    pub weight: Number,
}

fn default_weight() -> Number {
    1
}

#[derive(Deserialize)]
#[serde(rename = "Sync", deny_unknown_fields, default)]
pub(super) struct RawSync {
    pub enabled: bool,
    pub port: Number,
    pub mtu: Number,
    pub flush_us: Number,
    pub security: RawSecurity,
    pub claim_holdoff_ms: Number,
    pub digest_ms: Number,
    pub tombstone_ms: Number,
    pub tombstones: Number,
    pub ready_timeout_ms: Number,
    pub ready_percent: Number,
    pub hook: Vec<String>,
    pub domains: Vec<RawSyncDomain>,
    pub peers: Vec<RawPeer>,
}

impl Default for RawSync {
    fn default() -> Self {
        RawSync {
            enabled: false,
            port: 7400,
            mtu: 1500,
            flush_us: 200,
            security: RawSecurity::Aead { key_file: DEFAULT_KEY_FILE.to_owned() },
            claim_holdoff_ms: 500,
            digest_ms: 2000,
            tombstone_ms: 10_000,
            tombstones: 262_144,
            ready_timeout_ms: 30_000,
            ready_percent: 70,
            hook: Vec::new(),
            domains: Vec::new(),
            peers: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename = "Security", deny_unknown_fields)]
pub(super) enum RawSecurity {
    Aead { key_file: String },
    Off,
}

#[derive(Deserialize)]
#[serde(rename = "SyncDomain", deny_unknown_fields)]
pub(super) struct RawSyncDomain {
    #[serde(default)]
    pub numa: Number,
    pub lcore: Number,
    pub cpu: Number,
    pub address: String,
    #[serde(default)]
    pub metrics: RawMetrics,
}

#[derive(Default, Deserialize)]
#[serde(rename = "Metrics", deny_unknown_fields, default)]
pub(super) struct RawMetrics {
    pub address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename = "Peer", deny_unknown_fields)]
pub(super) struct RawPeer {
    pub node: Number,
    pub addresses: Vec<String>,
}
