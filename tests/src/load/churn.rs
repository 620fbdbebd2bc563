//! Connections that come and go: opened at a steady rate, a few requests in each, then closed in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};

use super::http::connection::{Connection, Loss, Progress};
use super::pace::{self, Pace, milliseconds};

/// How often connections are looked at for an answer that does not come.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the load is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Address and port of the service
    #[arg(long)]
    pub target: SocketAddr,
    /// Connections opened in a second
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub rate: u32,
    /// Requests in each connection
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub requests: u32,
    /// Time between two requests of a connection
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub interval_ms: u64,
    /// A connection whose answer, or whose end, takes longer is lost
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    #[command(flatten)]
    pub pace: pace::Limits,
}

/// What became of the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Connections that were begun.
    pub begun: u32,
    /// Connections that were opened.
    pub opened: u32,
    /// Opened connections that got every answer and were closed by both sides.
    pub closed: u32,
    /// Opened connections that still go on; none at the end.
    pub under_way: u32,
    /// Opened connections that were lost.
    pub lost: u32,
    /// The lost ones by reason.
    pub reasons: BTreeMap<String, u32>,
    /// Connections that could not be opened.
    pub not_opened: u32,
    /// Requests answered.
    pub answers: u64,
    /// Longest time that any connection waited for an answer or its end, milliseconds.
    pub longest_pause_ms: f64,
    /// Time since the start, seconds.
    pub elapsed_s: f64,
    /// When each opened connection was open, milliseconds since 1970. At the end only.
    pub opened_at_ms: Vec<f64>,
    /// The lost connections. At the end only.
    pub losses: Vec<LostConnection>,
}

/// A connection that was open and is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LostConnection {
    /// The client's address and port.
    pub client: Option<SocketAddr>,
    /// When it was open, milliseconds since 1970.
    pub opened_at_ms: f64,
    /// When its loss was noticed, milliseconds since 1970.
    pub lost_at_ms: f64,
    /// Requests that had been answered.
    pub answers: u64,
    /// Why it is lost.
    pub reason: String,
}

impl Report {
    /// If every connection was opened and came to its end in order.
    pub fn is_whole(&self) -> bool {
        self.begun > 0 && self.closed == self.begun
    }
}

/// Runs the load to its end, which comes when every connection has ended.
///
/// # Errors
/// If sockets or files cannot be made; a lost connection is no error but counted.
pub fn run(arguments: &Arguments) -> Result<Report> {
    let mut load = Load::new(arguments)?;
    while !load.pace.is_over() {
        load.begin_due()?;
        load.step()?;
    }
    let life = Duration::from_millis(arguments.interval_ms) * arguments.requests;
    let deadline =
        Instant::now() + life + 2 * Duration::from_millis(arguments.timeout_ms) + Duration::from_secs(1);
    while !load.live.is_empty() && Instant::now() < deadline {
        load.step()?;
    }
    load.look_at_all(Duration::ZERO);
    let report = load.report(true);
    load.pace.finish(&report)?;
    Ok(report)
}

/// A connection, its client's address and port, and what happened to it when.
struct Guest {
    connection: Connection,
    client: Option<SocketAddr>,
    opened_at: Option<SystemTime>,
    lost_at: Option<SystemTime>,
}

struct Load<'a> {
    arguments: &'a Arguments,
    poll: Poll,
    guests: Vec<Guest>,
    /// Those that have not ended.
    live: Vec<usize>,
    /// When which connection sends its next request, or closes.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    pace: Pace,
    looked: Instant,
    asked: u64,
}

impl<'a> Load<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        Ok(Self {
            arguments,
            poll: Poll::new()?,
            guests: Vec::new(),
            live: Vec::new(),
            due: BinaryHeap::new(),
            pace: Pace::start(&arguments.pace),
            looked: Instant::now(),
            asked: 0,
        })
    }

    /// Begins the connections that should have been begun by now.
    fn begin_due(&mut self) -> Result<()> {
        let wanted = self.pace.elapsed().as_secs_f64() * f64::from(self.arguments.rate);
        while (self.guests.len() as f64) < wanted {
            let index = self.guests.len();
            let mut connection = Connection::open(self.arguments.target);
            if let Some(stream) = &mut connection.stream {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(stream, Token(index), interest)?;
            }
            self.guests.push(Guest { connection, client: None, opened_at: None, lost_at: None });
            self.live.push(index);
        }
        Ok(())
    }

    /// Waits for something to happen and deals with it.
    fn step(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(Duration::from_millis(1))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            self.advance(event.token().0);
        }
        let now = Instant::now();
        while let Some(Reverse((at, index))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            self.go_on(index);
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = now;
            self.look_at_all(Duration::from_millis(self.arguments.timeout_ms));
            let one_is_through = self.guests.iter().any(|guest| guest.connection.was_closed);
            if one_is_through && !self.pace.is_ready() {
                let report = self.report(false);
                self.pace.ready(|| report)?;
            }
        }
        let (guests, started) = (&self.guests, self.pace.started());
        self.pace.show(|| report(guests, started))
    }

    fn advance(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        match guest.connection.advance() {
            Progress::Nothing | Progress::Closed => {}
            Progress::Opened => {
                guest.opened_at = Some(SystemTime::now());
                guest.client = guest.connection.stream.as_ref().and_then(|stream| stream.local_addr().ok());
                self.go_on(index);
            }
            Progress::Answered { asked } => {
                let pause = Duration::from_millis(self.arguments.interval_ms);
                self.due.push(Reverse((asked + pause, index)));
            }
        }
    }

    /// Asks once more, or closes if that is enough.
    fn go_on(&mut self, index: usize) {
        let connection = &mut self.guests[index].connection;
        if connection.answers < u64::from(self.arguments.requests) {
            self.asked += 1;
            connection.ask(self.asked);
        } else {
            connection.close();
        }
    }

    /// Gives up what waits for longer than `limit`, and forgets what has ended.
    fn look_at_all(&mut self, limit: Duration) {
        let guests = &mut self.guests;
        self.live.retain(|&index| {
            let Guest { connection, lost_at, .. } = &mut guests[index];
            if connection.waits_since().is_some_and(|since| since.elapsed() >= limit) {
                connection.lose(Loss::Timeout);
            }
            if connection.loss.is_some() {
                *lost_at = Some(SystemTime::now());
            }
            connection.loss.is_none() && !connection.was_closed
        });
    }

    fn report(&self, with_times: bool) -> Report {
        let mut report = report(&self.guests, self.pace.started());
        if with_times {
            let opened_at = |guest: &Guest| guest.opened_at.map(unix_ms);
            report.opened_at_ms = self.guests.iter().filter_map(opened_at).collect();
            report.losses = self.guests.iter().filter_map(Guest::as_lost).collect();
        }
        report
    }
}

impl Guest {
    fn as_lost(&self) -> Option<LostConnection> {
        Some(LostConnection {
            reason: reason(self.connection.loss?),
            client: self.client,
            opened_at_ms: unix_ms(self.opened_at?),
            lost_at_ms: self.lost_at.map_or(0.0, unix_ms),
            answers: self.connection.answers,
        })
    }
}

fn reason(loss: Loss) -> String {
    format!("{loss:?}").to_lowercase()
}

fn report(guests: &[Guest], started: Instant) -> Report {
    let mut report = Report {
        begun: guests.len() as u32,
        elapsed_s: milliseconds(started.elapsed()) / 1e3,
        ..Report::default()
    };
    for Guest { connection, .. } in guests {
        report.opened += u32::from(connection.was_opened);
        report.answers += connection.answers;
        match connection.loss {
            Some(_) if !connection.was_opened => report.not_opened += 1,
            Some(loss) => {
                report.lost += 1;
                *report.reasons.entry(reason(loss)).or_default() += 1;
            }
            None if connection.was_closed => report.closed += 1,
            None => report.under_way += u32::from(connection.was_opened),
        }
        report.longest_pause_ms = report.longest_pause_ms.max(milliseconds(connection.longest_pause().0));
    }
    report
}

fn unix_ms(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, milliseconds)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A server on the loopback that closes every fourth connection after its first answer. Ends with the test process.
    fn server(closes_some: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answers = if closes_some && number % 4 == 3 { 1 } else { usize::MAX };
                std::thread::spawn(move || serve(stream.unwrap(), answers));
            }
        });
        address
    }

    fn serve(stream: TcpStream, answers: usize) {
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| {
            Some(line.strip_prefix("GET /?n=")?.split(' ').next()?.parse::<u64>().unwrap())
        });
        for number in numbers.take(answers) {
            let body = format!("s1 {number}\n");
            write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    }

    fn load(target: SocketAddr) -> Report {
        let pace = pace::Limits {
            seconds: 1,
            until_file: None,
            ready_file: None,
            report_file: None,
            progress: false,
        };
        run(&Arguments { target, rate: 50, requests: 3, interval_ms: 10, timeout_ms: 500, pace }).unwrap()
    }

    #[test]
    fn every_connection_comes_to_its_end_in_order() {
        let report = load(server(false));
        assert!(report.is_whole() && report.begun >= 40, "{report:?}");
        assert_eq!(
            (report.opened, report.lost, report.not_opened, report.under_way),
            (report.begun, 0, 0, 0)
        );
        assert_eq!(report.answers, u64::from(report.begun) * 3);
        assert_eq!(report.opened_at_ms.len(), report.opened as usize);
        assert!(report.losses.is_empty());
    }

    #[test]
    fn a_connection_that_the_server_closes_early_is_lost() {
        let report = load(server(true));
        assert!(!report.is_whole() && report.lost >= 10, "{report:?}");
        assert_eq!(report.lost + report.closed, report.begun);
        assert_eq!(report.losses.len(), report.lost as usize);
        for loss in &report.losses {
            assert!(report.opened_at_ms.contains(&loss.opened_at_ms) && loss.client.is_some(), "{loss:?}");
            assert!(loss.lost_at_ms >= loss.opened_at_ms && loss.answers == 1, "{loss:?}");
            assert_eq!(loss.reason, "closed");
        }
    }

    #[test]
    fn connections_that_nobody_accepts_are_not_opened_and_not_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let report = load(address);
        assert_eq!((report.opened, report.lost), (0, 0), "{report:?}");
        assert!(report.not_opened == report.begun && !report.is_whole());
    }
}
