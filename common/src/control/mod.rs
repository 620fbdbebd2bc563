//! The control protocol: what the primary answers to `batonctl` and to the sync secondaries, and they to `batonctl`.
//!
//! One JSON object a line in either direction, over a Unix stream socket of the runtime directory: `control.sock` is the
//! primary's, `sync-<numa>.sock` a secondary's. Every request gets one response, in order. A line is at most [`REQUEST_BYTES_MAX`] or [`RESPONSE_BYTES_MAX`] long.
//!
//! ```text
//! > {"request":"attach_secondary","numa":0,"pid":4711}
//! < {"attach_granted":{"numa":0}}
//! > {"request":"secondary_ready","numa":0}
//! < "secondary_noted"
//! > {"request":"dance"}
//! < {"error":{"code":"unknown_request","message":"…"}}
//! ```

mod client;
mod line;
mod server;

pub use client::{CallError, Callee, Client};
pub use server::{Handler, Server, not_mine};

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Scheduler;
use crate::flow::Protocol;
use crate::id::{NodeId, NumaId, WorkerId};
use crate::sync::protocol::Comparison;
use crate::sync::protocol::readiness::{PeerView, ReadyState};

/// Longest request, bytes with its newline.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Longest response, bytes with its newline.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// Where a secondary's control socket is in a runtime directory.
pub fn sync_socket_path(runtime: &Path, numa: NumaId) -> PathBuf {
    runtime.join(format!("sync-{numa}.sock"))
}

/// Where the primary's control socket is in a runtime directory.
pub fn socket_path(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// What may be asked of the primary, and of a secondary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// How the primary is. Answered by [`Response::Status`].
    Status,
    /// The services and their real servers. Answered by [`Response::Services`].
    Services,
    /// A sync secondary is about to attach to DPDK. Answered by [`Response::AttachGranted`] once it may: no other one is
    /// attaching, and nothing of a dead predecessor is in the way. The primary then watches the process.
    AttachSecondary {
        /// The NUMA node it serves.
        numa: NumaId,
        /// Its process id. It must be the caller's own.
        pid: u32,
        /// The secondary that serves the NUMA node lives, and is to give its part up to this one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        succeeds: bool,
    },
    /// That secondary has attached. Answered by [`Response::SecondaryNoted`].
    SecondaryReady {
        /// The NUMA node it serves.
        numa: NumaId,
    },
    /// How a secondary and its peers are. Answered by [`Response::Sync`].
    SyncStatus,
    /// Whether this node is to draw no traffic: its secondary says so to peers, ready file and hook. Answered by
    /// [`Response::Done`].
    SyncDrain {
        /// `false`: it may again.
        draining: bool,
    },
    /// The configured share of what the members announce is enough to be ready. Answered by [`Response::Done`].
    SyncAccept,
    /// The key file has changed. Answered by [`Response::Done`].
    SyncKeys,
    /// Compare what this node and a peer have of each other's sessions. Answered by [`Response::Done`] when it has begun; a
    /// comparison that was going on is given up.
    SyncCompare {
        /// The peer.
        node: NodeId,
    },
    /// How the last comparison goes. Answered by [`Response::Comparison`].
    SyncComparison,
    /// Start a successor from the program on disk and give it this secondary's part once it is ready. Answered by
    /// [`Response::HandedOver`] when that is done; refused with the reason if the successor failed, and then nothing has changed.
    SyncHandOver,
    /// The successor is ready and wants its predecessor's part. Answered by [`Response::Done`] when it was given up.
    SyncGiveUp,
    /// The successor has the part. Answered by [`Response::Done`]; the predecessor leaves.
    SyncTaken {
        /// How long no datagram was taken or sent, microseconds.
        silence_us: u64,
    },
}

impl Request {
    /// Every value of the field `request`.
    pub const NAMES: &[&str] = &[
        "status",
        "services",
        "attach_secondary",
        "secondary_ready",
        "sync_status",
        "sync_drain",
        "sync_accept",
        "sync_keys",
        "sync_compare",
        "sync_comparison",
        "sync_hand_over",
        "sync_give_up",
        "sync_taken",
    ];
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Services`].
    Services(Vec<ServiceStatus>),
    /// To [`Request::AttachSecondary`]: attach now, then say that you are ready.
    AttachGranted {
        /// The NUMA node of the request.
        numa: NumaId,
    },
    /// To [`Request::SecondaryReady`].
    SecondaryNoted,
    /// To [`Request::SyncStatus`].
    Sync(Box<SyncStatus>),
    /// To [`Request::SyncComparison`].
    Comparison(Box<Comparison>),
    /// To [`Request::SyncHandOver`].
    HandedOver(HandedOver),
    /// To what has nothing else to say.
    Done,
    /// To a request that was not carried out.
    Error(Refusal),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason and the remedy, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with this reason.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

/// The reasons for a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The line is no JSON object, or a field of it is missing or wrong.
    Malformed,
    /// This version knows no such request.
    UnknownRequest,
    /// The line is longer than [`REQUEST_BYTES_MAX`].
    TooLong,
    /// Too many clients, or another operation is going on: try again.
    Busy,
    /// The request does not fit the configuration or the state of the process, or is another process's.
    NotPossible,
}

/// How the primary is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The primary's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Milliseconds since it began to forward.
    pub uptime_ms: u64,
    /// Which node it is.
    pub node: NodeStatus,
    /// How packets are brought to their queue: `rte_flow`, `tap_bpf` or `software`.
    pub steering: String,
    /// The port that carries the traffic.
    pub port: PortStatus,
    /// The forwarding workers.
    pub workers: Vec<WorkerStatus>,
    /// The sync secondaries of the configuration.
    pub secondaries: Vec<SecondaryStatus>,
    /// Whether sessions are synchronised with other nodes.
    pub sync_enabled: bool,
    /// What of DPDK's heap is in use.
    #[serde(default)]
    pub heap: HeapStatus,
}

/// What of DPDK's heap is in use. It does not grow while the primary runs, whatever becomes of secondaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapStatus {
    /// Bytes, headers included.
    pub bytes: u64,
    /// Allocations.
    pub elements: u64,
}

/// Which node a primary is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its cluster's number.
    pub cluster: u32,
}

/// How a sync secondary is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The NUMA node it serves.
    pub numa: NumaId,
    /// How far the node is, as far as this secondary is concerned.
    pub state: ReadyState,
    /// Whether it should long be ready and is not.
    pub alarm: bool,
    /// Whether it takes part: a node that is no member sends nothing.
    pub member: bool,
    /// Sessions that the peers were told are this node's.
    pub sessions_owned: u32,
    /// How it came to its part, and what became of those that were to succeed it.
    #[serde(default)]
    pub succession: SuccessionStatus,
    /// How each peer is.
    pub peers: Vec<PeerView>,
}

/// A hand-over from one secondary to the next that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// The successor's process.
    pub pid: u32,
    /// How long no datagram was taken or sent, microseconds.
    pub silence_us: u64,
}

/// How a secondary came to its part, and what became of those that were to succeed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuccessionStatus {
    /// Whether its predecessor gave its part up, rather than having ended.
    pub handed_over: bool,
    /// Microseconds from the predecessor's last look at its queues to this one's first; nothing if there was none before.
    pub silence_us: Option<u64>,
    /// Microseconds from there to the first datagram that this one took or sent.
    pub first_datagram_us: Option<u64>,
    /// Successors that have failed.
    pub failures: u32,
    /// Why the last one failed.
    pub failure: Option<String>,
}

/// The port that carries the traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// DPDK's name of the device.
    pub device: String,
    /// DPDK's driver of it.
    pub driver: String,
    /// The link-layer address, `02:ba:70:00:00:01`.
    pub mac: String,
    /// Receive queues in use.
    pub rx_queues: u16,
    /// Transmit queues in use.
    pub tx_queues: u16,
}

/// A forwarding worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: WorkerId,
    /// Its DPDK lcore.
    pub lcore: u16,
    /// The CPU it runs on.
    pub cpu: u16,
    /// Its NUMA node.
    pub numa: NumaId,
    /// The addresses it uses towards real servers.
    pub local_addresses: Vec<IpAddr>,
}

/// A sync secondary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondaryStatus {
    /// The NUMA node it serves.
    pub numa: NumaId,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// It has said that it is ready, and lives.
    pub attached: bool,
    /// The process that is to take its part, if there is one.
    #[serde(default)]
    pub successor: Option<u32>,
    /// Packet buffers of its pool.
    #[serde(default)]
    pub buffers: u32,
    /// Those that are free. Its receive queue holds one for each descriptor.
    #[serde(default)]
    pub buffers_free: u32,
}

/// A balanced service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The virtual address and port.
    pub vip: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// How real servers are chosen.
    pub scheduler: Scheduler,
    /// The real servers.
    pub real_servers: Vec<RealServerStatus>,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerStatus {
    /// Its address and port.
    pub endpoint: SocketAddr,
    /// Its share of new sessions.
    pub weight: u16,
    /// Sessions created towards it since the primary began.
    pub sessions_created: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_look_as_documented() {
        let request = Request::AttachSecondary { numa: NumaId(0), pid: 4711, succeeds: false };
        let text = r#"{"request":"attach_secondary","numa":0,"pid":4711}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);

        let text = |response: Response| serde_json::to_string(&response).unwrap();
        assert_eq!(text(Response::AttachGranted { numa: NumaId(0) }), r#"{"attach_granted":{"numa":0}}"#);
        assert_eq!(text(Response::SecondaryNoted), r#""secondary_noted""#);
        let refusal = Refusal::new(RefusalCode::UnknownRequest, "no");
        assert_eq!(text(Response::Error(refusal)), r#"{"error":{"code":"unknown_request","message":"no"}}"#);
    }

    #[test]
    fn the_list_of_names_is_the_list_of_requests() {
        let requests = [
            Request::Status,
            Request::Services,
            Request::AttachSecondary { numa: NumaId(0), pid: 1, succeeds: true },
            Request::SecondaryReady { numa: NumaId(0) },
            Request::SyncStatus,
            Request::SyncDrain { draining: true },
            Request::SyncAccept,
            Request::SyncKeys,
            Request::SyncCompare { node: NodeId(2) },
            Request::SyncComparison,
            Request::SyncHandOver,
            Request::SyncGiveUp,
            Request::SyncTaken { silence_us: 1 },
        ];

        let names = requests.map(|request| {
            let value = serde_json::to_value(request).unwrap();
            value["request"].as_str().unwrap().to_owned()
        });

        assert_eq!(names, Request::NAMES);
    }
}
