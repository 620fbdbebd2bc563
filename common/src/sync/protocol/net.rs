//! Protocols joined by a network that may be bad: for tests of what takes several of them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::digest::word_of;
use super::ledger::Entry;
use super::readiness::ReadyState;
use super::retransmit::ring_words;
use super::{Held, Member, OwnerSlot, Place, Protocol, ProtocolConfig, Tables};
use crate::counter::CounterBlock;
use crate::flow::{Address, Endpoint};
use crate::id::{Generation, NodeId, NumaId};
use crate::session::{Session, SessionState};
use crate::sync::Reject;
use crate::sync::event::{Event, EventKind};
use crate::sync::fixture::{TIMEOUTS, session_v4};
use crate::sync::roster::Identity;
use crate::sync::seal::Keyring;
use crate::sync::sim::network::Network;
use crate::sync::sim::random::Random;
use crate::sync::sim::tables::ModelTables;
use crate::sync::state::SyncState;
use crate::sync::transmit::Transmission;
use crate::time::Micros;

const DATAGRAM_BYTES: usize = 1432;
const SLOTS: u32 = 20_000;

/// What a secondary leaves in shared memory.
pub(super) struct Durable {
    pub(super) state: Box<SyncState>,
    pub(super) ring: Vec<AtomicU64>,
    pub(super) counters: CounterBlock,
}

pub(super) struct Host<'a> {
    pub(super) protocol: Protocol<'a>,
    pub(super) tables: ModelTables,
}

pub(super) type Out<'a> = &'a mut dyn FnMut(IpAddr, &[u8]) -> Transmission;

/// Nodes 1, 2 and so on.
pub(super) struct Net<'a> {
    pub(super) hosts: Vec<Host<'a>>,
    pub(super) network: Network,
    pub(super) random: Random,
    durables: &'a [Durable],
    pub(super) now: u64,
    pub(super) opened: u32,
    /// Datagrams that were not taken, aside from those that came twice.
    pub(super) refusals: Vec<Reject>,
}

pub(super) fn durables(count: usize) -> Vec<Durable> {
    let durable = |_| {
        let ring = (0..ring_words(DATAGRAM_BYTES)).map(|_| AtomicU64::new(0)).collect();
        Durable { state: Box::default(), ring, counters: CounterBlock::new() }
    };
    (0..count).map(durable).collect()
}

pub(super) fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 2, 0, node as u8 + 1))
}

impl<'a> Host<'a> {
    /// A node that has just booted, with empty tables.
    fn boot(
        number: usize,
        durables: &'a [Durable],
        ranges: u16,
        keyring: Option<Arc<Keyring>>,
        now: Micros,
    ) -> Host<'a> {
        let members: Vec<Member> = (0..durables.len())
            .map(|number| Member { node: NodeId(number as u16 + 1), addresses: vec![address(number)] })
            .collect();
        let config = ProtocolConfig {
            identity: Identity { cluster: 7, node: NodeId(number as u16 + 1), numa: NumaId(0) },
            datagram_bytes_max: DATAGRAM_BYTES,
            flush_us: 500,
            timeouts: TIMEOUTS,
            ranges,
            tombstones: 4096,
            tombstone_ms: 3000,
            digest_ms: 1000,
            ready_timeout_ms: 20_000,
            ready_fraction: 1.0,
            config_digest: 1,
            keyring,
        };
        let tables = ModelTables::new(SLOTS, SLOTS);
        let Durable { state, ring, counters } = &durables[number];
        state.begin(now.0 + 1);
        let protocol = Protocol::new(config, &members, state, ring, counters, &tables, now);
        Host { protocol, tables }
    }
}

impl<'a> Net<'a> {
    /// Nodes that have heard each other and are ready.
    pub(super) fn new(durables: &'a [Durable], ranges: u16, keyring: Option<&Arc<Keyring>>) -> Net<'a> {
        let now = 1_000_000_000;
        let boot = |number| Host::boot(number, durables, ranges, keyring.cloned(), Micros(now));
        let mut net = Net {
            network: Network::new(durables.len()),
            hosts: (0..durables.len()).map(boot).collect(),
            random: Random::new(1),
            durables,
            now,
            opened: 0,
            refusals: Vec::new(),
        };
        net.run(3000);
        for host in &net.hosts {
            assert_eq!(host.protocol.readiness().state(), ReadyState::Ready);
        }
        net
    }

    /// A node loses power, and everything with it, and boots.
    pub(super) fn reboot(&mut self, number: usize) {
        let config = &self.hosts[number].protocol.config;
        let (ranges, keyring) = (config.ranges, config.keyring.clone());
        self.durables[number].state.wipe();
        self.hosts[number] = Host::boot(number, self.durables, ranges, keyring, Micros(self.now));
    }

    pub(super) fn clock(&self) -> Micros {
        Micros(self.now)
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, milliseconds: u32) {
        for _ in 0..milliseconds {
            self.now += 1000;
            while let Some((from, to, datagram)) = self.network.arrived(self.now) {
                let taken = self.act(to, |protocol, tables, now, out| {
                    protocol.on_datagram(address(from), &datagram, now, tables, out)
                });
                self.refusals.extend(taken.err().filter(|reject| *reject != Reject::Duplicate));
            }
            for host in 0..self.hosts.len() {
                self.act(host, |protocol, tables, now, out| protocol.poll(now, tables, out));
            }
        }
    }

    pub(super) fn act<R>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Protocol<'_>, &mut ModelTables, Micros, &mut Out<'_>) -> R,
    ) -> R {
        let (now, network, random) = (self.now, &mut self.network, &mut self.random);
        let mut out = |peer: IpAddr, datagram: &[u8]| {
            let IpAddr::V4(peer) = peer else { return Transmission::NoNeighbour };
            network.send(now, host, usize::from(peer.octets()[3]) - 1, datagram, random);
            Transmission::Sent
        };
        let Host { protocol, tables } = &mut self.hosts[host];
        act(protocol, tables, Micros(now), &mut (&mut out as Out<'_>))
    }

    /// A session that a worker of this node has opened, and told of.
    pub(super) fn open(&mut self, host: usize) -> Session {
        self.opened += 1;
        let number = self.opened;
        let octets = number.to_be_bytes();
        let endpoint = |net, port| Endpoint { address: Address::v4([10, net, octets[2], octets[3]]), port };
        let now = self.clock().millis();
        let session = Session {
            client: endpoint(1, 40_000 + octets[1] as u16),
            local: Endpoint { address: Address::v4([10, 4, host as u8, octets[1]]), port: number as u16 | 1 },
            server: endpoint(3, 8443),
            owner: NodeId(host as u16 + 1),
            last_seen: now,
            last_sent: now,
            ..session_v4(1)
        };
        let place = self.hosts[host].tables.insert_local(&session).expect("room");
        self.tell(host, EventKind::Upsert, place, session);
        session
    }

    pub(super) fn close(&mut self, host: usize, session: &Session) {
        let held = self.held(host, session).expect("it is there");
        self.hosts[host].tables.take_out(held.place);
        self.tell(
            host,
            EventKind::Delete,
            held.place,
            Session { state: SessionState::TcpReset, ..held.session },
        );
    }

    pub(super) fn tell(&mut self, host: usize, kind: EventKind, place: Place, session: Session) {
        self.act(host, |protocol, tables, now, out| {
            protocol.on_event(&Event { kind, session }, place, now, tables, out);
        });
    }

    pub(super) fn held(&self, host: usize, session: &Session) -> Option<Held> {
        self.hosts[host].tables.find(&session.client_key())
    }

    /// A worker of this node claims another node's session, and tells of it.
    pub(super) fn claim(&mut self, host: usize, session: &Session) {
        let Held { place, session, .. } = self.held(host, session).expect("it is there");
        let owner = NodeId(host as u16 + 1);
        let generation = Generation(session.generation.0 + 1);
        let now = self.clock().millis();
        self.hosts[host].tables.set_owner(place, owner, generation);
        self.hosts[host].tables.set_last_sent(place, now);
        self.tell(host, EventKind::Claim, place, Session { owner, generation, last_sent: now, ..session });
    }

    /// The node loses a session and knows nothing of it.
    pub(super) fn lose(&mut self, host: usize, session: &Session) {
        let held = self.held(host, session).expect("it is there");
        self.hosts[host].tables.take_out(held.place);
        self.hosts[host].protocol.ledger.clear(held.place);
    }

    /// The node has another version of a session than it should.
    pub(super) fn change(&mut self, host: usize, session: &Session, owner: NodeId, generation: u32) {
        let Held { place, session, .. } = self.held(host, session).expect("it is there");
        let Host { protocol, tables } = &mut self.hosts[host];
        tables.set_owner(place, owner, Generation(generation));
        let session = Session { generation: Generation(generation), ..session };
        let slot =
            protocol.peers.iter().find(|peer| peer.node == owner).map_or(OwnerSlot::SELF, |peer| peer.slot);
        protocol.ledger.set(place, Entry { word: word_of(&session), owner: slot, stamp: 0 });
    }

    /// Traffic on the first two nodes for so many milliseconds: each opens and closes one session in each of them.
    pub(super) fn load(&mut self, milliseconds: u32, open: &mut Vec<(usize, Session)>) {
        for _ in 0..milliseconds {
            for host in 0..2 {
                open.push((host, self.open(host)));
            }
            while open.len() > 600 {
                let oldest = self.random.below(300) as usize;
                let (host, session) = open.swap_remove(oldest);
                self.close(host, &session);
            }
            self.run(1);
        }
    }

    /// All sessions of all nodes.
    pub(super) fn everything(&self) -> Vec<Vec<(Place, Session)>> {
        self.hosts.iter().map(|host| host.tables.iter().collect()).collect()
    }
}
