//! The act in which the sync secondary is killed under load, again and again.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use baton_common::counter::Counter;
use baton_common::flow::FlowKey;
use serde::Serialize;

use crate::demo::hops::{self, Hops};
use crate::demo::narrator::Narrator;
use crate::demo::observer::{Counts, Observer, Sequences};
use crate::demo::stage::Stage;
use crate::demo::traffic::Traffic;
use crate::demo::wait::{pause, wait_for, wait_until};
use crate::host::{VIP4, VIP6};
use crate::load::{http, udp};
use crate::node::{self, Role};
use crate::random::Random;
use crate::server::{ECHO_PORT, HTTP_PORT};

/// The node whose secondary is killed; it carries all the traffic.
const NODE: u16 = 1;
/// The node that it tells of its sessions.
const PEER: u16 = 2;
/// How long the successor may take until its first datagram has reached the peer.
const BACK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the last sessions may take to the peer.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a load may take to its end.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Datagrams a second, in each address family.
const RATE: u32 = 1000;
/// Flows of datagrams, in each address family.
const FLOWS: u32 = 100;
/// Datagrams of a flow until it becomes a new session.
const RENEW_AFTER: u32 = 10;

/// What the act is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the secondary is killed.
    pub rounds: u32,
    /// HTTP connections, half of them IPv6.
    pub connections: u32,
    /// An answer that takes longer means that its connection is lost.
    pub timeout: Duration,
    /// Start of the random sequence that says when to kill.
    pub seed: u64,
}

/// One death of the secondary.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// How long it had lived in peace.
    pub killed_after_ms: u64,
    /// From the successor's execution until it was ready.
    pub exec_to_ready_ms: f64,
    /// From the kill until the successor was ready.
    pub kill_to_ready_ms: f64,
    /// From the kill until the successor's first datagram had reached the peer.
    pub kill_to_peer_ms: f64,
    /// Sessions that the node created meanwhile.
    pub sessions_meanwhile: u64,
}

/// What the act showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Restarts {
    /// Each kill.
    pub rounds: Vec<Round>,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams that were not answered.
    pub datagrams_lost: u64,
    /// Datagrams that could not be sent, were answered twice or by another server, or answers that were none.
    pub datagrams_odd: u64,
    /// Longest time from a datagram to its answer, milliseconds.
    pub longest_round_trip_ms: f64,
    /// HTTP connections that were open.
    pub connections: u32,
    /// Of these, those that were lost.
    pub connections_lost: u32,
    /// HTTP requests answered.
    pub answers: u64,
    /// Longest time that an HTTP client waited, milliseconds.
    pub longest_pause_ms: f64,
    /// Packets that the nodes dropped, by `NODE REASON`.
    pub dropped: BTreeMap<String, u64>,
    /// Sessions that the node created during the act.
    pub sessions_created: u64,
    /// Sessions that the peer did not know after the last round.
    pub sessions_missing: usize,
    /// Losses and repetitions that the kernels of the lab counted.
    pub hops: Hops,
}

impl Restarts {
    /// What should have been otherwise.
    pub fn troubles(&self, plan: &Plan) -> Vec<String> {
        let mut troubles = Vec::new();
        let mut expect = |fine: bool, trouble: String| {
            if !fine {
                troubles.push(trouble);
            }
        };
        let rounds = self.rounds.len();
        expect(rounds == plan.rounds as usize, format!("{rounds} of {} kills were survived", plan.rounds));
        expect(self.datagrams_sent > 0, "no datagram was sent".into());
        expect(self.datagrams_lost == 0, format!("{} datagrams were lost", self.datagrams_lost));
        expect(self.datagrams_odd == 0, format!("{} datagrams went astray", self.datagrams_odd));
        expect(self.connections_lost == 0, format!("{} HTTP connections were lost", self.connections_lost));
        expect(self.dropped.is_empty(), format!("Baton dropped packets: {}", list(&self.dropped)));
        expect(self.sessions_missing == 0, format!("n2 does not know {} sessions", self.sessions_missing));
        if !troubles.is_empty() && !self.hops.is_empty() {
            troubles.push(format!("the lab's kernels counted: {}", list(&self.hops)));
        }
        troubles
    }

    /// TCP segments that client and servers sent again.
    pub fn retransmissions(&self) -> u64 {
        self.hops.iter().filter(|(name, _)| name.ends_with("Tcp RetransSegs")).map(|(_, count)| count).sum()
    }
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Plays the act: n1, dead or alive, carries all traffic, and its secondary is killed under it.
///
/// # Errors
/// If the lab fails or the secondary does not come back; lost packets are no error but counted.
pub fn play(stage: &Stage, narrator: &Narrator, plan: &Plan) -> Result<Restarts> {
    revive(stage, narrator)?;
    let node = stage.observe(NODE)?;
    let known: HashSet<FlowKey> = node.local_sessions()?.into_keys().collect();
    let (counted, hops) = (Watched::read(stage)?, hops::read(&stage.lab()?)?);
    let mut loads = Loads::start(stage, plan)?;
    narrator.say(&format!(
        "{} HTTP connections and {} datagrams a second go through n1 (half IPv4, half IPv6), with {} new sessions a second",
        plan.connections,
        2 * RATE,
        2 * RATE / RENEW_AFTER
    ));
    let mut restarts = Restarts::default();
    let mut random = Random::new(plan.seed);
    for number in 1..=plan.rounds {
        let round = kill_once(stage, &mut random)?;
        narrator.say(&format!(
            "kill {number} of {}: ready {:.0} ms after the kill ({:.0} ms after exec), first datagram at n2 after {:.0} ms; \
             {} sessions began meanwhile",
            plan.rounds, round.kill_to_ready_ms, round.exec_to_ready_ms, round.kill_to_peer_ms, round.sessions_meanwhile
        ));
        restarts.rounds.push(round);
    }
    // The last successor is to be seen at work, too.
    pause(Duration::from_secs(1))?;
    restarts.sessions_missing = missing(&node, &stage.observe(PEER)?, &known)?;
    loads.end(&mut restarts)?;
    let grown = Watched::read(stage)?.since(&counted);
    restarts.dropped = grown.drops();
    restarts.sessions_created = grown.node.of(Counter::SessionsCreated);
    restarts.hops = hops::since(&hops::read(&stage.lab()?)?, &hops);
    tell(narrator, &restarts);
    Ok(restarts)
}

/// Brings n1 back, if it is dead, and gives it all the traffic.
fn revive(stage: &Stage, narrator: &Narrator) -> Result<()> {
    for &role in Role::of(&stage.lab()?) {
        let alive = |lab: &crate::state::Lab| {
            lab.processes.get(&node::process_key(NODE, role)).is_some_and(|process| process.id.is_alive())
        };
        if !alive(&stage.lab()?) {
            node::start(&stage.dir, NODE, role)?;
        }
    }
    stage.announce_only(NODE)?;
    // A node that has just begun asks for its neighbours' link-layer addresses with the first packets, and drops these.
    for (name, vip) in [("warm-up4", IpAddr::from(VIP4)), ("warm-up6", IpAddr::from(VIP6))] {
        let target = SocketAddr::new(vip, HTTP_PORT).to_string();
        let mut traffic = Traffic::start(stage, name, &["http", "--target", &target, "--connections", "10"])?;
        traffic.wait_ready()?;
        traffic.end::<http::Report>(END_TIMEOUT)?;
    }
    narrator.say("n1 is started again and gets all traffic; n2 only listens to it");
    Ok(())
}

/// Kills the secondary at a random moment, starts another at once, and measures until it is back at work.
fn kill_once(stage: &Stage, random: &mut Random) -> Result<Round> {
    let peace = Duration::from_millis(300 + random.next() % 1200);
    pause(peace)?;
    let (node, peer) = (stage.observe(NODE)?, stage.observe(PEER)?);
    let created = node.counters()?.of(Counter::SessionsCreated);
    let killed = Instant::now();
    node::kill(&stage.lab()?, NODE, &[Role::Sync])?;
    // Nobody sends now. Whatever the peer hears beyond these numbers, it hears from the successor.
    let sent = node.sent_sequences()?;
    let (started, heard) = std::thread::scope(|scope| -> Result<_> {
        let heard = scope.spawn(|| wait_until_heard(&peer, &sent));
        let started = node::start(&stage.dir, NODE, Role::Sync)?;
        let heard = heard.join().map_err(|_| anyhow::anyhow!("the thread that watches n2 panicked"))??;
        Ok((started, heard))
    })?;
    let milliseconds =
        |from: Instant, to: Instant| crate::load::pace::milliseconds(to.saturating_duration_since(from));
    Ok(Round {
        killed_after_ms: peace.as_millis() as u64,
        exec_to_ready_ms: milliseconds(started.executed, started.ready),
        kill_to_ready_ms: milliseconds(killed, started.ready),
        kill_to_peer_ms: milliseconds(killed, heard),
        sessions_meanwhile: node.counters()?.of(Counter::SessionsCreated) - created,
    })
}

/// Waits until the peer has received a datagram with a number above those in `sent`; returns when.
fn wait_until_heard(peer: &Observer, sent: &Sequences) -> Result<Instant> {
    wait_until(BACK_TIMEOUT, "the first datagram of the new secondary at n2", || {
        Ok(peer.heard_sequences(NODE)?.iter().zip(sent).any(|(heard, sent)| heard > sent))
    })?;
    Ok(Instant::now())
}

/// Counts the sessions of the act, all but `known`, that the peer does not know, while the load goes on; waits a while
/// for the last of them.
fn missing(node: &Observer, peer: &Observer, known: &HashSet<FlowKey>) -> Result<usize> {
    let mut missing = 0;
    wait_for(SETTLE_TIMEOUT, || {
        let (own, remote) = (node.local_sessions()?, peer.remote_sessions()?);
        let made = own.keys().filter(|key| !known.contains(key));
        missing = made.filter(|key| !remote.contains_key(key)).count();
        Ok(missing == 0)
    })?;
    Ok(missing)
}

/// The counters of both nodes.
struct Watched {
    node: Counts,
    peer: Counts,
}

impl Watched {
    fn read(stage: &Stage) -> Result<Self> {
        Ok(Self { node: stage.observe(NODE)?.counters()?, peer: stage.observe(PEER)?.counters()? })
    }

    fn since(&self, earlier: &Self) -> Self {
        Self { node: self.node.since(&earlier.node), peer: self.peer.since(&earlier.peer) }
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        let named = |number: u16, counts: &Counts| {
            counts.drops().into_iter().map(move |(name, count)| (format!("n{number} {name}"), count))
        };
        named(NODE, &self.node).chain(named(PEER, &self.peer)).collect()
    }
}

/// The load of the act.
struct Loads {
    http: Vec<Traffic>,
    udp: Vec<Traffic>,
}

impl Loads {
    fn start(stage: &Stage, plan: &Plan) -> Result<Self> {
        let text = |number: u32| number.to_string();
        let timeout = plan.timeout.as_millis().to_string();
        let http = |name: &str, target: SocketAddr, connections: u32| {
            let (target, connections) = (target.to_string(), text(connections));
            let arguments =
                ["http", "--target", &target, "--connections", &connections, "--timeout-ms", &timeout];
            Traffic::start(stage, name, &arguments)
        };
        let udp = |name: &str, target: SocketAddr| {
            let (target, flows, rate, renew) =
                (target.to_string(), text(FLOWS), text(RATE), text(RENEW_AFTER));
            let arguments =
                ["udp", "--target", &target, "--flows", &flows, "--rate", &rate, "--renew-after", &renew];
            Traffic::start(stage, name, &arguments)
        };
        let half = plan.connections / 2;
        let mut loads = Self {
            http: vec![
                http("restarts-http4", (VIP4, HTTP_PORT).into(), plan.connections - half)?,
                http("restarts-http6", (VIP6, HTTP_PORT).into(), half)?,
            ],
            udp: vec![
                udp("restarts-udp4", (VIP4, ECHO_PORT).into())?,
                udp("restarts-udp6", (VIP6, ECHO_PORT).into())?,
            ],
        };
        for traffic in loads.http.iter_mut().chain(&mut loads.udp) {
            traffic.wait_ready()?;
        }
        Ok(loads)
    }

    fn end(&mut self, restarts: &mut Restarts) -> Result<()> {
        for traffic in self.http.iter().chain(&self.udp) {
            traffic.call_off()?;
        }
        let mut sum = http::Report::default();
        for traffic in self.http.drain(..) {
            sum.add(&traffic.end(END_TIMEOUT)?);
        }
        restarts.connections = sum.opened;
        restarts.connections_lost = sum.lost + sum.not_opened;
        restarts.answers = sum.answers;
        restarts.longest_pause_ms = sum.longest_pause_ms;
        for traffic in self.udp.drain(..) {
            let report: udp::Report = traffic.end(END_TIMEOUT)?;
            restarts.datagrams_sent += report.sent;
            restarts.datagrams_lost += report.lost;
            restarts.datagrams_odd +=
                report.doubled + report.foreign + report.send_errors + u64::from(report.flows_moved);
            restarts.longest_round_trip_ms = restarts.longest_round_trip_ms.max(report.longest_round_trip_ms);
        }
        Ok(())
    }
}

fn tell(narrator: &Narrator, restarts: &Restarts) {
    narrator.say(&format!(
        "datagrams sent {}, lost {}; HTTP connections {}, lost {}; packets dropped by Baton {}; TCP segments sent again {}",
        restarts.datagrams_sent,
        restarts.datagrams_lost,
        restarts.connections,
        restarts.connections_lost,
        restarts.dropped.values().sum::<u64>(),
        restarts.retransmissions()
    ));
    narrator.say(&format!(
        "n1 created {} sessions in this act; {} of them are missing in n2's table",
        restarts.sessions_created, restarts.sessions_missing
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan { rounds: 1, connections: 10, timeout: Duration::from_secs(1), seed: 1 };

    fn good() -> Restarts {
        let round = Round {
            killed_after_ms: 500,
            exec_to_ready_ms: 100.0,
            kill_to_ready_ms: 110.0,
            kill_to_peer_ms: 120.0,
            sessions_meanwhile: 20,
        };
        Restarts { rounds: vec![round], datagrams_sent: 1000, connections: 10, ..Restarts::default() }
    }

    #[test]
    fn nothing_lost_is_no_trouble() {
        assert_eq!(good().troubles(&PLAN), Vec::<String>::new());
    }

    #[test]
    fn every_loss_is_a_trouble_of_its_own() {
        type Spoil = fn(&mut Restarts);
        let losses: [(Spoil, &str); 6] = [
            (|r| r.rounds.clear(), "0 of 1 kills were survived"),
            (|r| r.datagrams_lost = 2, "2 datagrams were lost"),
            (|r| r.datagrams_odd = 3, "3 datagrams went astray"),
            (|r| r.connections_lost = 4, "4 HTTP connections were lost"),
            (
                |r| r.dropped = [("n1 drop_tx_full".into(), 5)].into(),
                "Baton dropped packets: n1 drop_tx_full 5",
            ),
            (|r| r.sessions_missing = 6, "n2 does not know 6 sessions"),
        ];
        for (spoil, expected) in losses {
            let mut restarts = good();
            spoil(&mut restarts);
            assert_eq!(restarts.troubles(&PLAN), [expected]);
        }
    }

    #[test]
    fn a_loss_comes_with_what_the_kernels_counted() {
        let hops = Hops::from([("c1 Udp RcvbufErrors".to_owned(), 2)]);
        let restarts = Restarts { datagrams_lost: 2, hops, ..good() };
        assert_eq!(restarts.troubles(&PLAN)[1], "the lab's kernels counted: c1 Udp RcvbufErrors 2");
    }
}
