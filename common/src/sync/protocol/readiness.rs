//! Readiness: whether this node holds what the others have, and so may draw traffic.

use super::mutation::Mutation;
use super::{OwnerSlot, Protocol};
use crate::sync::wire::NodeState;
use crate::time::Millis;

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyState {
    /// It has not heard every member yet.
    Joining,
    /// It has not yet held what every member has.
    Syncing,
    /// It has, once.
    Ready,
    /// An operator wants it to leave.
    Draining,
}

impl ReadyState {
    /// Its name, for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            ReadyState::Joining => "joining",
            ReadyState::Syncing => "syncing",
            ReadyState::Ready => "ready",
            ReadyState::Draining => "draining",
        }
    }

    /// As peers are told it.
    pub fn on_the_wire(self) -> NodeState {
        match self {
            ReadyState::Joining => NodeState::Joining,
            ReadyState::Syncing => NodeState::Syncing,
            ReadyState::Ready => NodeState::Ready,
            ReadyState::Draining => NodeState::Draining,
        }
    }
}

/// How far this process is with what the members have, and how long it took. A process that has been started again begins
/// anew; the node stays ready all the same, see [`Protocol::ready_state`].
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    state: ReadyState,
    began: Millis,
    timeout_ms: u32,
    late: bool,
    fraction_is_enough: bool,
}

impl Readiness {
    /// That of a node which has just begun.
    pub fn new(now: Millis, timeout_ms: u32) -> Readiness {
        Readiness {
            state: ReadyState::Joining,
            began: now,
            timeout_ms,
            late: false,
            fraction_is_enough: false,
        }
    }

    /// How far the process is; never `Draining`.
    pub fn state(&self) -> ReadyState {
        self.state
    }
}

/// How a peer is, for people.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PeerView {
    /// The node.
    pub node: u16,
    /// Its NUMA node.
    pub numa: u8,
    /// Milliseconds since it was last heard; `None` if it never was.
    pub silent_ms: Option<u64>,
    /// Sessions that it says it owns.
    pub announced: Option<u32>,
    /// Sessions of its that are held here.
    pub held: u32,
    /// Whether both were the same when they were last compared.
    pub equal: bool,
    /// Ranges that differed then.
    pub differing: u32,
    /// Whether it runs with another configuration where it must be the same.
    pub config_differs: bool,
}

impl Protocol<'_> {
    /// How far this process is.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// How far the node is: whether it may draw traffic. Once ready it stays so for as long as its tables last, whatever
    /// becomes of its secondary.
    pub fn ready_state(&self) -> ReadyState {
        match self.readiness.state {
            _ if self.state.is_draining() => ReadyState::Draining,
            _ if self.state.was_ready() => ReadyState::Ready,
            state => state,
        }
    }

    /// Whether the node should long be ready and is not: a person should look.
    pub fn alarm(&self) -> bool {
        self.readiness.late && !matches!(self.ready_state(), ReadyState::Ready | ReadyState::Draining)
    }

    /// An operator does not want to wait for the last session: the configured fraction of what the members announce is
    /// enough, and a member that is not heard is not waited for.
    pub fn accept_fraction(&mut self) {
        self.readiness.fraction_is_enough = true;
    }

    /// Whether an operator wants the node to draw no traffic. It is remembered for as long as the tables last.
    pub fn set_draining(&mut self, draining: bool) {
        self.state.set_draining(draining);
    }

    /// How each peer is.
    pub fn peers(&self, now: Millis) -> impl Iterator<Item = PeerView> + use<'_> {
        self.peers.iter().map(move |peer| PeerView {
            node: peer.node.0,
            numa: peer.numa.0,
            silent_ms: peer.heard.map(|heard| now.since(heard)),
            announced: peer.announced.map(|digest| digest.sessions),
            held: self.ledger.total(peer.slot).sessions,
            equal: peer.equal,
            differing: peer.suspect.len().max(peer.wanted.len()),
            config_differs: peer.hello.is_some_and(|hello| hello.config_digest != self.config.config_digest),
        })
    }

    /// Sessions that the peers know to be this node's own.
    pub fn sessions_owned(&self) -> u32 {
        self.ledger.total(OwnerSlot::SELF).sessions
    }

    pub(super) fn poll_readiness(&mut self, now: Millis) {
        if self.readiness.state == ReadyState::Ready {
            return;
        }
        let members = || self.peers.iter().filter(|peer| self.is_member(peer.node));
        let waits = |peer: &&super::Peer<'_>| peer.heard.is_some() || !self.readiness.fraction_is_enough;
        let heard_all = members().filter(waits).all(|peer| peer.heard.is_some());
        let enough = |announced: u32, held: u32| {
            self.readiness.fraction_is_enough
                && f64::from(held) >= f64::from(announced) * f64::from(self.config.ready_fraction)
        };
        let all_equal = members().filter(waits).all(|peer| {
            let held = self.ledger.total(peer.slot).sessions;
            peer.state.gave_back()
                && (peer.was_equal || peer.announced.is_some_and(|all| enough(all.sessions, held)))
        });
        self.readiness.state = match (heard_all, all_equal) {
            (true, true) => ReadyState::Ready,
            (true, false) if self.breaks(Mutation::ReadyAtOnce) => ReadyState::Ready,
            (true, false) => ReadyState::Syncing,
            (false, _) => ReadyState::Joining,
        };
        let ready = self.readiness.state == ReadyState::Ready;
        if ready {
            self.state.set_was_ready();
        }
        self.readiness.late =
            !ready && now.since(self.readiness.began) >= u64::from(self.readiness.timeout_ms);
    }
}
