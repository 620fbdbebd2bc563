//! The worker's pipeline: a burst of frames in, a verdict for each out.
//!
//! One pipeline belongs to one worker thread. It rewrites frames in place and does no input or output: the binary moves
//! the buffers as the verdicts say.

mod balance;
mod report;
mod sharing;
#[cfg(test)]
mod tests;
mod verdict;

pub use report::Reporter;
pub use sharing::{OpenGate, Sharing};
pub use verdict::{DropReason, Verdict};

use std::sync::Arc;

use crate::config::{Config, SyncAfter, Timeouts};
use crate::counter::CounterBlock;
use crate::flow::{Address, FlowHash};
use crate::id::{NodeId, WorkerId};
use crate::neighbour::{NeighbourReader, Resolution};
use crate::netlink::Resolver;
use crate::packet::{MacAddress, Parsed, ParsedFlow, ethernet, parse};
use crate::service::{Schedulers, Services, Tally};
use crate::session::expiry::Sweep;
use crate::session::local_ports::LocalPorts;
use crate::session::table::{TableReader, TableWriter};
use crate::steering::{Steer, SteeringPlan, Target};
use crate::time::Millis;

/// Largest burst, frames.
pub const BURST_MAX: usize = 32;

/// What a worker needs to know and own to forward packets.
pub struct Pipeline {
    worker: WorkerId,
    node: NodeId,
    local_ports: LocalPorts,
    timeouts: Timeouts,
    schedulers: Schedulers,
    sweep: Sweep,
    /// When the peers are told of a new UDP session, by service.
    sync_after: Vec<SyncAfter>,
    parts: Parts,
}

/// The parts of a [`Pipeline`] that come from outside.
pub struct Parts {
    /// Baton's link-layer address on the port.
    pub mac: MacAddress,
    /// Largest IP packet that the port sends, bytes.
    pub mtu: u16,
    /// The steering plan, one for all workers.
    pub steering: Arc<SteeringPlan>,
    /// The services, one list for all workers.
    pub services: Arc<Services>,
    /// The kernel's routes and neighbours.
    pub neighbours: NeighbourReader,
    /// Whom to ask for a link-layer address that is not known yet.
    pub resolver: Resolver,
    /// This worker's own table.
    pub local: TableWriter,
    /// The remote table of this worker's NUMA node; none if sync is off.
    pub remote: Option<TableReader>,
    /// This worker's event ring; none if sync is off.
    pub reporter: Option<Reporter>,
    /// How sessions are shared with the other nodes; none: this worker claims nothing and asks nobody.
    pub sharing: Option<Sharing>,
    /// This worker's tally of sessions.
    pub tally: Arc<Tally>,
    /// This worker's counters.
    pub counters: &'static CounterBlock,
}

/// A packet that is this worker's to balance: its place in the burst, its headers, its hash in the local table.
struct Pending {
    position: usize,
    target: Target,
    flow: ParsedFlow,
    hash: FlowHash,
}

impl Pipeline {
    /// The pipeline of worker `worker` of the node that `config` describes.
    pub fn new(config: &Config, worker: WorkerId, parts: Parts) -> Pipeline {
        let own = &config.workers[usize::from(worker.0)];
        Pipeline {
            worker,
            node: config.node.id,
            local_ports: LocalPorts::new(&own.local_addresses, config.tables.local_ports),
            timeouts: config.timeouts,
            schedulers: parts.services.schedulers(worker),
            sweep: Sweep::new(),
            sync_after: config.services.iter().map(|service| service.sync_after).collect(),
            parts,
        }
    }

    /// Decides and rewrites a burst of at most [`BURST_MAX`] frames; `verdicts[i]` is what becomes of `frames[i]`.
    ///
    /// Headers of the whole burst are read and its table lines asked for before the first session is looked up.
    pub fn process(&mut self, now: Millis, frames: &mut [&mut [u8]], verdicts: &mut [Verdict]) {
        let mut pending = [const { None }; BURST_MAX];
        for (position, (frame, slot)) in frames.iter().zip(&mut pending).enumerate() {
            match self.classify(frame) {
                Ok((target, flow)) => {
                    let hash = self.parts.local.hash(&flow.key);
                    self.parts.local.prefetch(hash);
                    *slot = Some(Pending { position, target, flow, hash });
                }
                Err(verdict) => verdicts[position] = verdict,
            }
        }
        for packet in pending.iter().flatten() {
            verdicts[packet.position] = self.balance(now, packet, frames[packet.position]);
        }
    }

    /// To be called between bursts: tells the remote table's writer that no record is being looked at.
    pub fn quiesce(&mut self) {
        if let Some(remote) = &mut self.parts.remote {
            remote.quiesce();
        }
    }

    /// The packet's headers if it is for this worker to balance, its verdict otherwise.
    fn classify(&self, frame: &[u8]) -> Result<(Target, ParsedFlow), Verdict> {
        let Some(destination) = frame.first_chunk() else {
            return Err(Verdict::Drop(DropReason::Malformed));
        };
        if ethernet::is_group(destination) {
            return Err(Verdict::Punt);
        }
        if *destination != self.parts.mac {
            return Err(Verdict::Drop(DropReason::NotForUs));
        }
        match parse(frame) {
            Parsed::Transport(flow) => match self.parts.steering.classify(&flow, self.worker) {
                Steer::Mine(target) => Ok((target, flow)),
                Steer::Worker(worker) => Err(Verdict::Handoff(worker)),
                Steer::Sync(_) => Err(Verdict::Sync),
            },
            Parsed::Fragment(fragment) if self.parts.steering.is_balanced(fragment.destination) => {
                Err(Verdict::Drop(DropReason::Fragment))
            }
            Parsed::Fragment(_) | Parsed::OtherIp(_) | Parsed::NonIp(_) => Err(Verdict::Punt),
            Parsed::Malformed(reason) => Err(Verdict::Drop(reason.into())),
        }
    }

    /// The link-layer address of the next hop towards `destination`; one that is not known is asked for.
    fn next_hop(&mut self, destination: Address) -> Result<MacAddress, DropReason> {
        match self.parts.neighbours.resolve(destination) {
            Resolution::Reachable { mac } => Ok(mac),
            Resolution::Unresolved { next_hop } => {
                self.parts.resolver.want(next_hop);
                Err(DropReason::NoNeighbour)
            }
            Resolution::NoRoute => Err(DropReason::NoRoute),
        }
    }
}
