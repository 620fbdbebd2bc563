//! Whole packets through a worker's pipeline, on tables in a temporary directory.

mod claims;
mod forwarding;
mod gate;
mod misses;
mod telling;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, sync_channel};

use tempfile::TempDir;

use super::*;
use crate::counter::Counter;
use crate::flow::{Endpoint, FlowKey, HashKey, Protocol};
use crate::id::{Generation, QueueId, RecordIndex};
use crate::membership::LiveMembers;
use crate::neighbour::{Neighbours, NextHop, Prefix, Route, WeightedHop};
use crate::packet::TcpFlags;
use crate::packet::testing::Sample;
use crate::session::Direction;
use crate::session::table::{Lookup, SessionTable};
use crate::session::{Session, SessionState, tcp};
use crate::shm::header::FileKind;
use crate::shm::ring::{self, Consumer, Producer};
use crate::shm::shared::Mapped;
use crate::steering::SteeringBackend;
use crate::sync::event::{EVENT_BYTES, EventKind, Home, Notice};

const MAC: MacAddress = [2, 0, 0, 0, 0, 1];
const NEXT_HOP_MAC: MacAddress = [2, 0, 0, 0, 0, 0xfe];
const CLIENT: &str = "10.1.1.2:40000";
const VIP: &str = "10.9.0.1:80";
const SERVER: &str = "10.3.0.11:80";
const EVENT_SLOTS: u32 = 8;
const START: Millis = Millis(1_000_000);
const HOLDOFF_MS: u32 = 200;

const CONFIG: &str = r#"(
    node: (id: 1, name: "lb1"),
    eal: (file_prefix: "t", vdevs: ["net_tap0,iface=lb0"]),
    port: (device: "net_tap0"),
    workers: [
        (lcore: 1, cpu: 0, local_addresses: ["10.4.1.1", "fd00:4:1::1"]),
        (lcore: 2, cpu: 1, local_addresses: ["10.4.1.2", "fd00:4:1::2"]),
    ],
    services: [
        (name: "web", vip: "10.9.0.1:80", real_servers: [(endpoint: "10.3.0.11:80")]),
        (name: "web6", vip: "[fd00:9::1]:80", real_servers: [(endpoint: "[fd00:3::11]:80")]),
        (name: "dns", vip: "10.9.0.1:53", protocol: Udp, real_servers: [(endpoint: "10.3.0.11:53")]),
        (name: "third", vip: "10.9.0.1:54", protocol: Udp, sync_after: Packets(3),
            real_servers: [(endpoint: "10.3.0.11:54")]),
        (name: "aged", vip: "10.9.0.1:55", protocol: Udp, sync_after: AgeMs(500),
            real_servers: [(endpoint: "10.3.0.11:55")]),
        (name: "off", vip: "10.9.0.1:81", real_servers: [(endpoint: "10.3.0.11:81", weight: 0)]),
    ],
    sync: (
        enabled: true,
        domains: [(lcore: 32, cpu: 1, address: "10.2.0.101")],
        peers: [(node: 2, addresses: ["10.2.0.102"])],
    ),
)"#;

/// The first worker of a node, and the other ends of everything it holds.
struct Bench {
    pipeline: Pipeline,
    events: Consumer,
    wanted: Receiver<Address>,
    counters: &'static CounterBlock,
    config: Config,
    directory: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(64, Neighbours::new(&[default_route("0.0.0.0"), default_route("::")], gateways()))
    }

    /// A worker that shares sessions with nodes 1 and 2.
    fn sharing() -> Bench {
        let mut bench = Bench::new();
        bench.pipeline.parts.sharing = Some(Sharing {
            members: Arc::new(LiveMembers::new([NodeId(1), NodeId(2)])),
            claim_holdoff_ms: HOLDOFF_MS,
            gate: OpenGate::open(),
        });
        bench
    }

    fn with(local_sessions: u32, neighbours: Neighbours) -> Bench {
        let directory = TempDir::new().unwrap();
        let path = |kind: FileKind| kind.path(directory.path(), 0);
        SessionTable::create(&path(FileKind::LocalTable), FileKind::LocalTable, local_sessions).unwrap();
        SessionTable::create(&path(FileKind::RemoteTable), FileKind::RemoteTable, 64).unwrap();
        ring::create(&path(FileKind::EventRing), FileKind::EventRing, EVENT_SLOTS, EVENT_BYTES as u32)
            .unwrap();
        let config = Config::parse(CONFIG, "test").unwrap();
        let counters: &'static CounterBlock = Box::leak(Box::new(CounterBlock::new()));
        let (resolver, wanted) = sync_channel(4);
        let local = TableWriter::attach(&path(FileKind::LocalTable), FileKind::LocalTable).unwrap();
        let ring = Producer::attach(&path(FileKind::EventRing), FileKind::EventRing).unwrap();
        let parts = Parts {
            mac: MAC,
            mtu: 1500,
            steering: Arc::new(SteeringPlan::new(&config, SteeringBackend::TapBpf, HashKey([1, 2]))),
            services: Arc::new(Services::new(&config.services)),
            neighbours: NeighbourReader::new(neighbours.into_shared()),
            resolver: Resolver::from(resolver),
            reporter: Some(Reporter::new(ring, local.capacity())),
            local,
            remote: Some(
                TableReader::attach(&path(FileKind::RemoteTable), FileKind::RemoteTable, 0).unwrap(),
            ),
            sharing: None,
            tally: Arc::new(Tally::new(&config.services)),
            counters,
        };
        let pipeline = Pipeline::new(&config, WorkerId(0), parts);
        let events = Consumer::attach(&path(FileKind::EventRing), FileKind::EventRing).unwrap();
        Bench { pipeline, events, wanted, counters, config, directory }
    }

    /// Passes one packet through.
    fn pass(&mut self, now: Millis, sample: &Sample) -> (Verdict, Vec<u8>) {
        self.pass_frame(now, sample.frame())
    }

    fn pass_frame(&mut self, now: Millis, mut frame: Vec<u8>) -> (Verdict, Vec<u8>) {
        let mut verdicts = [Verdict::Drop(DropReason::Malformed)];
        self.pipeline.process(now, &mut [&mut frame], &mut verdicts);
        (verdicts[0], frame)
    }

    /// A packet that must be forwarded, and the endpoints it leaves with.
    fn forwarded(&mut self, now: Millis, sample: &Sample) -> FlowKey {
        let (verdict, frame) = self.pass(now, sample);
        assert_eq!(verdict, Verdict::Transmit);
        assert_eq!((&frame[..6], &frame[6..12]), (&NEXT_HOP_MAC[..], &MAC[..]));
        match parse(&frame) {
            Parsed::Transport(flow) => flow.key,
            other => panic!("{other:?}"),
        }
    }

    /// Opens a TCP connection all the way and returns its local endpoint.
    fn connect(&mut self, now: Millis) -> Endpoint {
        let local = self.forwarded(now, &from_client(TcpFlags::SYN)).source;
        self.forwarded(now, &from_server(local, TcpFlags::SYN | TcpFlags::ACK));
        self.forwarded(now, &from_client(TcpFlags::ACK));
        local
    }

    fn session(&self, key: &FlowKey) -> Option<Session> {
        match self.pipeline.parts.local.lookup(key) {
            Lookup::Hit { session, .. } => Some(session),
            Lookup::Miss | Lookup::Contended => None,
        }
    }

    /// The events told since the last call.
    fn events(&mut self) -> Vec<(EventKind, SessionState)> {
        let session = |notice| match notice {
            Notice::Session { event, .. } => (event.kind, event.session.state),
            Notice::Miss { .. } => panic!("{notice:?}"),
        };
        self.notices().into_iter().map(session).collect()
    }

    /// All that was told since the last call.
    fn notices(&mut self) -> Vec<Notice> {
        let mut bytes = [0; EVENT_BYTES];
        let mut notices = Vec::new();
        while self.events.pop(&mut bytes).is_some() {
            notices.push(Notice::decode(&bytes).unwrap());
        }
        notices
    }

    /// Ages until every slot was looked at.
    fn age(&mut self, now: Millis) {
        for _ in 0..4 {
            self.pipeline.age(now);
        }
    }

    fn remote_writer(&self) -> TableWriter {
        let path = FileKind::RemoteTable.path(self.directory.path(), 0);
        TableWriter::attach(&path, FileKind::RemoteTable).unwrap()
    }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn gateways() -> [(Address, MacAddress); 2] {
    ["10.2.0.1:0", "[fd00:2::1]:0"].map(|gateway| (endpoint(gateway).address, NEXT_HOP_MAC))
}

fn default_route(base: &str) -> Route {
    let address: Address = base.parse::<std::net::IpAddr>().unwrap().into();
    let gateway = if address.is_v4() { "10.2.0.1:0" } else { "[fd00:2::1]:0" };
    let hop = WeightedHop { hop: NextHop::Gateway(endpoint(gateway).address), weight: 1 };
    Route { prefix: Prefix { address, length: 0 }, metric: 0, hops: vec![hop] }
}

fn from_client(flags: TcpFlags) -> Sample {
    Sample { tcp_flags: flags, ..Sample::new(CLIENT, VIP, Protocol::Tcp) }
}

fn from_server(local: Endpoint, flags: TcpFlags) -> Sample {
    Sample { tcp_flags: flags, ..Sample::new(SERVER, &local.to_string(), Protocol::Tcp) }
}

/// A session that node 2 reported, through a local address of node 2.
fn remote_session() -> Session {
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(CLIENT),
        vip: endpoint(VIP),
        local: endpoint("10.4.2.1:5000"),
        server: endpoint(SERVER),
        owner: NodeId(2),
        generation: Generation(1),
        state: SessionState::TcpEstablished,
        last_seen: START,
        last_sent: Millis(0),
    }
}
