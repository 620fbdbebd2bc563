//! The act in which a node dies under live connections: with sync, and as a control without.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use baton_common::counter::Counter;
use baton_common::time::Millis;
use serde::Serialize;

use crate::demo::narrator::Narrator;
use crate::demo::observer::{Observer, process_numbers};
use crate::demo::stage::Stage;
use crate::demo::traffic::Traffic;
use crate::demo::wait::{pause, wait_for};
use crate::host::{VIP4, VIP6};
use crate::load::{database, http};
use crate::node::{self, Role};
use crate::server::{DATABASE_PORT, HTTP_PORT};

/// Time from a node's death until the router acts on it: what BFD with three probes 100 ms apart takes.
const DETECTION: Duration = Duration::from_millis(300);
/// Time between two requests of a connection, milliseconds.
const INTERVAL_MS: u64 = 200;
/// How long the sessions may take to the other node.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(15);
/// The node that is killed.
const VICTIM: u16 = 1;
/// The node that goes on.
const SURVIVOR: u16 = 2;

/// What the act is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// HTTP connections, half of them IPv6.
    pub connections: u32,
    /// An answer that takes longer means that its connection is lost.
    pub timeout: Duration,
    /// How long the connections go on before the kill.
    pub warm_up: Duration,
    /// How long the connections go on after the kill.
    pub watch: Duration,
    /// If the nodes tell each other of their sessions.
    pub sync: bool,
}

/// What the act showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Takeover {
    /// If the nodes told each other of their sessions.
    pub sync: bool,
    /// HTTP connections that were open and answered before the kill.
    pub connections_before: u32,
    /// Of these, those that were open and answered their last request at the end.
    pub connections_after: u32,
    /// Connections lost.
    pub connections_lost: u32,
    /// Longest time that a client waited for an answer, HTTP and MariaDB, milliseconds.
    pub longest_pause_ms: f64,
    /// HTTP requests answered before the kill.
    pub answers_before: u64,
    /// HTTP requests answered in all.
    pub answers: u64,
    /// Sessions of the killed node before the kill.
    pub sessions_on_victim: usize,
    /// Of these, those that the other node knew before the kill.
    pub sessions_on_survivor: usize,
    /// Time from the kill until the router sent the traffic to the other node, milliseconds.
    pub rerouted_after_ms: u64,
    /// How long the connections went on after the kill, seconds.
    pub watched_s: f64,
    /// Sessions of the killed node that the other one served.
    pub sessions_served: usize,
    /// Packets that it forwarded by its table of remote sessions.
    pub packets_served: u64,
    /// Packets that it dropped because it knew no session for them.
    pub packets_without_session: u64,
    /// What became of the MariaDB session.
    pub database: database::Report,
}

impl Takeover {
    /// What should have been otherwise, with sync.
    pub fn troubles(&self, wanted: u32) -> Vec<String> {
        let mut troubles = Vec::new();
        let mut expect = |fine: bool, trouble: String| {
            if !fine {
                troubles.push(trouble);
            }
        };
        expect(
            self.connections_before >= wanted,
            format!("{} of {wanted} connections were open before the kill", self.connections_before),
        );
        expect(self.connections_lost == 0, format!("{} connections were lost", self.connections_lost));
        expect(
            self.connections_after == self.connections_before,
            format!("{} of {} connections live", self.connections_after, self.connections_before),
        );
        expect(
            self.sessions_on_survivor == self.sessions_on_victim,
            format!("n2 knew {} of n1's {} sessions", self.sessions_on_survivor, self.sessions_on_victim),
        );
        expect(
            self.sessions_served == self.sessions_on_victim && self.packets_served > 0,
            format!("n2 served {} of n1's {} sessions", self.sessions_served, self.sessions_on_victim),
        );
        let database = &self.database;
        expect(
            database.is_whole() && database.rows_inserted > 0,
            match &database.error {
                Some(error) => format!("the MariaDB session failed: {error}"),
                None => format!("{} of {} rows were found", database.rows_found, database.rows_inserted),
            },
        );
        troubles
    }
}

/// The load of the act.
struct Crowd {
    http: Vec<Traffic>,
    database: Traffic,
}

/// Plays the act: load through n1, kill -9 of n1, the traffic to n2, and what came of it.
///
/// # Errors
/// If the lab fails; lost connections are no error but counted.
pub fn play(stage: &Stage, narrator: &Narrator, plan: &Plan) -> Result<Takeover> {
    stage.announce_only(VICTIM)?;
    narrator.say("the router sends everything to n1");
    let crowd = Crowd::start(stage, plan)?;
    let opened = crowd.sum()?;
    narrator.say(&format!(
        "{} HTTP connections are open through n1 (half IPv4, half IPv6), each with a request every {INTERVAL_MS} ms; \
         a MariaDB session is in a transaction",
        opened.alive
    ));
    let mut takeover = Takeover { sync: plan.sync, ..Takeover::default() };
    let survivor = stage.observe(SURVIVOR)?;
    replication(stage, narrator, plan, &mut takeover)?;
    let counted = survivor.counters()?;
    pause(plan.warm_up)?;
    let before = crowd.sum()?;
    takeover.connections_before = before.alive;
    takeover.answers_before = before.answers;
    let killed = kill(stage, narrator, &mut takeover)?;
    watch(narrator, plan, &crowd, killed)?;
    takeover.watched_s = killed.elapsed().as_secs_f64();
    let since = Millis::now() - killed.elapsed().as_millis() as u64;
    crowd.end(plan, &mut takeover)?;
    served(&survivor, plan, since, &mut takeover)?;
    let counted = survivor.counters()?.since(&counted);
    takeover.packets_served = counted.of(Counter::RemoteHits);
    takeover.packets_without_session = counted.of(Counter::DropNoSession);
    tell(narrator, &takeover);
    Ok(takeover)
}

/// Waits until the other node knows all sessions, and says how many each has.
fn replication(stage: &Stage, narrator: &Narrator, plan: &Plan, takeover: &mut Takeover) -> Result<()> {
    let (victim, survivor) = (stage.observe(VICTIM)?, stage.observe(SURVIVOR)?);
    if !plan.sync {
        takeover.sessions_on_victim = victim.local_sessions()?.len();
        narrator.say(&format!("n1 holds {} sessions; n2 knows none of them", takeover.sessions_on_victim));
        return Ok(());
    }
    wait_for(REPLICATION_TIMEOUT, || {
        let (own, remote) = (victim.local_sessions()?, survivor.remote_sessions()?);
        takeover.sessions_on_victim = own.len();
        takeover.sessions_on_survivor = own.keys().filter(|key| remote.contains_key(key)).count();
        Ok(takeover.sessions_on_survivor == takeover.sessions_on_victim)
    })?;
    narrator.say(&format!(
        "n1 holds {} sessions; {} of them are in n2's table of remote sessions",
        takeover.sessions_on_victim, takeover.sessions_on_survivor
    ));
    Ok(())
}

/// Kills the node and lets the router act when it would have noticed; returns when the kill was.
fn kill(stage: &Stage, narrator: &Narrator, takeover: &mut Takeover) -> Result<Instant> {
    let lab = stage.lab()?;
    let roles: Vec<Role> = Role::of(&lab).to_vec();
    let victims: Vec<String> =
        process_numbers(&lab, VICTIM)?.iter().map(|(role, pid)| format!("{role} (process {pid})")).collect();
    let killed = Instant::now();
    node::kill(&lab, VICTIM, &roles)?;
    narrator.say(&format!(
        "kill -9 after {} answered requests: n1's {}",
        takeover.answers_before,
        victims.join(" and ")
    ));
    pause(DETECTION.saturating_sub(killed.elapsed()))?;
    stage.announce_only(SURVIVOR)?;
    takeover.rerouted_after_ms = killed.elapsed().as_millis() as u64;
    narrator.say(&format!(
        "the router has noticed, after {} ms as with BFD, and sends n1's traffic to n2 ({} ms after the kill)",
        DETECTION.as_millis(),
        takeover.rerouted_after_ms
    ));
    Ok(killed)
}

/// Lets the connections go on, with a line every two seconds, until the time is over or nothing is left.
fn watch(narrator: &Narrator, plan: &Plan, crowd: &Crowd, killed: Instant) -> Result<()> {
    const LINE_EVERY: Duration = Duration::from_secs(2);
    let mut line = LINE_EVERY;
    while killed.elapsed() < plan.watch {
        pause(line.min(plan.watch).saturating_sub(killed.elapsed()))?;
        line += LINE_EVERY;
        let sum = crowd.sum()?;
        let waiting = sum.requests - sum.answers;
        narrator.say(&format!(
            "{:.0} s after the kill: {} connections not given up, {} lost; {} requests answered, {waiting} waiting",
            killed.elapsed().as_secs_f64(),
            sum.alive,
            sum.lost,
            sum.answers,
        ));
        if sum.alive == 0 {
            break;
        }
    }
    Ok(())
}

/// Counts the sessions of the killed node that the survivor has seen packets of since.
fn served(survivor: &Observer, plan: &Plan, since: Millis, takeover: &mut Takeover) -> Result<()> {
    if plan.sync {
        let sessions = survivor.remote_sessions()?;
        takeover.sessions_served = sessions.values().filter(|session| session.last_seen > since).count();
    }
    Ok(())
}

fn tell(narrator: &Narrator, takeover: &Takeover) {
    narrator.say(&format!(
        "connections before the kill {}, after {}, lost {}; longest pause that a client saw {:.0} ms",
        takeover.connections_before,
        takeover.connections_after,
        takeover.connections_lost,
        takeover.longest_pause_ms
    ));
    if takeover.sync {
        narrator.say(&format!(
            "n2 served {} sessions from its remote table, {} packets",
            takeover.sessions_served, takeover.packets_served
        ));
    } else {
        narrator.say(&format!(
            "n2 dropped {} packets of sessions unknown to it",
            takeover.packets_without_session
        ));
    }
    narrator.say(&database_words(&takeover.database));
}

/// What became of the MariaDB session, for people.
pub fn database_words(report: &database::Report) -> String {
    if report.committed {
        format!(
            "MariaDB: transaction committed, {} of {} rows found",
            report.rows_found, report.rows_inserted
        )
    } else {
        format!("MariaDB: transaction lost after {} rows", report.rows_inserted)
    }
}

impl Crowd {
    /// Opens everything and waits until it is whole.
    fn start(stage: &Stage, plan: &Plan) -> Result<Self> {
        let timeout = plan.timeout.as_millis().to_string();
        let http = |name: &str, target: SocketAddr, connections: u32| {
            let (target, connections) = (target.to_string(), connections.to_string());
            let interval = INTERVAL_MS.to_string();
            let arguments = [
                "http",
                "--target",
                &target,
                "--connections",
                &connections,
                "--interval-ms",
                &interval,
                "--timeout-ms",
                &timeout,
            ];
            Traffic::start(stage, name, &arguments)
        };
        let half = plan.connections / 2;
        let target = SocketAddr::from((VIP4, DATABASE_PORT)).to_string();
        let mut crowd = Crowd {
            http: vec![
                http("http4", (VIP4, HTTP_PORT).into(), plan.connections - half)?,
                http("http6", (VIP6, HTTP_PORT).into(), half)?,
            ],
            database: Traffic::start(
                stage,
                "database",
                &["db", "--target", &target, "--timeout-ms", &timeout],
            )?,
        };
        for traffic in crowd.http.iter_mut().chain([&mut crowd.database]) {
            traffic.wait_ready()?;
        }
        Ok(crowd)
    }

    /// The HTTP loads' reports as they stand, added up.
    fn sum(&self) -> Result<http::Report> {
        let mut sum = http::Report::default();
        for traffic in &self.http {
            sum.add(&traffic.report()?.context("an HTTP load has no report")?);
        }
        Ok(sum)
    }

    /// Ends everything and notes what came of it.
    fn end(self, plan: &Plan, takeover: &mut Takeover) -> Result<()> {
        let limit = plan.timeout + Duration::from_secs(10);
        for traffic in self.http.iter().chain([&self.database]) {
            traffic.call_off()?;
        }
        let mut sum = http::Report::default();
        for traffic in self.http {
            sum.add(&traffic.end(limit)?);
        }
        takeover.database = self.database.end(limit)?;
        takeover.connections_after = sum.alive;
        takeover.connections_lost = sum.lost;
        takeover.answers = sum.answers;
        takeover.longest_pause_ms = sum.longest_pause_ms.max(takeover.database.longest_pause_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Takeover {
        Takeover {
            sync: true,
            connections_before: 1000,
            connections_after: 1000,
            sessions_on_victim: 1001,
            sessions_on_survivor: 1001,
            sessions_served: 1001,
            packets_served: 5,
            database: database::Report {
                connected: true,
                rows_inserted: 70,
                committed: true,
                rows_found: 70,
                ..database::Report::default()
            },
            ..Takeover::default()
        }
    }

    #[test]
    fn nothing_lost_is_no_trouble() {
        assert_eq!(good().troubles(1000), Vec::<String>::new());
    }

    #[test]
    fn every_shortfall_is_a_trouble_of_its_own() {
        type Spoil = fn(&mut Takeover);
        let shortfalls: [(Spoil, &str); 5] = [
            (|t| t.connections_lost = 3, "3 connections were lost"),
            (|t| t.connections_after = 999, "999 of 1000 connections live"),
            (|t| t.sessions_on_survivor = 900, "n2 knew 900 of n1's 1001 sessions"),
            (|t| t.sessions_served = 5, "n2 served 5 of n1's 1001 sessions"),
            (|t| t.database.rows_found = 69, "69 of 70 rows were found"),
        ];
        for (spoil, expected) in shortfalls {
            let mut takeover = good();
            spoil(&mut takeover);
            assert_eq!(takeover.troubles(1000), [expected]);
        }
        assert_eq!(good().troubles(1200), ["1000 of 1200 connections were open before the kill"]);
    }
}
