//! A simulated node: what survives a crash of its secondary, what does not, and its worker.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::network::Network;
use super::random::Random;
use super::tables::ModelTables;
use super::worker::{Notice, Worker};
use crate::config::Timeouts;
use crate::counter::CounterBlock;
use crate::flow::{Address, Endpoint};
use crate::id::{NodeId, NumaId};
use crate::sync::protocol::mutation::Mutation;
use crate::sync::protocol::retransmit::ring_words;
use crate::sync::protocol::{Member, Place, Protocol, ProtocolConfig, Tables};
use crate::sync::roster::Identity;
use crate::sync::seal::Keyring;
use crate::sync::state::SyncState;
use crate::sync::transmit::Transmission;
use crate::time::Micros;

/// Timeouts short enough that sessions age within a run.
pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_handshake_ms: 2_000,
    tcp_established_ms: 20_000,
    tcp_closing_ms: 3_000,
    tcp_closed_ms: 1_000,
    udp_ms: 6_000,
    remote_margin_ms: 5_000,
};

/// Bytes of a datagram: small, so that ranges take several.
const DATAGRAM_BYTES: usize = 600;
const REMOTE_SLOTS: u32 = 256;
const LOCAL_SLOTS: u32 = 96;

/// What lies in shared memory: it survives the secondary.
pub struct Durable {
    pub state: Box<SyncState>,
    pub ring: Vec<AtomicU64>,
    pub counters: CounterBlock,
}

impl Durable {
    /// That of a node that has never run.
    pub fn new() -> Durable {
        Durable {
            state: Box::default(),
            ring: (0..ring_words(DATAGRAM_BYTES)).map(|_| AtomicU64::new(0)).collect(),
            counters: CounterBlock::new(),
        }
    }

    fn wipe(&self) {
        self.state.wipe();
        self.ring.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

/// The sync address of a node.
pub fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, node as u8 + 1))
}

/// A node.
pub struct Node<'a> {
    pub number: usize,
    pub durable: &'a Durable,
    pub tables: ModelTables,
    pub worker: Worker,
    pub protocol: Option<Protocol<'a>>,
    /// When the secondary starts again.
    pub restart_at: u64,
    /// Until when the whole node is down.
    pub down_until: u64,
    pub began: u64,
    /// What this machine's clock is ahead, microseconds.
    pub offset: u64,
    /// What its wall clock is wrong, microseconds.
    pub wall: i64,
    /// Ranges of the key space.
    pub ranges: u16,
    /// Its key file; `None` if security is off.
    pub keyring: Option<Arc<Keyring>>,
    pub mutation: Mutation,
    /// Events that the secondary has read and not committed are none: it commits what it reads.
    pub members: Vec<Member>,
    backlog: Vec<(usize, Vec<u8>)>,
    audit_from: u32,
}

impl<'a> Node<'a> {
    /// A node that has just booted.
    pub fn new(
        number: usize,
        durable: &'a Durable,
        members: Vec<Member>,
        mutation: Mutation,
        random: &mut Random,
    ) -> Node<'a> {
        let node = NodeId(number as u16 + 1);
        let worker = Worker {
            node,
            local: Endpoint { address: Address::v4([10, 4, 0, number as u8 + 1]), port: 0 },
            ports: 16,
            timeouts: TIMEOUTS,
            holdoff_ms: 200,
            members: Default::default(),
            ring: Default::default(),
            ring_slots: 8 + random.below(64) as usize,
            dirty: Default::default(),
            opens: false,
        };
        let mut node = Node {
            number,
            durable,
            tables: ModelTables::new(REMOTE_SLOTS, LOCAL_SLOTS),
            worker,
            protocol: None,
            restart_at: 0,
            down_until: 0,
            began: 0,
            offset: random.below(10_000_000_000),
            wall: 0,
            ranges: 32,
            keyring: None,
            mutation,
            members: Vec::new(),
            backlog: Vec::new(),
            audit_from: 0,
        };
        node.set_members(members, 0);
        node
    }

    /// The machine's clock.
    pub fn clock(&self, now: u64) -> Micros {
        Micros(1_000_000 + now + self.offset)
    }

    /// Changes what the node knows of the membership.
    pub fn set_members(&mut self, members: Vec<Member>, now: u64) {
        self.worker.members = members.iter().map(|member| member.node.0).collect();
        self.members = members;
        let clock = self.clock(now);
        if let Some(protocol) = &mut self.protocol {
            protocol.set_members(&self.members, clock.millis());
        }
    }

    /// Whether the node runs at all.
    pub fn is_up(&self, now: u64) -> bool {
        now >= self.down_until
    }

    /// The machine loses power: everything is gone.
    pub fn crash(&mut self, now: u64, until: u64) {
        self.protocol = None;
        self.durable.wipe();
        self.tables = ModelTables::new(REMOTE_SLOTS, LOCAL_SLOTS);
        self.worker.ring.clear();
        self.worker.dirty.clear();
        self.worker.opens = false;
        self.backlog.clear();
        // Its monotonic clock begins anew with the machine.
        self.offset = 0;
        self.down_until = until;
        self.restart_at = until;
        self.began = until;
        let _ = now;
    }

    /// Seals and opens with these keys from now on.
    pub fn use_keyring(&mut self, keyring: &Arc<Keyring>) {
        self.keyring = Some(keyring.clone());
        if let Some(protocol) = &mut self.protocol {
            protocol.use_keyring(keyring);
        }
    }

    /// The secondary is killed.
    pub fn kill(&mut self, until: u64) {
        self.protocol = None;
        self.restart_at = until;
    }

    /// Takes a datagram; one that finds no secondary waits in the queue.
    pub fn receive(&mut self, from: usize, datagram: Vec<u8>, now: u64) {
        if self.is_up(now) && self.backlog.len() < 64 {
            self.backlog.push((from, datagram));
        }
    }

    /// One turn of the secondary, and the worker's ageing.
    pub fn turn(&mut self, now: u64, network: &mut Network, random: &mut Random) {
        if !self.is_up(now) {
            return;
        }
        let clock = self.clock(now);
        let silent = self.mutation == Mutation::AgeingIsSilent;
        self.worker.age(clock.millis(), &mut self.tables, silent);
        if self.protocol.is_none() && now >= self.restart_at {
            self.start(now);
        }
        let Some(protocol) = &mut self.protocol else { return };
        protocol.prints = self.tables.trace.is_some();
        let from = self.number;
        let mut out = |peer: IpAddr, datagram: &[u8]| {
            let IpAddr::V4(peer) = peer else { return Transmission::NoNeighbour };
            let to = usize::from(peer.octets()[3]) - 1;
            if network.send(now, from, to, datagram, random) {
                Transmission::Sent
            } else {
                Transmission::QueueFull
            }
        };
        for (from, datagram) in self.backlog.drain(..) {
            let taken = protocol.on_datagram(address(from), &datagram, clock, &mut self.tables, &mut out);
            if taken.is_ok() && !self.members.iter().any(|member| usize::from(member.node.0) == from + 1) {
                self.tables.violation.get_or_insert(format!("node {} is no member and was heard", from + 1));
            }
        }
        for notice in self.worker.ring.drain(..) {
            match notice {
                Notice::Session(event, place) => {
                    protocol.on_event(&event, place, clock, &mut self.tables, &mut out);
                }
                Notice::Miss(direction, key) => {
                    protocol.on_miss(direction, &key, clock, &mut self.tables, &mut out);
                }
            }
        }
        while let Some(place) = self.worker.dirty.pop_first() {
            protocol.audit(Place(place), 1, clock, &mut self.tables, &mut out);
        }
        protocol.poll(clock, &mut self.tables, &mut out);
        self.worker.opens = self.durable.state.was_ready()
            || now.saturating_sub(self.began) > 1000 * u64::from(READY_TIMEOUT_MS);
    }

    fn start(&mut self, now: u64) {
        let clock = self.clock(now);
        if self.mutation == Mutation::NumbersBeginAnew {
            self.durable.wipe();
            self.durable.state.begin(1);
        }
        // The wall clock, in nanoseconds.
        let wall = (1_700_000_000_000_000 + now).saturating_add_signed(self.wall);
        self.durable.state.begin(wall * 1000);
        let config = ProtocolConfig {
            identity: Identity { cluster: 7, node: self.worker.node, numa: NumaId(0) },
            datagram_bytes_max: DATAGRAM_BYTES,
            flush_us: 200,
            timeouts: TIMEOUTS,
            ranges: self.ranges,
            tombstones: 1024,
            tombstone_ms: 3000,
            digest_ms: 500,
            ready_timeout_ms: READY_TIMEOUT_MS,
            ready_fraction: 1.0,
            config_digest: 1,
            keyring: self.keyring.clone(),
        };
        let Durable { state, ring, counters } = self.durable;
        let mut protocol = Protocol::new(config, &self.members, state, ring, counters, &self.tables, clock);
        protocol.mutation = self.mutation;
        self.audit_from = self.tables.remote_slots();
        self.protocol = Some(protocol);
    }
}

/// After which time a node opens sessions though it is not ready.
pub const READY_TIMEOUT_MS: u32 = 20_000;
