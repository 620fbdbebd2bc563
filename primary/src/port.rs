//! The port: its pools, its queues, and the steering that brings packets to them.

use anyhow::{Context, bail};
use baton_common::config::{Config, SteeringMode};
use baton_common::flow::HashKey;
use baton_common::id::WorkerId;
use baton_common::pipeline::BURST_MAX;
use baton_common::steering::{ClientSpread, SteeringBackend, SteeringPlan};
use dpdk::{
    Burst, Device, Eal, FlowAction, FlowMatch, FlowRules, Mempool, PoolConfig, PoolOps, Port, PortConfig,
    RxQueue, RxQueueConfig, SteeringTarget, TapSteering, TxQueue,
};

/// DPDK's driver of tap devices.
const TAP_DRIVER: &str = "net_tap";

/// Most queue pairs of a tap: DPDK passes at most eight file descriptors to a secondary.
const TAP_QUEUE_PAIRS_MAX: u16 = 4;

/// Buffers of a secondary's pool.
const SYNC_MBUFS: u32 = 4095;

/// Bytes of a buffer beyond the largest IP packet: Ethernet header and VLAN tag.
const FRAME_OVERHEAD: u16 = 18;

/// Rules before the catch-all.
const PRIORITY_RULES: u32 = 0;
/// The catch-all.
const PRIORITY_REST: u32 = 1;

/// The running port.
pub struct Wire {
    pub port: Port,
    pub driver: String,
    pub plan: SteeringPlan,
    /// The workers' pool.
    pub pool: Mempool,
    /// The secondaries' pools, one a sync domain. To be counted only: each is its secondary's.
    pub sync_pools: Vec<Mempool>,
    /// Keeps the tap's program and its rules in place.
    _tap_steering: Option<TapSteering>,
}

/// The pools that queues take their buffers from. Made once, for a port may be started more than once.
struct Pools {
    workers: Mempool,
    secondaries: Vec<Mempool>,
}

impl Pools {
    fn create(eal: &Eal, config: &Config) -> anyhow::Result<Pools> {
        let data_bytes = (config.port.mtu + FRAME_OVERHEAD).max(2048);
        let pool = |name: &str, count, cache, ops| {
            let pool = PoolConfig { count, cache, data_bytes, socket: -1, ops };
            Mempool::create(eal, name, &pool)
                .context("making the packet buffers (eal.memory_mib may be too small)")
        };
        let secondaries = config
            .sync
            .domains
            .iter()
            .map(|domain| pool(&format!("sync-{}", domain.numa), SYNC_MBUFS, 0, PoolOps::SingleThread));
        Ok(Pools {
            secondaries: secondaries.collect::<anyhow::Result<_>>()?,
            workers: pool("workers", config.port.mbufs, 256, PoolOps::MultiThread)?,
        })
    }
}

impl Wire {
    /// Starts the port with the steering that the configuration asks for, or the best that the port supports.
    ///
    /// # Errors
    /// The port does not start, or does not support the steering that was asked for.
    pub fn start(eal: &Eal, config: &Config, hash_key: HashKey) -> anyhow::Result<Wire> {
        let driver = Device::find(eal, &config.port.device)?.capabilities()?.driver;
        let pools = Pools::create(eal, config)?;
        let mut refusals = Vec::new();
        for &backend in candidates(config.steering) {
            let plan = SteeringPlan::new(config, backend, hash_key);
            if driver == TAP_DRIVER && plan.queue_pairs() > TAP_QUEUE_PAIRS_MAX {
                refusals
                    .push(format!("{}: a tap has at most {TAP_QUEUE_PAIRS_MAX} queue pairs", backend.name()));
                continue;
            }
            if backend == SteeringBackend::TapBpf && driver != TAP_DRIVER {
                refusals.push(format!("{}: the port's driver is {driver}", backend.name()));
                continue;
            }
            let port = Device::find(eal, &config.port.device)?
                .start(&port_config(config, &plan, &pools))
                .with_context(|| {
                    format!("starting port {} for steering by {}", config.port.device, backend.name())
                })?;
            match apply(eal, &port, plan) {
                Ok((plan, tap_steering)) => {
                    let Pools { workers: pool, secondaries: sync_pools } = pools;
                    return Ok(Wire { port, driver, plan, pool, sync_pools, _tap_steering: tap_steering });
                }
                Err(error) => {
                    tracing::info!(
                        backend = backend.name(),
                        error = format!("{error:#}"),
                        "steering not supported"
                    );
                    refusals.push(format!("{}: {error:#}", backend.name()));
                    port.stop(eal)?;
                }
            }
        }
        bail!(
            "port {} supports no steering that `steering` allows: {}",
            config.port.device,
            refusals.join("; ")
        )
    }

    /// Takes the queues of the first `workers` workers, without what is in them.
    ///
    /// The port runs before its steering is in force, and until then brings packets to any queue. A worker would take such
    /// a packet of another one's session for a new client's or a lost session's.
    ///
    /// # Errors
    /// A queue is taken already.
    pub fn take_worker_queues(&self, workers: usize) -> anyhow::Result<Vec<(RxQueue, TxQueue)>> {
        let mut discarded = 0;
        let mut queues = Vec::new();
        for worker in 0..workers {
            let queue = self.plan.worker_queue(WorkerId(worker as u8));
            let mut rx = self.port.take_rx_queue(queue.0)?;
            discarded += discard(&mut rx);
            queues.push((rx, self.port.take_tx_queue(queue.0)?));
        }
        if discarded > 0 {
            tracing::info!(count = discarded, "discarded what came before the steering was in force");
        }
        Ok(queues)
    }
}

/// Empties a queue, and says how many packets were in it. One that fills as fast as it is emptied is left alone after a
/// while: what is in it then came with the steering in force.
fn discard(queue: &mut RxQueue) -> usize {
    const BURSTS_MAX: usize = 1024;
    let mut burst = Burst::<BURST_MAX>::new();
    let mut total = 0;
    for _ in 0..BURSTS_MAX {
        let count = queue.burst(&mut burst);
        burst.clear();
        total += count;
        if count == 0 {
            break;
        }
    }
    total
}

/// The backends that a mode allows, best first.
fn candidates(mode: SteeringMode) -> &'static [SteeringBackend] {
    use SteeringBackend::*;
    match mode {
        SteeringMode::Auto => &[RteFlow, TapBpf, Software],
        SteeringMode::RteFlow => &[RteFlow],
        SteeringMode::TapBpf => &[TapBpf],
        SteeringMode::Software => &[Software],
    }
}

fn port_config(config: &Config, plan: &SteeringPlan, pools: &Pools) -> PortConfig {
    let workers = (0..plan.worker_queues()).map(|_| pools.workers.clone());
    let secondaries = pools.secondaries.iter().take(plan.sync_queues().into()).cloned();
    PortConfig {
        rx_queues: workers.chain(secondaries).map(|pool| RxQueueConfig { pool }).collect(),
        tx_queues: plan.queue_pairs(),
        rx_descriptors: config.port.rx_descriptors,
        tx_descriptors: config.port.tx_descriptors,
        mtu: config.port.mtu,
        promiscuous: config.port.mac.is_some(),
        // A hash over all queues would bring clients to the secondaries' queues.
        spread: plan.sync_queues() == 0,
    }
}

/// Puts the plan's rules into force.
fn apply(eal: &Eal, port: &Port, plan: SteeringPlan) -> anyhow::Result<(SteeringPlan, Option<TapSteering>)> {
    match plan.backend() {
        SteeringBackend::Software => {
            // A program that an earlier primary left in a persistent tap would go on steering.
            if let Some(interface) = port.capabilities()?.interface {
                let _ = TapSteering::remove_from(&interface);
            }
            Ok((plan, None))
        }
        SteeringBackend::TapBpf => {
            let steering = apply_tap(port, &plan)?;
            Ok((plan, Some(steering)))
        }
        SteeringBackend::RteFlow => Ok((apply_rte_flow(eal, port, plan)?, None)),
    }
}

fn apply_tap(port: &Port, plan: &SteeringPlan) -> anyhow::Result<TapSteering> {
    let interface =
        port.capabilities()?.interface.context("the tap has no interface in this network namespace")?;
    let mut steering = TapSteering::install(&interface, plan.worker_queues())?;
    for rule in plan.rules() {
        steering.insert(
            rule.destination.into(),
            SteeringTarget { queue: rule.queue.0, udp_port: rule.udp_port },
        )?;
    }
    Ok(steering)
}

/// Creates the rules. What none of them matches is spread over the workers' queues; a port that cannot do that brings it
/// to the first worker, which spreads clients by a hash of its own.
fn apply_rte_flow(eal: &Eal, port: &Port, plan: SteeringPlan) -> anyhow::Result<SteeringPlan> {
    let mut flow = FlowRules::new(eal, port)?;
    flow.probe()?;
    for rule in plan.rules() {
        let destination =
            FlowMatch::Destination { address: rule.destination.into(), udp_port: rule.udp_port };
        flow.insert(destination, PRIORITY_RULES, &FlowAction::Queue(rule.queue.0))?;
    }
    let workers: Vec<u16> = (0..plan.worker_queues()).collect();
    if flow.insert(FlowMatch::Any, PRIORITY_REST, &FlowAction::Spread(workers)).is_ok() {
        return Ok(plan);
    }
    flow.insert(FlowMatch::Any, PRIORITY_REST, &FlowAction::Queue(0))?;
    Ok(plan.with_client_spread(ClientSpread::ByHash))
}
