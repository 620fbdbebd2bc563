//! Readiness: whether this node holds what the others have, and so may draw traffic.

use super::mutation::Mutation;
use super::{OwnerSlot, Protocol};
use crate::sync::wire::{NodeState, StreamId};
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
    /// How far it says it is; `None` if it has said nothing in its present life.
    pub state: Option<NodeState>,
    /// Milliseconds since it was last heard; `None` if it never was.
    pub silent_ms: Option<u64>,
    /// Sessions that it says it owns, as its digest of everything counts them.
    pub announced: Option<u32>,
    /// Sessions of its that are held here.
    pub held: u32,
    /// Sessions of others that it says it holds.
    pub holds: Option<u32>,
    /// Whether what it announced and what is held of it were the same when they were last compared.
    pub equal: bool,
    /// Ranges that differed then.
    pub differing: u32,
    /// Ranges that differed and were repaired, since this process began.
    pub repaired: u64,
    /// Datagrams of its change stream that are missing now.
    pub missing: u64,
    /// Datagrams of its change stream that were skipped when a later one came, since its state was made.
    pub skipped: u64,
    /// Datagrams of its change stream that were asked for again, since this process began.
    pub asked_again: u64,
    /// Ranges that it was asked for and has not sent.
    pub ranges_asked: u32,
    /// Ranges that are wanted of it, those that it was asked for included.
    pub ranges_wanted: u32,
    /// Ranges that it has asked for and that wait here.
    pub requests_waiting: u32,
    /// Whether it has given back all that it held of this node's sessions.
    pub gave_back: bool,
    /// Datagrams and records of its that were rejected, since its state was made.
    pub rejects: u64,
    /// Whether it runs with another configuration where it must be the same.
    pub config_differs: bool,
}

impl PeerView {
    /// A living peer says hello every second: one that was not heard for so long is silent. Milliseconds.
    pub const SILENCE_MS: u64 = 3500;
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
        self.peers.iter().enumerate().map(move |(at, peer)| {
            let snapshot = peer.state.snapshot();
            let missing = peer.state.position(StreamId::CHANGES).missing();
            PeerView {
                node: peer.node.0,
                numa: peer.numa.0,
                state: peer.hello.map(|hello| hello.state),
                silent_ms: peer.heard.map(|heard| now.since(heard)),
                announced: peer.announced.map(|digest| digest.sessions),
                held: self.ledger.total(peer.slot).sessions,
                holds: peer.hello.map(|hello| hello.sessions_held),
                equal: peer.equal,
                differing: peer.suspect.len().max(peer.wanted.len()),
                repaired: peer.repaired,
                missing: missing.map(|(_, count)| u64::from(count)).sum(),
                skipped: snapshot.as_ref().map_or(0, |seen| seen.gaps),
                asked_again: peer.gaps_asked,
                ranges_asked: self.resync.asked_of(at) as u32,
                ranges_wanted: peer.wanted.len(),
                requests_waiting: self.serving.waiting_for(at) as u32,
                gave_back: peer.state.gave_back(),
                rejects: snapshot.map_or(0, |seen| seen.rejects),
                config_differs: peer
                    .hello
                    .is_some_and(|hello| hello.config_digest != self.config.config_digest),
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::protocol::net::{Net, durables};
    use crate::sync::sim::network::Weather;
    use crate::time::Micros;

    fn view_of(net: &Net<'_>, host: usize, node: u16) -> PeerView {
        let now = Micros(net.now).millis();
        net.hosts[host].protocol.peers(now).find(|view| view.node == node).unwrap()
    }

    #[test]
    fn a_peer_is_shown_as_it_says_it_is_and_as_it_is_held() {
        let durables = durables(3);
        let mut net = Net::new(&durables, 64, None);
        for host in [0, 1, 1, 1, 2] {
            net.open(host);
        }
        net.run(2500);
        net.hosts[1].protocol.set_draining(true);
        net.run(1100);

        let view = view_of(&net, 0, 2);

        let expected = PeerView {
            node: 2,
            numa: 0,
            state: Some(NodeState::Draining),
            silent_ms: view.silent_ms,
            announced: Some(3),
            held: 3,
            holds: Some(2),
            equal: true,
            differing: 0,
            repaired: 0,
            missing: 0,
            skipped: 0,
            asked_again: 0,
            ranges_asked: 0,
            ranges_wanted: 0,
            requests_waiting: 0,
            gave_back: true,
            rejects: 0,
            config_differs: false,
        };
        assert_eq!(view, expected);
        assert!(view.silent_ms.unwrap() <= 1000);
        assert!(serde_json::to_string(&view).unwrap().contains(r#""state":"Draining""#));
    }

    #[test]
    fn what_a_peer_lacked_and_what_was_repaired_is_counted_for_it_alone() {
        let durables = durables(3);
        let mut net = Net::new(&durables, 64, None);
        net.network.cut(1, 0, net.now + 3_000);
        net.open(1);
        net.run(1);
        net.open(1);
        net.run(3);
        net.open(1);
        net.run(2);
        let view = view_of(&net, 0, 2);
        assert!(view.missing > 0 && view.skipped > 0, "{view:?}");
        net.run(100);
        let view = view_of(&net, 0, 2);
        assert_eq!((view.missing, view.held), (0, 3));
        assert!(view.asked_again >= view.skipped, "{view:?}");

        let lost = net.open(1);
        net.run(1000);
        net.lose(0, &lost);
        net.network.weather = Weather { delay_us: 2000, ..Weather::default() };
        net.run(1100);
        let view = view_of(&net, 0, 2);
        assert!(!view.equal && view.differing == 1, "{view:?}");
        net.run(5000);
        let view = view_of(&net, 0, 2);
        assert_eq!((view.equal, view.differing, view.repaired, view.held), (true, 0, 1, 4));
        let other = view_of(&net, 0, 3);
        assert_eq!((other.skipped, other.asked_again, other.repaired, other.rejects), (0, 0, 0, 0));
    }
}
