//! The running node: every thread of the primary, started in order and stopped in order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use baton_common::config::Config;
use baton_common::control::{self, PortStatus, Server};
use baton_common::counter::CounterFile;
use baton_common::flow::Address;
use baton_common::id::WorkerId;
use baton_common::idle::Backoff;
use baton_common::metrics::{self, PrimaryMetrics};
use baton_common::neighbour::{NeighbourReader, Resolution};
use baton_common::netlink::{Mirror, MirrorOptions};
use baton_common::pipeline::{Parts, Pipeline};
use baton_common::punt::PuntTap;
use baton_common::runtime::ProcessLock;
use baton_common::service::{Services, Tally};
use baton_common::steering::SteeringPlan;
use baton_common::time::Millis;
use dpdk::{Consumer, Eal, EalOptions, ProcessType, Producer, SharedConfig, SharedHeap, mbuf_ring};

use crate::lock;
use crate::memory::{self, WorkerMemory};
use crate::port::Wire;
use crate::pulse::Pulse;
use crate::punt::Punt;
use crate::server::Control;
use crate::supervisor::Supervisor;
use crate::worker::{Rings, Worker};

/// Slots of each ring between threads: more than a burst from everyone, less than what would only add delay.
const RING_SLOTS: u32 = 1024;

/// Longest time that the primary waits for its next hops before it says that it is ready.
const NEIGHBOURS_WAIT: Duration = Duration::from_secs(3);

const NEIGHBOURS_POLL: Duration = Duration::from_millis(5);

/// The running node.
pub struct Node {
    eal: Eal,
    config: Arc<Config>,
    pulses: Vec<Arc<Pulse>>,
    punt: JoinHandle<()>,
    supervisor: Arc<Supervisor>,
    _server: Server,
    _metrics: Option<metrics::Server>,
    mirror: Mirror,
    _wire: Wire,
    _lock: ProcessLock,
}

impl Node {
    /// Starts everything. When this returns the workers forward.
    ///
    /// # Errors
    /// The first part that did not start, and why.
    pub fn start(config: Arc<Config>) -> anyhow::Result<Node> {
        let lock = lock::acquire(&config.paths.runtime)?;
        lock::wait_for_old_secondaries(&config.paths.runtime, &config.eal.file_prefix)?;
        let memory = memory::attach(&config)?;
        let counters = memory::attach_counters(&config)?;
        let eal = start_eal(&config)?;
        let wire = Wire::start(&eal, &config, memory::steering_key(&memory))?;
        let mac = config.port.mac.map_or_else(|| wire.port.mac(), Ok)?;
        let tap = PuntTap::open(&config.punt.interface, mac)?;
        let mirror = Mirror::start(MirrorOptions {
            interface: config.punt.interface.clone(),
            keep: config.services.iter().flat_map(real_servers).collect(),
        })
        .context("mirroring the kernel's routes and neighbours")?;
        let mut started = Threads::start(&eal, &config, &wire, counters, memory, &mirror, mac, tap)?;
        let (runtime_dir, file_prefix) = (config.paths.runtime.clone(), config.eal.file_prefix.clone());
        let heap = SharedHeap::new(&eal, SharedConfig::open(&runtime_dir, &file_prefix)?);
        let domains = config.sync.domains.iter().map(|domain| domain.numa);
        let supervisor = Arc::new(Supervisor::new(domains, heap, runtime_dir, file_prefix));
        let control = Arc::new(Control {
            config: config.clone(),
            started: Millis::now(),
            steering: wire.plan.backend(),
            port: port_status(&config, &wire, mac),
            tallies: std::mem::take(&mut started.tallies),
            supervisor: supervisor.clone(),
            sync_pools: wire.sync_pools.clone(),
        });
        let socket = control::socket_path(&config.paths.runtime);
        let server = Server::start(&socket, control.clone())
            .with_context(|| format!("listening on {}", socket.display()))?;
        let metrics = start_metrics(&config, counters, control)?;
        Ok(Node {
            eal,
            config,
            pulses: started.pulses,
            punt: started.punt,
            supervisor,
            _server: server,
            _metrics: metrics,
            mirror,
            _wire: wire,
            _lock: lock,
        })
    }

    /// Waits until the next hops of all real servers and of the default routes are known, so that the first packets need not
    /// be dropped for want of them. One that does not answer holds nothing up for longer than `NEIGHBOURS_WAIT`.
    pub fn wait_for_neighbours(&self) {
        let mut neighbours = NeighbourReader::new(self.mirror.neighbours());
        let defaults = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        let real_servers = self.config.services.iter().flat_map(real_servers);
        let mut unknown: Vec<Address> = real_servers.chain(defaults.map(Address::from)).collect();
        let deadline = Instant::now() + NEIGHBOURS_WAIT;
        loop {
            unknown.retain(|&address| matches!(neighbours.resolve(address), Resolution::Unresolved { .. }));
            if unknown.is_empty() || Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(NEIGHBOURS_POLL);
        }
        if !unknown.is_empty() {
            tracing::warn!(count = unknown.len(), "next hops that do not answer yet");
        }
    }

    /// The secondaries' supervisor.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// The pulse of every thread that must not hang.
    pub fn beats(&self) -> Vec<u64> {
        self.pulses.iter().map(|pulse| pulse.beats()).collect()
    }

    /// Stops the threads after their current bursts.
    pub fn stop(self) {
        for pulse in &self.pulses {
            pulse.stop();
        }
        for worker in &self.config.workers {
            if let Err(error) = self.eal.wait_lcore(worker.lcore) {
                tracing::error!(lcore = worker.lcore, error = %error, "worker ended badly");
            }
        }
        if self.punt.join().is_err() {
            tracing::error!("the punt thread ended badly");
        }
    }
}

/// What the start of the threads leaves behind.
struct Threads {
    pulses: Vec<Arc<Pulse>>,
    tallies: Vec<Arc<Tally>>,
    punt: JoinHandle<()>,
}

impl Threads {
    /// Starts the punt thread and the workers.
    #[expect(clippy::too_many_arguments, reason = "the one place where every part meets")]
    fn start(
        eal: &Eal,
        config: &Config,
        wire: &Wire,
        counters: &'static CounterFile,
        memory: Vec<WorkerMemory>,
        mirror: &Mirror,
        mac: [u8; 6],
        tap: PuntTap,
    ) -> anyhow::Result<Threads> {
        let services = Arc::new(Services::new(&config.services));
        let steering: Arc<SteeringPlan> = Arc::new(wire.plan.clone());
        let (rings, punt_from_workers, punt_to_port) = make_rings(eal, config.workers.len())?;
        let punt_pulse = Arc::new(Pulse::default());
        let punt = Punt {
            tap,
            from_workers: punt_from_workers,
            to_port: punt_to_port,
            pool: wire.pool.clone(),
            counters: counters.control(),
            pulse: punt_pulse.clone(),
        };
        let mut threads = Threads { pulses: vec![punt_pulse], tallies: Vec::new(), punt: punt.start()? };
        let queues = wire.take_worker_queues(config.workers.len())?;
        for (number, ((memory, mut rings), (rx, tx))) in memory.into_iter().zip(rings).zip(queues).enumerate()
        {
            let id = WorkerId(number as u8);
            rings.sync_rx = memory.sync_rx;
            rings.sync_tx = memory.sync_tx;
            let block = counters.worker(number).context("the counters file has no block for this worker")?;
            let tally = Arc::new(Tally::new(&config.services));
            let pulse = Arc::new(Pulse::default());
            let parts = Parts {
                mac,
                mtu: config.port.mtu,
                steering: steering.clone(),
                services: services.clone(),
                neighbours: NeighbourReader::new(mirror.neighbours()),
                resolver: mirror.resolver(),
                local: memory.local,
                remote: memory.remote,
                reporter: memory.reporter,
                sharing: memory.sharing,
                tally: tally.clone(),
                counters: block,
            };
            let worker = Worker {
                rx,
                tx,
                pool: wire.pool.clone(),
                pipeline: Pipeline::new(config, id, parts),
                rings,
                counters: block,
                backoff: Backoff::new(config.idle),
                pulse: pulse.clone(),
            };
            eal.launch(config.workers[number].lcore, move || worker.run())
                .with_context(|| format!("starting worker {number}"))?;
            threads.pulses.push(pulse);
            threads.tallies.push(tally);
        }
        Ok(threads)
    }
}

/// The rings between the workers, and between them and the punt thread: each worker's part, the punt thread's ends.
fn make_rings(eal: &Eal, workers: usize) -> anyhow::Result<(Vec<Rings>, Vec<Consumer>, Producer)> {
    let ring =
        |name: String| mbuf_ring(eal, &name, RING_SLOTS, -1).with_context(|| format!("making ring {name}"));
    let (punt_to_port, from_punt) = ring("punt-tx".into())?;
    let mut from_punt = Some(from_punt);
    let mut punt_from_workers = Vec::new();
    let mut rings = Vec::new();
    for worker in 0..workers {
        let (punt_out, punt_from) = ring(format!("punt-{worker}"))?;
        punt_from_workers.push(punt_from);
        rings.push(Rings {
            handoff_out: (0..workers).map(|_| None).collect(),
            handoff_in: Vec::new(),
            punt_out,
            punt_in: from_punt.take(),
            sync_rx: None,
            sync_tx: None,
        });
    }
    for from in 0..workers {
        for to in (0..workers).filter(|&to| to != from) {
            let (producer, consumer) = ring(format!("handoff-{from}-{to}"))?;
            rings[from].handoff_out[to] = Some(producer);
            rings[to].handoff_in.push(consumer);
        }
    }
    Ok((rings, punt_from_workers, punt_to_port))
}

fn start_eal(config: &Config) -> anyhow::Result<Eal> {
    let mut options = EalOptions::new(ProcessType::Primary, &config.eal.file_prefix)
        .lcore(config.eal.main_lcore, &[config.eal.main_cpu])
        .argument(format!("--main-lcore={}", config.eal.main_lcore))
        .memory_mib(config.eal.memory_mib)
        .hugepage_dir(&config.paths.hugepages)
        .runtime_dir(&config.paths.runtime);
    for worker in &config.workers {
        options = options.lcore(worker.lcore, &[worker.cpu]);
    }
    for vdev in &config.eal.vdevs {
        options = options.vdev(vdev);
    }
    for pci in &config.eal.pci {
        options = options.allow_pci(pci);
    }
    options.start().context("starting DPDK")
}

/// Begins to answer Prometheus, if it is configured. The thread runs where the main thread does, never on a worker's CPU.
fn start_metrics(
    config: &Arc<Config>,
    counters: &'static CounterFile,
    control: Arc<Control>,
) -> anyhow::Result<Option<metrics::Server>> {
    let Some(address) = config.metrics.address else { return Ok(None) };
    let source =
        PrimaryMetrics::new(config.clone(), counters, control).context("mapping tables for the metrics")?;
    metrics::Server::start(address, source).map(Some).context("starting the metrics thread")
}

fn real_servers(service: &baton_common::config::Service) -> impl Iterator<Item = Address> {
    service.real_servers.iter().map(|server| server.endpoint.address)
}

fn port_status(config: &Config, wire: &Wire, mac: [u8; 6]) -> PortStatus {
    let [a, b, c, d, e, f] = mac;
    PortStatus {
        device: config.port.device.clone(),
        driver: wire.driver.clone(),
        mac: format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
        rx_queues: wire.plan.queue_pairs(),
        tx_queues: wire.plan.queue_pairs(),
    }
}
