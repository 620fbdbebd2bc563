//! The steering plan: which queue or worker a packet belongs to.
//!
//! The plan is pure data made from the config. A backend brings packets to their queues by it; the workers check by it
//! what arrives, so a packet that strays is handed on whatever the backend did.

use std::hash::Hasher;

use rustc_hash::FxHashMap;
use siphasher::sip::SipHasher13;

use crate::config::{Config, SyncDomain};
use crate::flow::{Address, Endpoint, HashKey, Protocol, address_words};
use crate::id::{NumaId, QueueId, SyncDomainId, WorkerId};
use crate::packet::ParsedFlow;

/// What applies the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SteeringBackend {
    /// `rte_flow` rules in the port.
    RteFlow,
    /// An eBPF program in the tap device.
    TapBpf,
    /// The workers, over rings.
    Software,
}

impl SteeringBackend {
    /// Its name, as in the log and as serde writes it.
    pub const fn name(self) -> &'static str {
        match self {
            SteeringBackend::RteFlow => "rte_flow",
            SteeringBackend::TapBpf => "tap_bpf",
            SteeringBackend::Software => "software",
        }
    }
}

/// How packets from clients are spread over the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientSpread {
    /// By the port, which brings all packets of a client's endpoint to one worker: RSS, or the tap's program.
    ByPort,
    /// By the workers themselves, with a keyed hash of the client's endpoint.
    ByHash,
}

/// One rule of the plan: packets to `destination` go to `queue`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringRule {
    /// The destination address.
    pub destination: Address,
    /// Only UDP packets to this port, host byte order; every packet if none.
    pub udp_port: Option<u16>,
    /// Where they go.
    pub queue: QueueId,
}

/// What a packet is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A service's virtual address.
    Vip,
    /// The local address of the worker that looks at it.
    Local,
    /// Anything else: perhaps a session of another node that this one has taken over, else a matter for the kernel.
    Other,
}

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// To the worker that looks at it.
    Mine(Target),
    /// To another worker.
    Worker(WorkerId),
    /// To the secondary of this sync domain, by way of the worker that looks at it.
    Sync(SyncDomainId),
}

/// Who stands behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Vip,
    Local(WorkerId),
    Sync(SyncDomainId),
}

/// The steering plan of a node. Read-only once built; shared by all threads.
#[derive(Clone)]
pub struct SteeringPlan {
    backend: SteeringBackend,
    client_spread: ClientSpread,
    hash_key: HashKey,
    sync_port: u16,
    owners: FxHashMap<Address, Owner>,
    worker_numas: Vec<NumaId>,
    domains: Vec<Domain>,
    rules: Vec<SteeringRule>,
}

#[derive(Clone, Copy)]
struct Domain {
    numa: NumaId,
    /// A worker of the same NUMA node, whose ring this domain's secondary drains.
    worker: Option<WorkerId>,
}

/// The sync domains with their numbers; none if sync is off.
fn sync_domains(config: &Config) -> impl Iterator<Item = (SyncDomainId, &SyncDomain)> {
    let domains = if config.sync.enabled { config.sync.domains.as_slice() } else { &[] };
    domains.iter().enumerate().map(|(position, domain)| (SyncDomainId(position as u8), domain))
}

/// The local addresses with their workers.
fn local_addresses(config: &Config) -> impl Iterator<Item = (WorkerId, Address)> {
    config.workers.iter().enumerate().flat_map(|(position, worker)| {
        worker.local_addresses.iter().map(move |address| (WorkerId(position as u8), *address))
    })
}

fn owners(config: &Config) -> FxHashMap<Address, Owner> {
    let vips = config.services.iter().map(|service| (service.vip.address, Owner::Vip));
    let local = local_addresses(config).map(|(worker, address)| (address, Owner::Local(worker)));
    let sync = sync_domains(config).map(|(id, domain)| (domain.address.into(), Owner::Sync(id)));
    vips.chain(local).chain(sync).collect()
}

impl SteeringPlan {
    /// Makes the plan for a validated config. Clients are spread by the port, except with [`SteeringBackend::Software`].
    ///
    /// `hash_key` must be the same after a restart of the primary: a session stands in the table of the worker that the
    /// key chose for its client.
    pub fn new(config: &Config, backend: SteeringBackend, hash_key: HashKey) -> SteeringPlan {
        let client_spread = match backend {
            SteeringBackend::RteFlow | SteeringBackend::TapBpf => ClientSpread::ByPort,
            SteeringBackend::Software => ClientSpread::ByHash,
        };
        let worker_numas: Vec<NumaId> = config.workers.iter().map(|worker| worker.numa).collect();
        let worker_of = |numa: NumaId| {
            let position = worker_numas.iter().position(|other| *other == numa)?;
            Some(WorkerId(position as u8))
        };
        let domains = sync_domains(config)
            .map(|(_, domain)| Domain { numa: domain.numa, worker: worker_of(domain.numa) })
            .collect();
        let sync_port = config.sync.port;
        let owners = owners(config);
        let mut plan = SteeringPlan {
            backend,
            client_spread,
            hash_key,
            sync_port,
            owners,
            worker_numas,
            domains,
            rules: Vec::new(),
        };
        if backend != SteeringBackend::Software {
            plan.rules = plan.make_rules(config);
        }
        plan
    }

    /// The same plan with clients spread otherwise: a port may apply the rules without being able to spread the rest.
    #[must_use]
    pub fn with_client_spread(self, client_spread: ClientSpread) -> SteeringPlan {
        SteeringPlan { client_spread, ..self }
    }

    /// What applies the plan.
    pub fn backend(&self) -> SteeringBackend {
        self.backend
    }

    /// How clients are spread over the workers.
    pub fn client_spread(&self) -> ClientSpread {
        self.client_spread
    }

    /// Queue pairs that the port needs: one a worker, then one a sync domain, except with
    /// [`SteeringBackend::Software`], where secondaries have none.
    pub fn queue_pairs(&self) -> u16 {
        self.worker_queues() + self.sync_queues()
    }

    /// Queue pairs of workers. They are the first ones.
    pub fn worker_queues(&self) -> u16 {
        self.worker_numas.len() as u16
    }

    /// Queue pairs of secondaries. They follow the workers'.
    pub fn sync_queues(&self) -> u16 {
        match self.backend {
            SteeringBackend::RteFlow | SteeringBackend::TapBpf => self.domains.len() as u16,
            SteeringBackend::Software => 0,
        }
    }

    /// The queue pair of a worker.
    pub fn worker_queue(&self, worker: WorkerId) -> QueueId {
        QueueId(worker.0.into())
    }

    /// The queue pair of a sync domain's secondary, if it has one.
    pub fn sync_queue(&self, domain: SyncDomainId) -> Option<QueueId> {
        let position = u16::from(domain.0);
        (position < self.sync_queues()).then(|| QueueId(self.worker_queues() + position))
    }

    /// The rules that the port applies: the sync domains' first, then the workers' local addresses in the config's
    /// order. None with [`SteeringBackend::Software`]. What no rule matches must not reach a secondary's queue.
    pub fn rules(&self) -> &[SteeringRule] {
        &self.rules
    }

    fn make_rules(&self, config: &Config) -> Vec<SteeringRule> {
        let sync = sync_domains(config).filter_map(|(id, domain)| {
            let queue = self.sync_queue(id)?;
            Some(SteeringRule { destination: domain.address.into(), udp_port: Some(self.sync_port), queue })
        });
        let local = local_addresses(config).map(|(worker, destination)| SteeringRule {
            destination,
            udp_port: None,
            queue: self.worker_queue(worker),
        });
        sync.chain(local).collect()
    }

    /// Where a packet belongs that worker `arrived_at` looks at. A packet handed on by this is the next worker's own.
    #[inline]
    pub fn classify(&self, flow: &ParsedFlow, arrived_at: WorkerId) -> Steer {
        let destination = flow.key.destination;
        match self.owners.get(&destination.address) {
            Some(Owner::Vip) => match self.client_worker(flow.key.source) {
                Some(worker) if worker != arrived_at => Steer::Worker(worker),
                _ => Steer::Mine(Target::Vip),
            },
            Some(Owner::Local(worker)) if *worker == arrived_at => Steer::Mine(Target::Local),
            Some(Owner::Local(worker)) => Steer::Worker(*worker),
            Some(Owner::Sync(domain))
                if flow.key.protocol == Protocol::Udp && destination.port == self.sync_port =>
            {
                self.sync_way(*domain, arrived_at)
            }
            Some(Owner::Sync(_)) | None => Steer::Mine(Target::Other),
        }
    }

    /// Whether packets to this address are balanced: it is a VIP or a local address of this node.
    pub fn is_balanced(&self, destination: Address) -> bool {
        matches!(self.owners.get(&destination), Some(Owner::Vip | Owner::Local(_)))
    }

    /// The worker that a client's packets are hashed to; none if the port spreads them.
    #[inline]
    pub fn client_worker(&self, client: Endpoint) -> Option<WorkerId> {
        match self.client_spread {
            ClientSpread::ByPort => None,
            ClientSpread::ByHash => {
                let workers = self.worker_numas.len().max(1) as u64;
                Some(WorkerId((self.hash(client) % workers) as u8))
            }
        }
    }

    /// SipHash-1-3 of an endpoint: clients choose their ports, so an unkeyed hash would let them choose their worker.
    #[inline]
    fn hash(&self, client: Endpoint) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.hash_key.0[0], self.hash_key.0[1]);
        for word in address_words(client.address) {
            hasher.write_u64(word);
        }
        hasher.write_u16(client.port);
        hasher.finish()
    }

    /// The way of a sync datagram: a worker's ring leads to the secondary of its own NUMA node only.
    #[inline]
    fn sync_way(&self, domain: SyncDomainId, arrived_at: WorkerId) -> Steer {
        let here = self.worker_numas.get(usize::from(arrived_at.0));
        match self.domains.get(usize::from(domain.0)) {
            Some(Domain { numa, worker: Some(worker), .. }) if here != Some(numa) => Steer::Worker(*worker),
            _ => Steer::Sync(domain),
        }
    }
}

#[cfg(test)]
mod tests;
