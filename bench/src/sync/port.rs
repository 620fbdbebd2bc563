//! Two nodes with a port between them: a process each, on a core each, over DPDK's memif.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use baton_common::flow::Endpoint;
use baton_common::packet::datagram::{UdpPath, open_udp_frame, payload_offset};
use baton_common::session::Session;
use baton_common::sync::event::{Event, EventKind};
use baton_common::sync::protocol::readiness::ReadyState;
use baton_common::sync::protocol::{Place, Tables};
use baton_common::sync::transmit::{Transmission, Transmit};
use baton_common::time::Millis;
use dpdk::{Burst, Device, Eal, EalOptions, Mempool, PoolConfig, PoolOps, Port, PortConfig, ProcessType};
use dpdk::{RxQueue, RxQueueConfig, TxQueue};
use serde::{Deserialize, Serialize};

use super::node::{self, Clock, DATAGRAM_BYTES, Durable, Holdings, SINK, SOURCE};
use crate::host::child::die_with_parent;
use crate::host::cpus;
use crate::table::Family;

/// The command of the sending process.
pub const SOURCE_COMMAND: &str = "sync-source";

const BURST: usize = 32;

/// Descriptors of a queue, as a power of two, and as many.
const RING_BITS: u32 = 12;
const RING: u16 = 1 << RING_BITS;

/// Longest time of a part of a trial.
const LIMIT: Duration = Duration::from_secs(60);

/// Events that the source takes in a turn, as a secondary does.
const EVENTS_PER_TURN: usize = 256;

/// What goes over the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// Full datagrams that nobody looks at: what the port can do.
    Bare,
    /// A node that has everything and one that has nothing.
    FullSync,
    /// Sessions that open one after the other.
    Events,
}

/// A trial over the port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What goes over the port.
    pub traffic: Traffic,
    /// The address family of the sessions.
    pub family: Family,
    /// How many sessions.
    pub sessions: u32,
    /// The key file that datagrams are sealed by, if they are.
    pub key: Option<String>,
    /// Where hugepage files may be made.
    pub hugepages: PathBuf,
    /// Where the port's socket is.
    pub directory: PathBuf,
    /// The source's CPU, and the sink's.
    pub cpus: [usize; 2],
}

/// What a trial over the port found.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct OverPort {
    /// Sessions that came.
    pub sessions: u32,
    /// Datagrams that came.
    pub datagrams: u64,
    /// Bytes of UDP payload that came.
    pub bytes: u64,
    /// From the beginning until the sink had everything.
    pub seconds: f64,
    /// From the first session that came until the last.
    pub flow_seconds: f64,
    /// Of all the time, the sink's in datagrams.
    pub busy_seconds: f64,
}

/// One end of the port.
struct End {
    rx: RxQueue,
    out: Out,
    port: Port,
    _eal: Eal,
}

/// The transmitting half.
struct Out {
    tx: TxQueue,
    pool: Mempool,
    burst: Burst<BURST>,
    path: UdpPath,
}

impl Out {
    fn flush(&mut self) -> bool {
        while !self.burst.is_empty() {
            if self.tx.burst(&mut self.burst) == 0 {
                return false;
            }
        }
        true
    }
}

impl Transmit for Out {
    fn transmit(&mut self, _: IpAddr, payload: &[u8]) -> Transmission {
        const ROOM: [u8; 2048] = [0; 2048];
        if self.burst.is_full() && !self.flush() {
            return Transmission::QueueFull;
        }
        let bytes = payload_offset(self.path.family()) + payload.len();
        let Some(mut packet) = self.pool.alloc() else { return Transmission::QueueFull };
        let fits = packet.append(&ROOM[..bytes.min(ROOM.len())]).is_ok();
        if !fits || self.path.write(packet.data_mut(), payload).is_err() {
            return Transmission::QueueFull;
        }
        match self.burst.push(packet) {
            Ok(()) => Transmission::Sent,
            Err(_) => Transmission::QueueFull,
        }
    }
}

impl End {
    fn open(job: &Job, is_sink: bool) -> Result<End> {
        let role = if is_sink { "server" } else { "client" };
        let cpu = job.cpus[usize::from(is_sink)];
        let socket = job.directory.join("memif");
        let eal = EalOptions::new(ProcessType::Primary, format!("baton-bench-{role}-{}", std::process::id()))
            .lcore(0, &[cpu as u16])
            .memory_mib(128)
            .vdev(format!(
                "net_memif0,role={role},id=0,rsize={RING_BITS},bsize=2048,socket-abstract=no,socket={}",
                socket.display()
            ))
            .argument("--in-memory")
            .argument("--single-file-segments")
            .argument("--log-level=error")
            .start()
            .context("cannot start DPDK")?;
        let pool = Mempool::create(
            &eal,
            "packets",
            &PoolConfig {
                count: 16_383,
                cache: 256,
                data_bytes: 2048,
                socket: -1,
                ops: PoolOps::MultiThread,
            },
        )?;
        let config = PortConfig {
            rx_queues: vec![RxQueueConfig { pool: pool.clone() }],
            tx_queues: 1,
            rx_descriptors: RING,
            tx_descriptors: RING,
            mtu: 1500,
            promiscuous: false,
            spread: false,
        };
        let port = Device::find(&eal, "net_memif0")?.start(&config).context("cannot start the memif port")?;
        let (rx, tx) = (port.take_rx_queue(0)?, port.take_tx_queue(0)?);
        let ends = [SOURCE, SINK].map(|node| Endpoint { address: node::address(node).into(), port: 4790 });
        let (source, destination) = if is_sink { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
        let path =
            UdpPath { source_mac: [2, 0, 0, 0, 0, 1], next_hop_mac: [2, 0, 0, 0, 0, 2], source, destination };
        Ok(End { rx, out: Out { tx, pool, burst: Burst::new(), path }, port, _eal: eal })
    }

    fn wait_for_peer(&self) -> Result<()> {
        let start = Instant::now();
        while !self.port.link()?.up {
            ensure!(start.elapsed() < LIMIT, "the other end of the port did not come");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The source, in a process of its own: it goes on until it is killed.
///
/// # Errors
/// Memory is missing, or the port does not start.
pub fn source(job: &Job) -> Result<()> {
    die_with_parent()?;
    let clock = Clock::start();
    let holdings = Holdings {
        owner: SOURCE,
        first: 0,
        sessions: if job.traffic == Traffic::Bare { 1024 } else { job.sessions },
        told: job.traffic != Traffic::Events,
        remote_slots: 1024,
    };
    let directory = job.hugepages.join("source");
    std::fs::create_dir_all(&directory)?;
    let mut tables = node::tables(&directory, job.family, holdings, clock.now().millis())?;
    let durable = Durable::new();
    let keyring = job.key.as_deref().map(node::keyring).transpose()?;
    let mut protocol = node::protocol(SOURCE, &durable, &tables, keyring, clock.now());
    let mut end = End::open(job, false)?;
    cpus::pin(job.cpus[0])?;
    end.wait_for_peer()?;
    let payload = [0x5a; DATAGRAM_BYTES];
    let mut next = tables.remote_slots();
    let mut told = 0;
    let mut sink_is_there = false;
    loop {
        let now = clock.now();
        if job.traffic == Traffic::Bare {
            for _ in 0..BURST {
                end.out.transmit(node::address(SINK), &payload);
            }
            end.out.flush();
            continue;
        }
        let mut burst = Burst::<BURST>::new();
        end.rx.burst(&mut burst);
        for packet in burst.iter() {
            if let Ok(datagram) = open_udp_frame(packet.data()) {
                sink_is_there = true;
                let _ = protocol.on_datagram(
                    node::address(SINK),
                    datagram.payload,
                    now,
                    &mut tables,
                    &mut end.out,
                );
            }
        }
        burst.clear();
        // The sink asks for what it lost first; then sessions open.
        let is_ready = protocol.readiness().state() == ReadyState::Ready;
        if job.traffic == Traffic::Events && sink_is_there && is_ready && !protocol.take_congested() {
            let mut left = EVENTS_PER_TURN;
            while left > 0 && told < job.sessions && next < tables.places() {
                let place = Place(next);
                next += 1;
                let Some(session) = tables.session(place) else { continue };
                tables.set_last_sent(place, now.millis());
                let event = Event {
                    kind: EventKind::Upsert,
                    session: Session { last_sent: Millis(now.millis().0), ..session },
                };
                protocol.on_event(&event, place, now, &mut tables, &mut end.out);
                (left, told) = (left - 1, told + 1);
            }
        }
        protocol.poll(now, &mut tables, &mut end.out);
        end.out.flush();
        tables.quiesce();
    }
}

/// A source that is killed when this is dropped.
struct Sender(Child);

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sink, which starts the source: what it finds.
///
/// # Errors
/// Memory is missing, the port does not start, or what was sent does not come.
pub fn trial(job: &Job) -> Result<OverPort> {
    die_with_parent()?;
    let clock = Clock::start();
    let mut end = End::open(job, true)?;
    let mut sender = Sender(
        Command::new(std::env::current_exe()?)
            .args([SOURCE_COMMAND, &serde_json::to_string(job)?])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start the source")?,
    );
    let bare = job.traffic == Traffic::Bare;
    let directory = job.hugepages.join("sink");
    std::fs::create_dir_all(&directory)?;
    let sessions = if bare { 1024 } else { job.sessions };
    let holdings = Holdings {
        owner: SINK,
        first: crate::table::SESSIONS_MAX,
        sessions: node::own_sessions(sessions),
        told: false,
        remote_slots: node::with_room(sessions),
    };
    let mut tables = node::tables(&directory, job.family, holdings, clock.now().millis())?;
    let durable = Durable::new();
    let keyring = job.key.as_deref().map(node::keyring).transpose()?;
    let mut protocol = node::protocol(SINK, &durable, &tables, keyring, clock.now());
    cpus::pin(job.cpus[1])?;
    end.wait_for_peer()?;
    if bare {
        return bare_rate(&mut end);
    }
    let mut found = OverPort::default();
    let start = Instant::now();
    let mut first = None;
    loop {
        let now = clock.now();
        let mut burst = Burst::<BURST>::new();
        if end.rx.burst(&mut burst) > 0 {
            let began = Instant::now();
            for packet in burst.iter() {
                if let Ok(datagram) = open_udp_frame(packet.data()) {
                    found.datagrams += 1;
                    found.bytes += datagram.payload.len() as u64;
                    let _ = protocol.on_datagram(
                        node::address(SOURCE),
                        datagram.payload,
                        now,
                        &mut tables,
                        &mut end.out,
                    );
                }
            }
            burst.clear();
            found.busy_seconds += began.elapsed().as_secs_f64();
        }
        protocol.poll(now, &mut tables, &mut end.out);
        end.out.flush();
        tables.quiesce();
        let held = tables.remote().len();
        if held > 0 && first.is_none() {
            first = Some(Instant::now());
        }
        if held == job.sessions && found.flow_seconds == 0.0 {
            found.flow_seconds = first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        }
        let is_done = match job.traffic {
            Traffic::Events => held == job.sessions,
            _ => protocol.readiness().state() == ReadyState::Ready,
        };
        if is_done {
            found.sessions = held;
            found.seconds = start.elapsed().as_secs_f64();
            ensure!(held == job.sessions, "{held} sessions of {} came", job.sessions);
            return Ok(found);
        }
        if start.elapsed() > LIMIT {
            bail!("{held} sessions of {} within {LIMIT:?}", job.sessions);
        }
        if let Some(status) = sender.0.try_wait()? {
            bail!("the source ended: {status}");
        }
    }
}

/// Counts datagrams for half a second.
fn bare_rate(end: &mut End) -> Result<OverPort> {
    let mut found = OverPort::default();
    let mut start = Instant::now();
    let mut warm = false;
    loop {
        let mut burst = Burst::<BURST>::new();
        found.datagrams += end.rx.burst(&mut burst) as u64;
        burst.clear();
        let elapsed = start.elapsed();
        if elapsed > Duration::from_millis(500) {
            if warm && found.datagrams > 0 {
                found.seconds = elapsed.as_secs_f64();
                found.bytes = found.datagrams * DATAGRAM_BYTES as u64;
                return Ok(found);
            }
            ensure!(elapsed < LIMIT, "nothing came over the port");
            if found.datagrams > 0 {
                (found, start, warm) = (OverPort::default(), Instant::now(), true);
            }
        }
    }
}

/// Where a trial's socket may be: the mount's own directory cannot hold one.
///
/// # Errors
/// No directory can be made.
pub fn socket_directory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("baton-bench-").tempdir().context("cannot make a directory for a socket")
}

/// Deletes what a trial left in the mount.
///
/// # Errors
/// A file cannot be deleted.
pub fn clear(hugepages: &Path) -> Result<()> {
    for name in ["source", "sink"] {
        match std::fs::remove_dir_all(hugepages.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}
