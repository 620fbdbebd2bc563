//! The control protocol: what the primary answers to `batonctl` and to the sync secondaries.
//!
//! One JSON object a line in either direction, over the Unix stream socket `control.sock` of the runtime directory. Every
//! request gets one response, in order. A line is at most [`REQUEST_BYTES_MAX`] or [`RESPONSE_BYTES_MAX`] long.
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

pub use client::{CallError, Client};
pub use server::{Handler, Server};

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Scheduler;
use crate::flow::Protocol;
use crate::id::{NodeId, NumaId, WorkerId};

/// Longest request, bytes with its newline.
pub const REQUEST_BYTES_MAX: usize = 4096;
/// Longest response, bytes with its newline.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// Where the control socket of a runtime directory is.
pub fn socket_path(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// What may be asked of the primary.
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
    },
    /// That secondary has attached. Answered by [`Response::SecondaryNoted`].
    SecondaryReady {
        /// The NUMA node it serves.
        numa: NumaId,
    },
}

impl Request {
    /// Every value of the field `request`.
    pub const NAMES: &[&str] = &["status", "services", "attach_secondary", "secondary_ready"];
}

/// What the primary answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// This version of the primary knows no such request.
    UnknownRequest,
    /// The line is longer than [`REQUEST_BYTES_MAX`].
    TooLong,
    /// Too many clients, or another operation is going on: try again.
    Busy,
    /// The request does not fit the configuration or the state of the primary.
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
        let request = Request::AttachSecondary { numa: NumaId(0), pid: 4711 };
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
            Request::AttachSecondary { numa: NumaId(0), pid: 1 },
            Request::SecondaryReady { numa: NumaId(0) },
        ];

        let names = requests.map(|request| {
            let value = serde_json::to_value(request).unwrap();
            value["request"].as_str().unwrap().to_owned()
        });

        assert_eq!(names, Request::NAMES);
    }
}
