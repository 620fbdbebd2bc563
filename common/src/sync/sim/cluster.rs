//! A simulated cluster: nodes, network, clients and the faults of one seed, and what must be true all along.

use super::clients::{Connection, Phase};
use super::keys::KeyChange;
use super::network::{Network, Weather};
use super::node::{Durable, Node, TIMEOUTS, address};
use super::random::Random;
use super::worker::Passed;
use crate::flow::{Endpoint, FlowKey, Protocol};
use crate::id::NodeId;
use crate::packet::TcpFlags;
use crate::session::SessionState;
use crate::session::tcp::initial_state;
use crate::sync::protocol::mutation::Mutation;
use crate::sync::protocol::readiness::ReadyState;
use crate::sync::protocol::{Member, Tables};

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const FIN_ACK: TcpFlags = TcpFlags(0x11);
const RST: TcpFlags = TcpFlags::RST;

/// A second of simulated time.
pub const SECOND: u64 = 1_000_000;

/// How far a wall clock is set forward or back at most, microseconds: an hour.
const WALL_STEP: u64 = 3600 * SECOND;

/// How long something of a connection is left at a node after its end, at most: it is swept out in passes of four seconds.
const REMAINS: u64 = 10 * SECOND;

/// What is planned to go wrong, in millionths a tick.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    weather: Weather,
    kills: u32,
    crashes: u32,
    cuts: u32,
    rehashes: u32,
    flapping: bool,
    leaves: u32,
    steps: u32,
    set_clocks: u32,
    key_changes: u32,
}

/// A cluster under test.
pub struct Cluster<'a> {
    pub now: u64,
    pub nodes: Vec<Node<'a>>,
    pub network: Network,
    random: Random,
    connections: Vec<Connection>,
    plan: Plan,
    /// Which nodes are members.
    is_member: Vec<bool>,
    /// Which nodes are members in calm times.
    pub belongs: Vec<bool>,
    salt: u64,
    /// Since when nothing is wrong.
    calm_since: u64,
    /// When a node last lost what only it knew.
    pub lost_at: u64,
    pub violation: Option<String>,
    pub opened: u64,
    pub broken: u64,
    trace: Option<u16>,
    /// The keys, if the nodes seal what they say.
    keys: Option<KeyChange>,
}

impl<'a> Cluster<'a> {
    /// The cluster of a seed.
    pub fn new(seed: u64, durable: &'a [Durable], mutation: Mutation) -> Cluster<'a> {
        let mut random = Random::new(seed);
        let nodes = durable.len();
        let is_member = vec![true; nodes];
        let members = members(&is_member);
        let nodes: Vec<Node<'a>> = (durable.iter().enumerate())
            .map(|(number, durable)| Node::new(number, durable, members.clone(), mutation, &mut random))
            .collect();
        let clients = 8 + random.below(24) as usize;
        Cluster {
            now: 0,
            network: Network::new(nodes.len()),
            nodes,
            connections: (0..clients).map(Connection::new).collect(),
            plan: Plan::default(),
            belongs: is_member.clone(),
            is_member,
            salt: random.next(),
            random,
            calm_since: 0,
            lost_at: 0,
            violation: None,
            opened: 0,
            broken: 0,
            keys: None,
            trace: std::env::var("BATON_SIM_TRACE").ok().and_then(|port| port.parse().ok()),
        }
    }

    /// Has the nodes seal what they say.
    pub fn seal(&mut self) {
        let keys = KeyChange::new(self.nodes.len());
        self.nodes.iter_mut().for_each(|node| node.use_keyring(&keys.first()));
        self.keys = Some(keys);
    }

    /// Has the last node join later, and the first or second leave for good before that.
    pub fn change_members(&mut self) {
        let last = self.nodes.len() - 1;
        self.belongs[last] = false;
    }

    /// Before storm number `storm`: the node that was not there from the beginning joins, or another leaves.
    pub fn go_and_come(&mut self, storm: usize) {
        let last = self.nodes.len() - 1;
        if storm == 0 && !self.belongs[last] {
            let leaver = (self.salt % 2) as usize;
            self.belongs[leaver] = false;
            self.note_what_is_safe();
            self.lost_at = self.now;
        }
        if storm == 1 && !self.belongs[last] {
            self.nodes[last].crash(self.now, self.now);
            self.belongs[last] = true;
        }
        self.is_member.clone_from(&self.belongs);
        self.spread_members();
    }

    /// Draws what goes wrong from now on.
    pub fn draw_plan(&mut self) {
        let random = &mut self.random;
        let mut maybe = |values: &[u32]| random.pick(values);
        self.plan = Plan {
            weather: Weather {
                loss: maybe(&[0, 1_000, 10_000, 100_000, 300_000, 500_000]),
                duplicates: maybe(&[0, 0, 50_000, 300_000]),
                delay_us: u64::from(maybe(&[200, 2_000, 20_000, 100_000])),
                full: maybe(&[0, 0, 0, 100_000]),
            },
            kills: maybe(&[0, 0, 500, 2_000]),
            crashes: maybe(&[0, 0, 200, 1_000]),
            cuts: maybe(&[0, 0, 1_000, 5_000]),
            rehashes: maybe(&[0, 500, 3_000, 10_000]),
            flapping: maybe(&[0, 0, 0, 1]) == 1,
            leaves: maybe(&[0, 0, 0, 500]),
            steps: maybe(&[0, 0, 500]),
            set_clocks: maybe(&[0, 0, 1_000]),
            key_changes: maybe(&[0, 10_000]),
        };
        self.network.weather = self.plan.weather;
    }

    /// From now on nothing goes wrong any more; what is down comes up.
    pub fn calm_down(&mut self) {
        self.plan = Plan { rehashes: 300, ..Plan::default() };
        self.network.weather = Weather { delay_us: 2_000, ..Weather::default() };
        self.network.heal();
        for node in &mut self.nodes {
            node.down_until = node.down_until.min(self.now);
            node.restart_at = node.restart_at.min(self.now);
        }
        if self.is_member != self.belongs {
            // A node that was alone has been ready by itself. What the others hold it hears of only now.
            self.lost_at = self.now + 3 * SECOND;
        }
        self.is_member.clone_from(&self.belongs);
        self.spread_members();
    }

    /// Lets time pass.
    pub fn run_for(&mut self, duration: u64, tick: u64, traffic: bool) {
        let end = self.now + duration;
        while self.now < end && self.violation.is_none() {
            self.now += tick;
            self.go_wrong();
            while let Some((from, to, datagram)) = self.network.arrived(self.now) {
                self.nodes[to].receive(from, datagram, self.now);
            }
            if traffic {
                self.clients_speak();
            }
            for node in &mut self.nodes {
                if let Some(port) = self.trace {
                    node.tables.trace =
                        Some((port, format!("{:.3} node {}", self.now as f64 / 1e6, node.worker.node)));
                }
                node.turn(self.now, &mut self.network, &mut self.random);
                if let Some(violation) = node.tables.violation.take() {
                    self.violation.get_or_insert(format!("node {}: {violation}", node.worker.node));
                }
            }
            if !self.is_calm_now() {
                self.calm_since = self.now;
            }
        }
    }

    fn is_calm_now(&self) -> bool {
        let Weather { loss, full, delay_us, .. } = self.network.weather;
        let ready = |node: &Node<'_>| {
            node.protocol.as_ref().is_some_and(|protocol| protocol.readiness().state() == ReadyState::Ready)
        };
        loss == 0
            && full == 0
            && delay_us <= 2_000
            && !self.plan.flapping
            && self.plan.cuts == 0
            && self.is_member == self.belongs
            && self.nodes.iter().zip(&self.belongs).all(|(node, belongs)| !belongs || ready(node))
    }

    fn calm_for(&self) -> u64 {
        self.now - self.calm_since
    }

    fn go_wrong(&mut self) {
        let Plan { kills, crashes, cuts, rehashes, leaves, steps, set_clocks, key_changes, .. } = self.plan;
        let number = self.random.below(self.nodes.len() as u64) as usize;
        let other = self.random.below(self.nodes.len() as u64) as usize;
        let duration = 1_000 + self.random.below(3 * SECOND);
        let until = self.now + duration;
        if self.random.chance(kills) {
            self.nodes[number].kill(self.now + duration / 10);
        }
        if self.random.chance(crashes) && self.nodes[number].is_up(self.now) {
            self.nodes[number].crash(self.now, until);
            self.lost_at = self.now;
            self.note_what_is_safe();
        }
        if self.random.chance(cuts) && number != other {
            self.network.cut(number, other, until);
            if self.random.chance(500_000) {
                self.network.cut(other, number, until);
            }
        }
        if self.random.chance(rehashes) || self.plan.flapping && self.random.chance(100_000) {
            self.salt = self.random.next();
        }
        if self.random.chance(leaves) && self.belongs[number] {
            self.is_member[number] =
                !self.is_member[number] || self.is_member.iter().filter(|one| **one).count() < 2;
            self.lost_at = self.now;
            self.spread_members();
        }
        if self.random.chance(steps) {
            self.nodes[number].offset += self.random.below(2 * SECOND);
        }
        if self.random.chance(set_clocks) {
            self.nodes[number].wall = self.random.below(2 * WALL_STEP) as i64 - WALL_STEP as i64;
        }
        if self.random.chance(key_changes)
            && let Some(keys) = &mut self.keys
            && let Some((number, keyring)) = keys.next()
        {
            self.nodes[number].use_keyring(&keyring);
        }
    }

    /// Notes which connections' sessions are held by a node that is up.
    fn note_what_is_safe(&mut self) {
        for number in 0..self.connections.len() {
            let connection = &self.connections[number];
            self.connections[number].safe = connection
                .local()
                .is_some_and(|local| self.is_held(connection.key, connection.server_key(local)));
        }
    }

    fn is_held(&self, key: FlowKey, server_key: FlowKey) -> bool {
        let belonging = self.nodes.iter().zip(&self.belongs).filter(|(_, belongs)| **belongs);
        belonging
            .map(|(node, _)| node)
            .any(|node| node.tables.find(&key).is_some_and(|held| held.session.server_key() == server_key))
    }

    fn spread_members(&mut self) {
        for node in &mut self.nodes {
            node.set_members(members(&self.is_member), self.now);
        }
    }

    /// The node that the router sends a client's packets to: one that draws traffic.
    fn route(&self, hash: u64) -> Option<usize> {
        let draws = |number: &usize| {
            let node = &self.nodes[*number];
            node.is_up(self.now) && self.is_member[*number] && node.worker.opens
        };
        let drawing: Vec<usize> = (0..self.nodes.len()).filter(draws).collect();
        let mut mix = Random::new(hash ^ self.salt);
        (!drawing.is_empty()).then(|| drawing[mix.below(drawing.len() as u64) as usize])
    }

    /// The node that the router sends a server's packets to: the local address's own, if it is there.
    fn route_back(&self, local: Endpoint, hash: u64) -> Option<usize> {
        let home = usize::from(local.address.0[15]) - 1;
        let node = &self.nodes[home];
        let draws = node.is_up(self.now) && self.is_member[home] && node.worker.opens;
        if draws { Some(home) } else { self.route(hash) }
    }

    fn clients_speak(&mut self) {
        for number in 0..self.connections.len() {
            if self.connections[number].next_try > self.now {
                continue;
            }
            match self.connections[number].phase {
                Phase::Closed(_) => self.open(number),
                Phase::Open { local, since } => {
                    let old = self.now - since > SECOND;
                    match self.random.below(40) {
                        0 if old => self.close(number, local, FIN_ACK),
                        1 if old => self.close(number, local, RST),
                        _ => self.speak(number, local),
                    }
                }
            }
        }
    }

    /// A packet of the client's, and whether it came out at the other end as it should.
    fn client_sends(&mut self, number: usize, flags: TcpFlags) -> Passed {
        let Connection { key, server, hash, .. } = self.connections[number];
        let Some(at) = self.route(hash) else { return Passed::Refused };
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now).millis();
        let passed = node.worker.inbound(key, flags, server, clock, &mut node.tables);
        self.print(key, at, flags, passed);
        self.note_who_saw(number, at, passed);
        passed
    }

    fn server_sends(&mut self, number: usize, local: Endpoint, flags: TcpFlags) -> Passed {
        let connection = self.connections[number].clone();
        let (key, hash) = (connection.server_key(local), connection.hash);
        let Some(at) = self.route_back(local, hash) else { return Passed::Refused };
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now).millis();
        let passed = node.worker.outbound(key, flags, clock, &mut node.tables);
        self.print(connection.key, at, flags, passed);
        self.note_who_saw(number, at, passed);
        passed
    }

    fn note_who_saw(&mut self, number: usize, at: usize, passed: Passed) {
        if let Passed::Through(session) = passed
            && usize::from(session.owner.0) == at + 1
            && self.connections[number].local() == Some(session.local)
        {
            self.connections[number].owner_saw = self.now;
        }
    }

    /// Prints what became of a packet of the connection that is traced.
    fn print(&self, key: FlowKey, at: usize, flags: TcpFlags, passed: Passed) {
        if self.trace == Some(key.source.port) {
            eprintln!("{:.3} node {} got {flags:?}: {passed:?}", self.seconds(), at + 1);
        }
    }

    fn open(&mut self, number: usize) {
        let Connection { key, server, pace, .. } = self.connections[number];
        self.connections[number].next_try = self.now + 200_000;
        let Passed::Through(session) = self.client_sends(number, SYN) else { return };
        // A SYN that went through an old session opens a connection by the old way: servers take it after a close.
        if session.server != server {
            return;
        }
        if matches!(session.state, SessionState::TcpFinFromClient | SessionState::TcpFinFromServer) {
            // Half closed, because its ends were seen by different nodes: it ages before the client tries again.
            self.connections[number].next_try = self.now + 5 * SECOND;
            return;
        }
        self.check_port(number, session.local);
        let inherited = session.state != initial_state(key.protocol);
        let mut wait = pace;
        if key.protocol == Protocol::Tcp {
            let Passed::Through(answered) = self.server_sends(number, session.local, SYN_ACK) else { return };
            if answered.client_key() != key {
                return;
            }
            // The client takes it for open now. The router may think again before its answer comes; if that meets what is left
            // of an earlier connection, it passes through that.
            let closed_at = match self.connections[number].phase {
                Phase::Closed(at) => at,
                Phase::Open { since, .. } => since,
            };
            let is_first = closed_at == 0 || self.now - closed_at > REMAINS;
            if is_first && self.random.chance(300_000) {
                wait = self.random.below(SECOND / 5);
            } else {
                let Passed::Through(done) = self.client_sends(number, ACK) else { return };
                if done.local != session.local {
                    return;
                }
            }
        }
        self.opened += 1;
        let connection = &mut self.connections[number];
        connection.phase = Phase::Open { local: session.local, since: self.now };
        connection.heard = self.now;
        connection.missing_since = None;
        connection.inherited = inherited;
        connection.owner_saw = self.now;
        connection.safe = false;
        connection.next_try = self.now + wait;
    }

    /// No port is given out that a living connection uses, as far as anybody could know.
    fn check_port(&mut self, number: usize, local: Endpoint) {
        let (key, server) = (self.connections[number].key, self.connections[number].server);
        let taken = self.connections.iter().any(|other| {
            other.key != key
                && other.key.protocol == key.protocol
                && other.server == server
                && other.local() == Some(local)
                && self.now - other.heard < 2 * SECOND
        });
        if taken && self.calm_for() > 3 * SECOND {
            let message = format!("{:.3} s: port {local:?} given out twice", self.seconds());
            self.violation.get_or_insert(message);
        }
    }

    fn speak(&mut self, number: usize, local: Endpoint) {
        let pace = self.connections[number].pace;
        self.connections[number].next_try = self.now + pace / 2 + self.random.below(pace);
        let passed = self.client_sends(number, ACK);
        if !self.judge(number, local, passed) {
            return;
        }
        let passed = self.server_sends(number, local, ACK);
        let heard = self.judge(number, local, passed);
        let connection = &mut self.connections[number];
        if heard {
            connection.heard = self.now;
            connection.missing_since = None;
        }
    }

    /// Whether a packet of a connection went where it should; what must not happen is noted.
    fn judge(&mut self, number: usize, local: Endpoint, passed: Passed) -> bool {
        let udp = self.connections[number].key.protocol == Protocol::Udp;
        let owner_saw = self.connections[number].owner_saw;
        match passed {
            Passed::Through(session)
                if session.local == local && session.client_key() == self.connections[number].key =>
            {
                true
            }
            Passed::Through(session) => {
                let since = match self.connections[number].phase {
                    Phase::Open { since, .. } => since,
                    Phase::Closed(at) => at,
                };
                let settled =
                    self.now - since > SECOND && self.now - self.connections[number].heard < 3 * SECOND;
                // Its owner has let it age, and another node that has seen it goes on with it: UDP may open anew in between.
                let aged = udp && owner_saw + u64::from(TIMEOUTS.udp_ms) * 1000 < self.now + SECOND / 2;
                let inherited = self.connections[number].inherited || aged;
                if self.calm_for() > 4 * SECOND && settled && self.lost_at < since && !inherited {
                    let message = format!(
                        "{:.3} s: connection {number} through {local:?} went through {session:?}",
                        self.seconds()
                    );
                    self.violation.get_or_insert(message);
                }
                self.forget(number, udp);
                false
            }
            Passed::Missed | Passed::Refused => {
                self.miss(number);
                false
            }
        }
    }

    fn forget(&mut self, number: usize, at_once: bool) {
        let wait = if at_once { 1 } else { self.random.below(2 * SECOND) };
        let connection = &mut self.connections[number];
        connection.phase = Phase::Closed(self.now);
        connection.missing_since = None;
        connection.next_try = self.now + wait;
        self.broken += 1;
    }

    /// A packet of a living connection found no session: it is sent again soon. In calm times that helps.
    fn miss(&mut self, number: usize) {
        let now = self.now;
        let connection = &mut self.connections[number];
        connection.next_try = now + 250_000;
        let since = *connection.missing_since.get_or_insert(now);
        let Phase::Open { since: opened, local } = connection.phase else { return };
        let (key, server_key) = (connection.key, connection.server_key(local));
        let Connection { inherited, safe, .. } = *connection;
        if now - since < 1_200_000 {
            return;
        }
        let calm = self.calm_for() > now - since + 2 * SECOND;
        let held = self.is_held(key, server_key);
        if calm && !inherited && (held || safe || self.lost_at < opened) {
            let message = format!(
                "{:.3} s: connection {number} ({key:?}) lost, held by somebody: {held}",
                self.seconds()
            );
            self.violation.get_or_insert(message);
        }
        if now - since > 4 * SECOND {
            self.forget(number, false);
        }
    }

    /// Whether the server has let a connection go for a newer one with the same four endpoints on its side: it has one of them
    /// at a time. Nodes that have all lost a session give its local endpoint out again; the server answers the SYN with an ACK
    /// of the old connection, the new client resets that one, and what is left of it is the old client's end alone.
    fn is_replaced_at_server(&self, number: usize, local: Endpoint) -> bool {
        let Connection { key, server, phase, .. } = self.connections[number];
        let Phase::Open { since, .. } = phase else { return false };
        self.connections.iter().any(|other| {
            let newer = matches!(other.phase, Phase::Open { since: newer, .. } if newer > since);
            newer
                && other.local() == Some(local)
                && (other.key.protocol, other.server) == (key.protocol, server)
        })
    }

    /// Either side closes; both ends' last packets pass or are lost.
    fn close(&mut self, number: usize, local: Endpoint, flags: TcpFlags) {
        if self.connections[number].key.protocol == Protocol::Tcp {
            let replaced = self.is_replaced_at_server(number, local);
            self.client_sends(number, flags);
            if flags != RST && !replaced {
                self.server_sends(number, local, flags);
                self.client_sends(number, ACK);
            }
        }
        let quick = self.random.chance(300_000);
        let pause = if quick { 1 } else { self.random.below(4 * SECOND) };
        let connection = &mut self.connections[number];
        connection.phase = Phase::Closed(self.now);
        connection.next_try = self.now + pause;
        connection.missing_since = None;
    }

    /// Whether every node says that it is ready and its peers' digests are equal.
    pub fn all_ready(&self) -> bool {
        (0..self.nodes.len()).filter(|node| self.belongs[*node]).all(|node| self.is_ready(node))
    }

    /// Whether a node is ready.
    pub fn is_ready(&self, node: usize) -> bool {
        let protocol = self.nodes[node].protocol.as_ref();
        protocol.is_some_and(|protocol| protocol.readiness().state() == ReadyState::Ready)
    }

    /// Simulated time.
    pub fn seconds(&self) -> f64 {
        self.now as f64 / SECOND as f64
    }
}

fn members(is_member: &[bool]) -> Vec<Member> {
    let members = is_member.iter().enumerate().filter(|(_, is)| **is);
    members
        .map(|(number, _)| Member { node: NodeId(number as u16 + 1), addresses: vec![address(number)] })
        .collect()
}
