//! UDP load: numbered datagrams in many flows to an echo service, each answer accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::datagram::{BYTES, Datagram};
use super::pace::{self, Pace, milliseconds};
use crate::socket;

/// How long after the last question answers are waited for.
const LINGER: Duration = Duration::from_secs(2);
/// Most datagrams sent before answers are looked at again.
const BURST_MAX: u64 = 64;

/// What the UDP load is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Address and port of the service
    #[arg(long)]
    pub target: SocketAddr,
    /// Flows: client ports
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub flows: u32,
    /// Datagrams a second, over all flows
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// After so many datagrams a flow goes on from another client port, which makes it a new session; 0: never
    #[arg(long, default_value_t = 0)]
    pub renew_after: u64,
    #[command(flatten)]
    pub pace: pace::Limits,
}

/// What became of the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Flows that sent.
    pub flows: u32,
    /// Flows that were ever answered.
    pub flows_answered: u32,
    /// Flows whose answers to one client port came from more than one server process.
    pub flows_moved: u32,
    /// Times that a flow went on from another client port.
    pub flows_renewed: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams answered.
    pub answered: u64,
    /// Datagrams without an answer; before the end, those under way count here too.
    pub lost: u64,
    /// Answers that came more than once.
    pub doubled: u64,
    /// Answers that are none: foreign or damaged.
    pub foreign: u64,
    /// Datagrams that could not be sent; they count neither as sent nor as lost.
    pub send_errors: u64,
    /// Longest time between two answers of a flow, milliseconds. In an undisturbed load it is about `flows / rate`.
    pub longest_gap_ms: f64,
    /// When that gap began, seconds since the start.
    pub longest_gap_at_s: f64,
    /// Longest time from a datagram to its answer, milliseconds.
    pub longest_round_trip_ms: f64,
    /// When the first and the last of the lost datagrams were sent, seconds since the start.
    pub lost_between_s: Option<(f64, f64)>,
    /// Answers by server process.
    pub instances: BTreeMap<String, u64>,
    /// Time since the start, seconds.
    pub elapsed_s: f64,
}

impl Report {
    /// If every datagram of every flow was answered, once, by one server process.
    pub fn is_whole(&self) -> bool {
        self.lost == 0
            && self.flows_answered == self.flows
            && self.flows_moved == 0
            && self.doubled == 0
            && self.foreign == 0
            && self.send_errors == 0
    }
}

/// Runs the load to its end.
///
/// # Errors
/// If sockets or files cannot be made; a lost datagram is no error but counted.
pub fn run(arguments: &Arguments) -> Result<Report> {
    let mut load = Load::new(arguments)?;
    while !load.pace.is_over() {
        load.send_due()?;
        load.step(Duration::from_millis(1))?;
        if !load.pace.is_ready() && load.flows.iter().all(|flow| flow.answered > 0) {
            let started = load.pace.started();
            load.pace.ready(|| report(&load.flows, &load.counts, started))?;
        }
    }
    let deadline = Instant::now() + LINGER;
    while Instant::now() < deadline && load.flows.iter().any(|flow| !flow.open.is_empty()) {
        load.step(Duration::from_millis(10))?;
    }
    let report = report(&load.flows, &load.counts, load.pace.started());
    load.pace.finish(&report)?;
    Ok(report)
}

struct Flow {
    socket: UdpSocket,
    next: u64,
    answered: u64,
    /// Questions without an answer, by their number.
    open: BTreeMap<u64, Instant>,
    /// The server processes that answered the socket.
    instances: BTreeSet<u64>,
    moved: bool,
    last_answer: Option<Instant>,
    longest_gap: Option<(Duration, Instant)>,
}

/// What is counted over all flows.
#[derive(Default)]
struct Counts {
    renewed: u64,
    sent: u64,
    doubled: u64,
    foreign: u64,
    send_errors: u64,
    longest_round_trip: Duration,
    instances: BTreeMap<u64, u64>,
}

struct Load<'a> {
    arguments: &'a Arguments,
    poll: Poll,
    events: Events,
    flows: Vec<Flow>,
    counts: Counts,
    /// Datagrams that were due until now, sent or not.
    turns: u64,
    pace: Pace,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        let poll = Poll::new()?;
        let mut flows = Vec::new();
        for number in 0..arguments.flows as usize {
            flows.push(Flow {
                socket: open(arguments.target, &poll, number)?,
                next: 0,
                answered: 0,
                open: BTreeMap::new(),
                instances: BTreeSet::new(),
                moved: false,
                last_answer: None,
                longest_gap: None,
            });
        }
        Ok(Self {
            arguments,
            poll,
            events: Events::with_capacity(1024),
            flows,
            counts: Counts::default(),
            turns: 0,
            pace: Pace::start(&arguments.pace),
        })
    }

    /// Sends what the rate asks for, flow by flow.
    fn send_due(&mut self) -> Result<()> {
        let due = (self.pace.elapsed().as_nanos() * u128::from(self.arguments.rate) / 1_000_000_000) as u64;
        for _ in 0..due.saturating_sub(self.turns).min(BURST_MAX) {
            let index = (self.turns % self.flows.len() as u64) as usize;
            self.turns += 1;
            self.renew_if_due(index)?;
            let flow = &mut self.flows[index];
            let sent_ns = self.pace.elapsed().as_nanos() as u64;
            let question = Datagram { flow: index as u32, sequence: flow.next, sent_ns, instance: 0 };
            match flow.socket.send(&question.encode()) {
                Ok(_) => {
                    flow.open.insert(flow.next, Instant::now());
                    flow.next += 1;
                    self.counts.sent += 1;
                }
                Err(_) => self.counts.send_errors += 1,
            }
        }
        Ok(())
    }

    /// Gives a flow another client port, if it has sent enough from its own and waits for no answer any more.
    fn renew_if_due(&mut self, index: usize) -> Result<()> {
        let flow = &mut self.flows[index];
        // Each flow counts from another number, so that new sessions come evenly.
        let due =
            (flow.next + index as u64).checked_rem(self.arguments.renew_after) == Some(0) && flow.next > 0;
        if due && flow.open.values().all(|asked| asked.elapsed() > LINGER) {
            self.poll.registry().deregister(&mut flow.socket)?;
            flow.socket = open(self.arguments.target, &self.poll, index)?;
            flow.instances.clear();
            self.counts.renewed += 1;
        }
        Ok(())
    }

    /// Waits for answers and takes them.
    fn step(&mut self, timeout: Duration) -> Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            receive(&mut self.flows[index], index as u32, &mut self.counts);
        }
        let (flows, counts) = (&self.flows, &self.counts);
        let started = self.pace.started();
        self.pace.show(|| report(flows, counts, started))
    }
}

/// A socket for flow `number`, from a port that the system chooses.
fn open(target: SocketAddr, poll: &Poll, number: usize) -> Result<UdpSocket> {
    let any =
        if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut socket = socket::bind_udp(SocketAddr::new(any, 0)).context("a UDP socket")?;
    socket.connect(target).with_context(|| format!("no way to {target}"))?;
    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
    Ok(socket)
}

/// Takes all answers that have arrived for a flow.
fn receive(flow: &mut Flow, number: u32, counts: &mut Counts) {
    let mut buffer = [0; BYTES + 1];
    loop {
        let length = match flow.socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // An ICMP error for an earlier question, which stays without an answer and is counted as lost.
            Err(_) => continue,
        };
        match Datagram::decode(&buffer[..length]) {
            Some(answer) if answer.flow == number && answer.sequence < flow.next && answer.instance != 0 => {
                take_answer(flow, &answer, counts);
            }
            _ => counts.foreign += 1,
        }
    }
}

fn take_answer(flow: &mut Flow, answer: &Datagram, counts: &mut Counts) {
    let Some(asked) = flow.open.remove(&answer.sequence) else {
        counts.doubled += 1;
        return;
    };
    let now = Instant::now();
    counts.longest_round_trip = counts.longest_round_trip.max(now - asked);
    flow.answered += 1;
    flow.instances.insert(answer.instance);
    flow.moved |= flow.instances.len() > 1;
    *counts.instances.entry(answer.instance).or_default() += 1;
    if let Some(last) = flow.last_answer {
        flow.longest_gap = flow.longest_gap.max(Some((now - last, last)));
    }
    flow.last_answer = Some(now);
}

fn report(flows: &[Flow], counts: &Counts, started: Instant) -> Report {
    let seconds = |at: Instant| milliseconds(at.saturating_duration_since(started)) / 1e3;
    let lost_at = || flows.iter().flat_map(|flow| flow.open.values());
    // The gap that goes on counts while something is unanswered.
    let open_gap = |flow: &Flow| {
        let last = flow.last_answer.filter(|_| !flow.open.is_empty())?;
        Some((last.elapsed(), last))
    };
    let longest_gap = flows.iter().flat_map(|flow| flow.longest_gap.into_iter().chain(open_gap(flow))).max();
    Report {
        flows: flows.len() as u32,
        flows_answered: flows.iter().filter(|flow| flow.answered > 0).count() as u32,
        flows_moved: flows.iter().filter(|flow| flow.moved).count() as u32,
        flows_renewed: counts.renewed,
        sent: counts.sent,
        answered: flows.iter().map(|flow| flow.answered).sum(),
        lost: flows.iter().map(|flow| flow.open.len() as u64).sum(),
        doubled: counts.doubled,
        foreign: counts.foreign,
        send_errors: counts.send_errors,
        longest_gap_ms: longest_gap.map_or(0.0, |(gap, _)| milliseconds(gap)),
        longest_gap_at_s: longest_gap.map_or(0.0, |(_, at)| seconds(at)),
        longest_round_trip_ms: milliseconds(counts.longest_round_trip),
        lost_between_s: lost_at()
            .min()
            .zip(lost_at().max())
            .map(|(first, last)| (seconds(*first), seconds(*last))),
        instances: counts
            .instances
            .iter()
            .map(|(instance, count)| (format!("{instance:016x}"), *count))
            .collect(),
        elapsed_s: milliseconds(started.elapsed()) / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdUdpSocket;

    use super::*;
    use crate::load::datagram;

    /// What a test server does with question number `sequence`: how often it answers and as which instance.
    type Conduct = fn(&Datagram) -> (usize, u64);

    fn load(conduct: Conduct) -> Report {
        load_with(0, conduct)
    }

    fn load_with(renew_after: u64, conduct: Conduct) -> Report {
        let server = StdUdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        // Ends with the test process.
        std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while let Ok((length, peer)) = server.recv_from(&mut buffer) {
                let (times, instance) = conduct(&Datagram::decode(&buffer[..length]).unwrap());
                datagram::sign(&mut buffer[..length], instance);
                for _ in 0..times {
                    server.send_to(&buffer[..length], peer).unwrap();
                }
            }
        });
        let pace = pace::Limits {
            seconds: 1,
            until_file: None,
            ready_file: None,
            report_file: None,
            progress: false,
        };
        run(&Arguments { target, flows: 10, rate: 500, renew_after, pace }).unwrap()
    }

    #[test]
    fn every_answered_datagram_is_accounted_for() {
        let report = load(|_| (1, 7));
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((report.flows_answered, report.sent), (10, report.answered));
        assert_eq!(report.instances.values().sum::<u64>(), report.answered);
    }

    #[test]
    fn a_renewed_flow_may_be_answered_by_another_server() {
        // Ports change after 10 datagrams, servers too.
        let report = load_with(10, |question| (1, 7 + (question.sequence + u64::from(question.flow)) / 10));
        assert!(report.is_whole(), "{report:?}");
        assert!((10..=50).contains(&report.flows_renewed), "{report:?}");
    }

    #[test]
    fn an_unanswered_datagram_is_lost_and_makes_a_gap() {
        // One flow in the middle of its life.
        let report =
            load(|question| (usize::from(question.flow != 3 || !(5..15).contains(&question.sequence)), 7));
        assert_eq!((report.lost, report.doubled, report.flows_moved), (10, 0, 0), "{report:?}");
        assert_eq!(report.sent, report.answered + 10);
        assert!(report.longest_gap_ms >= 200.0 && report.lost_between_s.is_some(), "{report:?}");
    }

    #[test]
    fn a_doubled_answer_is_counted_once() {
        let report = load(|question| (1 + usize::from(question.flow == 0 && question.sequence == 2), 7));
        assert_eq!((report.lost, report.doubled), (0, 1), "{report:?}");
        assert_eq!(report.sent, report.answered);
    }

    #[test]
    fn a_flow_that_another_server_answers_has_moved() {
        let report = load(|question| (1, if question.flow == 4 && question.sequence > 10 { 8 } else { 7 }));
        assert_eq!((report.lost, report.flows_moved), (0, 1), "{report:?}");
        assert!(!report.is_whole());
    }
}
