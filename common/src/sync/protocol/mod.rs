//! The protocol: one secondary's share of it, without input or output.
//!
//! Events of the workers, datagrams of the peers and the time go in; datagrams and table writes come out. Every call does a
//! bounded amount of work, and nothing grows: queues, stores and lists are of fixed size, and what they refuse is counted.
//!
//! - [`digest`], [`ledger`]: who is known to have what, and sums over it.
//! - [`tombstones`]: what has ended a short while ago.
//! - `courier`, [`retransmit`]: datagrams out, and again.
//! - `news`: what a peer says of a session, and when it is believed.
//! - `upserts`: many of them in a row, most of them new.
//! - `own`: what this node says of its own sessions; ageing.
//! - `resync`, `serving`, `returning`: ranges as a whole, asked for and given; `register`: where their sessions stand.
//! - `lives`: a node that has lost its state, and its clock was set back.
//! - `queries`: single sessions, asked for and given.
//! - [`comparison`]: whether a peer has the same, for an operator who asks.
//! - [`readiness`]: whether this node may draw traffic.
//!
//! `docs/session-rules.md` has the rules.

pub mod comparison;
mod courier;
pub mod digest;
mod housekeeping;
mod inbox;
pub mod ledger;
mod lives;
pub mod mutation;
#[cfg(test)]
mod net;
mod news;
mod own;
mod peer;
mod queries;
pub mod readiness;
mod register;
mod resync;
pub mod retransmit;
mod returning;
mod serving;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod tombstones;
mod upserts;

pub use comparison::{CompareError, Comparison, ComparisonState, Difference, DifferenceKind, Version};
pub use ledger::OwnerSlot;
pub use tables::{Held, KeyHash, Place, RemoteTableFull, Tables};

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use courier::Courier;
use digest::word_of;
use ledger::{Entry, Ledger, OWNERS_MAX};
use mutation::Mutation;
use peer::Peer;
use readiness::Readiness;
use retransmit::RetransmitRing;
use tombstones::Tombstones;

use super::roster::Identity;
use super::seal::{Keyring, Opener, Sealer};
use super::state::SyncState;
use super::transmit::Transmit;
use super::wire::{Reader, StreamId};
use crate::config::Timeouts;
use crate::counter::{Counter, CounterBlock};
use crate::id::{NodeId, NumaId};
use crate::session::{Session, tcp, told};
use crate::time::{Micros, Millis};

/// What this node held of the addressee's own sessions, for it to have them back.
pub(super) const HELD: StreamId = StreamId::ALL[2];

/// Questions, and what a secondary says of itself.
pub(super) const CONTROL: StreamId = StreamId::ALL[3];

/// A node that takes part, and the addresses that it is listened to from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub node: NodeId,
    /// Its sync addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a protocol is made of.
#[derive(Clone, Debug)]
pub struct ProtocolConfig {
    /// Who this is.
    pub identity: Identity,
    /// The largest datagram, bytes of UDP payload.
    pub datagram_bytes_max: usize,
    /// Longest time that a record waits for its datagram to fill, microseconds.
    pub flush_us: u32,
    /// This node's timeouts.
    pub timeouts: Timeouts,
    /// Ranges of the key space; the same on all members.
    pub ranges: u16,
    /// Tombstones that there is room for.
    pub tombstones: u32,
    /// How long the end of a session keeps late news of it out, milliseconds.
    pub tombstone_ms: u32,
    /// How often digests are told, milliseconds.
    pub digest_ms: u32,
    /// After which time a node that is not ready raises the alarm, milliseconds.
    pub ready_timeout_ms: u32,
    /// Of what the members announce, the share that is enough to be ready when an operator asks for it: 0 to 1.
    pub ready_fraction: f32,
    /// Digest of what must be configured the same on all members.
    pub config_digest: u64,
    /// What datagrams are sealed and opened with; `None` if security is off.
    pub keyring: Option<Arc<Keyring>>,
}

/// One call's surroundings: the tables, the way out, and the time.
pub(super) struct Turn<'t, T, X> {
    pub(super) tables: &'t mut T,
    pub(super) out: &'t mut X,
    pub(super) now: Micros,
}

impl<T, X> Turn<'_, T, X> {
    fn millis(&self) -> Millis {
        self.now.millis()
    }
}

/// What seals the datagrams of a life of this sender.
pub(super) fn sealer_of(config: &ProtocolConfig, boot_epoch: u64) -> Sealer {
    let keyring = config.keyring.as_ref();
    keyring.map_or_else(Sealer::off, |keyring| Sealer::new(keyring, config.identity, boot_epoch))
}

/// One secondary's share of the sync protocol.
pub struct Protocol<'a> {
    config: ProtocolConfig,
    node: NodeId,
    state: &'a SyncState,
    counters: &'a CounterBlock,
    courier: Courier<'a>,
    opener: Opener,
    /// The records of the datagram that was opened last.
    opened: Vec<u8>,
    /// Always there, but while a datagram is read.
    reader: Option<Reader>,
    members: Vec<Member>,
    peers: Vec<Peer<'a>>,
    ledger: Ledger,
    tombstones: Tombstones,
    resync: resync::Resync,
    returning: returning::Returning,
    serving: serving::Serving,
    queries: queries::Queries,
    comparing: comparison::Comparing,
    readiness: Readiness,
    housekeeping: housekeeping::Housekeeping,
    #[cfg(test)]
    pub(super) mutation: Mutation,
    /// Whether each record that comes is printed, and what became of it.
    #[cfg(test)]
    pub(super) prints: bool,
}

impl<'a> Protocol<'a> {
    /// A protocol that goes on where `state` says; [`SyncState::begin`] was called before. `ring` are the words of the
    /// retransmission ring. Reads all tables once.
    pub fn new(
        config: ProtocolConfig,
        members: &[Member],
        state: &'a SyncState,
        ring: &'a [AtomicU64],
        counters: &'a CounterBlock,
        tables: &impl Tables,
        now: Micros,
    ) -> Protocol<'a> {
        let ring = RetransmitRing::new(ring, config.datagram_bytes_max);
        let (identity, bytes_max) = (config.identity, config.datagram_bytes_max);
        let sealer = sealer_of(&config, state.boot_epoch());
        let courier = Courier::new(identity, bytes_max, config.flush_us, sealer, state, ring, counters);
        let opener = config.keyring.clone().map_or_else(Opener::off, Opener::new);
        let mut protocol = Protocol {
            node: config.identity.node,
            state,
            counters,
            courier,
            opener,
            opened: Vec::new(),
            reader: Some(Reader::new()),
            members: Vec::new(),
            peers: Vec::new(),
            ledger: Ledger::new(tables.places(), config.ranges),
            tombstones: Tombstones::new(config.tombstones),
            resync: resync::Resync::default(),
            returning: returning::Returning::default(),
            serving: serving::Serving::default(),
            queries: queries::Queries::default(),
            comparing: comparison::Comparing::default(),
            readiness: Readiness::new(now.millis(), config.ready_timeout_ms),
            housekeeping: housekeeping::Housekeeping::default(),
            config,
            #[cfg(test)]
            mutation: Mutation::None,
            #[cfg(test)]
            prints: false,
        };
        protocol.ledger.open(OwnerSlot::SELF);
        protocol.set_members(members, now.millis());
        protocol.rebuild(tables, now.millis());
        protocol
    }

    /// Changes who takes part. Members that are gone are not listened to any more; what they owned stays until it ages or is
    /// claimed. If this node is none of them it falls silent.
    pub fn set_members(&mut self, members: &[Member], now: Millis) {
        self.courier.silent = !members.iter().any(|member| member.node == self.node);
        self.members.clear();
        self.members.extend(members.iter().filter(|member| member.node != self.node).cloned());
        self.courier.everyone.clear();
        self.courier.everyone.extend(self.members.iter().flat_map(|member| member.addresses.iter().copied()));
        for at in 0..self.members.len() {
            let node = self.members[at].node;
            let Some(&address) = self.members[at].addresses.first() else { continue };
            match self.peer_of(node) {
                None => drop(self.open_peer(node, NumaId(0), address, now)),
                Some(peer) if self.peers[peer].address.is_unspecified() => self.peers[peer].address = address,
                Some(_) => {}
            }
        }
    }

    /// Seals and opens with other keys from now on, if security is on.
    pub fn use_keyring(&mut self, keyring: &Arc<Keyring>) {
        if self.config.keyring.is_some() {
            self.config.keyring = Some(keyring.clone());
        }
        self.courier.sealer.use_keyring(keyring);
        self.opener.use_keyring(keyring.clone());
    }

    /// Whether this node is a member itself. If not, it sends nothing.
    pub fn is_member_itself(&self) -> bool {
        !self.courier.silent
    }

    /// Enters every session that the tables hold. Those of a node that takes no part too: it may come back, and what
    /// ended meanwhile is found only by comparing all that is held of it.
    fn rebuild(&mut self, tables: &impl Tables, now: Millis) {
        for place in (0..tables.places()).map(Place) {
            let Some(session) = tables.session(place) else { continue };
            let owner = if session.owner == self.node {
                (tables.is_reported(place) && self.is_reported(&session)).then_some(OwnerSlot::SELF)
            } else if session.owner == NodeId(0) {
                None
            } else {
                let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let peer = self.peer_of(session.owner);
                let peer = peer.or_else(|| self.open_peer(session.owner, NumaId(0), nowhere, now));
                peer.map(|peer| self.peers[peer].slot)
            };
            if let Some(owner) = owner {
                let stamp = self.resync.clock();
                self.ledger.set(place, Entry { word: word_of(&session), owner, stamp });
            }
        }
    }

    /// Whether the peers are to know of a session of this node's own.
    fn is_reported(&self, session: &Session) -> bool {
        session.owner == self.node && told::is_told(session.last_sent) && !tcp::is_closed(session.state)
    }

    /// Whether a node takes part, this one aside.
    fn is_member(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.node == node)
    }

    fn peer_of(&self, node: NodeId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.node == node)
    }

    /// The peer that this sender is; known from now on, if there is room.
    fn open_peer(&mut self, node: NodeId, numa: NumaId, address: IpAddr, now: Millis) -> Option<usize> {
        if let Some(at) = self.peers.iter().position(|peer| (peer.node, peer.numa) == (node, numa)) {
            return Some(at);
        }
        let slot = self.peers.len() + 1;
        if slot >= OWNERS_MAX {
            return None;
        }
        let state = self.state.peer(node, numa, now).ok()?;
        // The first is made for a node that was never heard; its NUMA node is a guess until then.
        let slot = OwnerSlot(slot as u8);
        self.ledger.open(slot);
        self.peers.push(Peer::new(node, numa, slot, address, self.config.ranges, state));
        Some(self.peers.len() - 1)
    }

    /// Works on what is due: a bounded share of it.
    pub fn poll<T: Tables, X: Transmit>(&mut self, now: Micros, tables: &mut T, out: &mut X) {
        let mut turn = Turn { tables, out, now };
        self.keep_house(&mut turn);
        self.ask_for_gaps(&mut turn);
        self.poll_resync(&mut turn);
        self.poll_returning(&mut turn);
        self.poll_serving(&mut turn);
        self.poll_comparison(&mut turn);
        self.poll_readiness(turn.millis());
        self.courier.flush_due(now, turn.out);
    }

    /// Sends everything that waits.
    pub fn flush(&mut self, out: &mut impl Transmit) {
        self.courier.post(out);
        self.courier.flush_changes(out);
    }

    /// Whether there is work that waits for the next [`Protocol::poll`] only, so that this is no time to rest.
    pub fn is_busy(&self) -> bool {
        self.is_serving() || self.is_purging()
    }

    /// When there is something to send, at the latest.
    pub fn next_flush(&self) -> Option<Micros> {
        self.courier.next_flush()
    }

    /// Whether a transmit queue was full since the last call: events may wait a while.
    pub fn take_congested(&mut self) -> bool {
        self.courier.take_full()
    }

    /// Whether a planted bug is in force. Never outside tests.
    #[inline]
    fn breaks(&self, mutation: Mutation) -> bool {
        #[cfg(test)]
        return self.mutation == mutation;
        #[cfg(not(test))]
        {
            let _ = mutation;
            false
        }
    }

    fn count(&self, counter: Counter) {
        self.counters.add(counter, 1);
    }
}
