//! HTTP load: many connections that stay open, one request after another in each, none tried again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::pace::{self, Pace, milliseconds};
use crate::load::http::connection::{Connection, Loss, Progress};
use crate::random::Random;

pub mod connection;

/// Connections that are being opened at a time, so that no listen queue overflows.
const OPENING_MAX: usize = 100;
/// How often connections are looked at for an answer that does not come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the HTTP load is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Address and port of the service
    #[arg(long)]
    pub target: SocketAddr,
    /// Connections to keep open
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub connections: u32,
    /// Time between two requests of a connection
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub interval_ms: u64,
    /// A connection whose answer takes longer is lost
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    #[command(flatten)]
    pub pace: pace::Limits,
}

/// What became of the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections that were wanted.
    pub connections: u32,
    /// Connections that were opened.
    pub opened: u32,
    /// Opened connections that live; at the end: that answered their last request.
    pub alive: u32,
    /// Opened connections that were lost, for any of the reasons that follow.
    pub lost: u32,
    /// Lost to a RST or another error of the socket.
    pub lost_reset: u32,
    /// Lost because the other side closed.
    pub lost_closed: u32,
    /// Lost because no answer came in time.
    pub lost_timeout: u32,
    /// Lost because the answer was another request's, another server's or damaged.
    pub lost_wrong: u32,
    /// Connections that could not be opened.
    pub not_opened: u32,
    /// Requests sent.
    pub requests: u64,
    /// Requests answered.
    pub answers: u64,
    /// Longest time that any connection waited for an answer, milliseconds.
    pub longest_pause_ms: f64,
    /// When the request of that pause was sent, seconds since the start.
    pub longest_pause_at_s: f64,
    /// Opened connections by the server that answers them.
    pub servers: BTreeMap<String, u32>,
    /// Time since the start, seconds.
    pub elapsed_s: f64,
}

impl Report {
    /// If every connection was opened and none lost.
    pub fn is_whole(&self) -> bool {
        self.alive == self.connections && self.lost == 0
    }

    /// Adds another load's report to this one.
    pub fn add(&mut self, other: &Report) {
        self.connections += other.connections;
        self.opened += other.opened;
        self.alive += other.alive;
        self.lost += other.lost;
        self.lost_reset += other.lost_reset;
        self.lost_closed += other.lost_closed;
        self.lost_timeout += other.lost_timeout;
        self.lost_wrong += other.lost_wrong;
        self.not_opened += other.not_opened;
        self.requests += other.requests;
        self.answers += other.answers;
        if other.longest_pause_ms > self.longest_pause_ms {
            self.longest_pause_ms = other.longest_pause_ms;
            self.longest_pause_at_s = other.longest_pause_at_s;
        }
        for (server, connections) in &other.servers {
            *self.servers.entry(server.clone()).or_default() += connections;
        }
        self.elapsed_s = self.elapsed_s.max(other.elapsed_s);
    }
}

/// Runs the load to its end.
///
/// # Errors
/// If sockets or files cannot be made; a lost connection is no error but counted.
pub fn run(arguments: &Arguments) -> Result<Report> {
    let mut load = Load::new(arguments)?;
    while !load.pace.is_over() && !load.nothing_left() {
        load.open_some()?;
        load.step(true)?;
    }
    // The answers that are under way decide which connections live.
    load.ending = true;
    let deadline = Instant::now() + Duration::from_millis(arguments.timeout_ms) + LOOK_EVERY;
    while load.waiting() > 0 && Instant::now() < deadline {
        load.step(false)?;
    }
    load.look_for_timeouts();
    let report = load.report();
    load.pace.finish(&report)?;
    Ok(report)
}

struct Load<'a> {
    arguments: &'a Arguments,
    poll: Poll,
    connections: Vec<Connection>,
    /// When which connection sends its next request.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    random: Random,
    pace: Pace,
    looked: Instant,
    requests: u64,
    ending: bool,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        Ok(Self {
            arguments,
            poll: Poll::new()?,
            connections: Vec::new(),
            due: BinaryHeap::new(),
            random: Random::new(1),
            pace: Pace::start(&arguments.pace),
            looked: Instant::now(),
            requests: 0,
            ending: false,
        })
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(self.arguments.interval_ms)
    }

    fn waiting(&self) -> usize {
        self.connections.iter().filter(|connection| connection.waits_since().is_some()).count()
    }

    /// If every connection is lost: nothing more will happen.
    fn nothing_left(&self) -> bool {
        self.connections.len() == self.arguments.connections as usize
            && self.connections.iter().all(|connection| connection.loss.is_some())
    }

    /// Opens connections until all are there or enough are on their way.
    fn open_some(&mut self) -> Result<()> {
        let wanted = self.arguments.connections as usize;
        if self.connections.len() == wanted {
            return Ok(());
        }
        let mut opening = self.connections.iter().filter(|connection| connection.is_opening()).count();
        while self.connections.len() < wanted && opening < OPENING_MAX {
            let token = Token(self.connections.len());
            let mut connection = Connection::open(self.arguments.target);
            if let Some(stream) = &mut connection.stream {
                self.poll.registry().register(stream, token, Interest::READABLE | Interest::WRITABLE)?;
            }
            self.connections.push(connection);
            opening += 1;
        }
        Ok(())
    }

    /// Waits for something to happen and deals with it.
    fn step(&mut self, sending: bool) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        let next = self.due.peek().map(|Reverse((at, _))| at.saturating_duration_since(Instant::now()));
        // Below a millisecond epoll does not wait at all; a request that late harms nobody.
        let timeout = next.unwrap_or(LOOK_EVERY).clamp(Duration::from_millis(1), Duration::from_millis(10));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            self.advance(event.token().0);
        }
        if sending {
            self.send_due();
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look_for_timeouts();
            let whole = |connection: &Connection| connection.answers > 0 && connection.loss.is_none();
            let all = self.connections.len() == self.arguments.connections as usize;
            if !self.pace.is_ready() && all && self.connections.iter().all(whole) {
                let whole = self.report();
                self.pace.ready(|| whole)?;
            }
        }
        let (connections, requests, arguments) = (&self.connections, self.requests, self.arguments);
        let started = self.pace.started();
        self.pace.show(|| report(arguments, connections, requests, started))
    }

    /// Deals with what happened to a connection's socket.
    fn advance(&mut self, index: usize) {
        match self.connections[index].advance() {
            Progress::Nothing | Progress::Closed => {}
            Progress::Opened if self.ending => {}
            Progress::Opened => self.send(index),
            Progress::Answered { asked } => {
                // The first pause is of random length, so that the connections do not ask all at once for ever.
                let first = self.connections[index].answers == 1;
                let share = (self.random.next() % 1000) as u32;
                let pause = if first { self.interval() * share / 1000 } else { self.interval() };
                self.due.push(Reverse((asked + pause, index)));
            }
        }
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((at, index))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            self.send(index);
        }
    }

    fn send(&mut self, index: usize) {
        self.requests += 1;
        self.connections[index].ask(self.requests);
    }

    fn look_for_timeouts(&mut self) {
        let limit = Duration::from_millis(self.arguments.timeout_ms);
        for connection in &mut self.connections {
            if connection.waits_since().is_some_and(|since| since.elapsed() >= limit) {
                connection.lose(Loss::Timeout);
            }
        }
    }

    fn report(&self) -> Report {
        report(self.arguments, &self.connections, self.requests, self.pace.started())
    }
}

fn report(arguments: &Arguments, connections: &[Connection], requests: u64, started: Instant) -> Report {
    let mut report = Report {
        connections: arguments.connections,
        requests,
        elapsed_s: milliseconds(started.elapsed()) / 1e3,
        ..Report::default()
    };
    let mut longest = (Duration::ZERO, started);
    for connection in connections {
        report.opened += u32::from(connection.was_opened);
        report.answers += connection.answers;
        match connection.loss {
            None => report.alive += u32::from(connection.was_opened),
            Some(_) if !connection.was_opened => report.not_opened += 1,
            Some(loss) => {
                report.lost += 1;
                *match loss {
                    Loss::Reset => &mut report.lost_reset,
                    Loss::Closed => &mut report.lost_closed,
                    Loss::Timeout => &mut report.lost_timeout,
                    Loss::Wrong => &mut report.lost_wrong,
                } += 1;
            }
        }
        if let Some(server) = &connection.server {
            *report.servers.entry(server.clone()).or_default() += 1;
        }
        longest = longest.max(connection.longest_pause());
    }
    report.longest_pause_ms = milliseconds(longest.0);
    report.longest_pause_at_s = milliseconds(longest.1.saturating_duration_since(started)) / 1e3;
    report
}

#[cfg(test)]
mod tests;
