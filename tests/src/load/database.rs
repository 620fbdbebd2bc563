//! Database load: one MariaDB session that inserts rows in a transaction, for as long as it is told, and commits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::pace::{self, Pace, milliseconds};

/// Rows that are inserted after the end was called and before the commit.
const ROWS_AFTER: u64 = 10;

/// What the database load is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Address and port of the service
    #[arg(long)]
    pub target: SocketAddr,
    /// Time between two inserts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub interval_ms: u64,
    /// A statement that takes longer loses the session
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
    #[command(flatten)]
    pub pace: pace::Limits,
}

/// What became of the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// If the session was opened.
    pub connected: bool,
    /// Rows inserted in the transaction.
    pub rows_inserted: u64,
    /// If the transaction was committed, in the session that began it.
    pub committed: bool,
    /// Rows that another session finds after the commit.
    pub rows_found: u64,
    /// Longest time that a statement took, milliseconds.
    pub longest_pause_ms: f64,
    /// Why it ended early.
    pub error: Option<String>,
    /// Time since the start, seconds.
    pub elapsed_s: f64,
}

impl Report {
    /// If the transaction was committed and every row is there.
    pub fn is_whole(&self) -> bool {
        self.committed && self.error.is_none() && self.rows_found == self.rows_inserted
    }
}

/// Runs the session to its end.
///
/// # Errors
/// If the client cannot be started; a lost session is no error but reported.
pub fn run(arguments: &Arguments) -> Result<Report> {
    let mut report = Report::default();
    let mut pace = Pace::start(&arguments.pace);
    let mut session = Session::start(arguments)?;
    if let Err(error) = transact(arguments, &mut session, &mut pace, &mut report) {
        report.error = Some(format!("{error:#}"));
    }
    report.longest_pause_ms = milliseconds(session.longest);
    report.elapsed_s = milliseconds(pace.elapsed()) / 1e3;
    pace.finish(&report)?;
    Ok(report)
}

fn transact(
    arguments: &Arguments,
    session: &mut Session,
    pace: &mut Pace,
    report: &mut Report,
) -> Result<()> {
    let id = session.one("SELECT CONNECTION_ID()")?;
    report.connected = true;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let table = format!("run_{}_{}", std::process::id(), now.as_nanos());
    session.ask(&format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY) ENGINE=InnoDB"))?;
    session.ask("START TRANSACTION")?;
    while !pace.is_over() {
        insert(session, &table, report)?;
        let elapsed_s = milliseconds(pace.elapsed()) / 1e3;
        let longest_pause_ms = milliseconds(session.longest);
        let now = || Report { elapsed_s, longest_pause_ms, ..report.clone() };
        pace.ready(now)?;
        pace.show(now)?;
        std::thread::sleep(Duration::from_millis(arguments.interval_ms));
    }
    for _ in 0..ROWS_AFTER {
        insert(session, &table, report)?;
    }
    // The same session still: one that was opened again would have another number and an empty transaction.
    let same = session.one("SELECT CONNECTION_ID()")?;
    if same != id {
        bail!("the session is another one: connection {same} instead of {id}");
    }
    session.ask("COMMIT")?;
    report.committed = true;
    let mut other = Session::start(arguments)?;
    report.rows_found = other.one(&format!("SELECT COUNT(*) FROM {table}"))?.parse()?;
    other.ask(&format!("DROP TABLE {table}"))?;
    Ok(())
}

fn insert(session: &mut Session, table: &str, report: &mut Report) -> Result<()> {
    session.ask(&format!("INSERT INTO {table} VALUES ({})", report.rows_inserted))?;
    report.rows_inserted += 1;
    Ok(())
}

/// A session of the MariaDB command-line client, which sends statements as they are written to it.
struct Session {
    client: Child,
    statements: Option<ChildStdin>,
    answers: Receiver<String>,
    timeout: Duration,
    asked: u64,
    longest: Duration,
}

impl Session {
    fn start(arguments: &Arguments) -> Result<Self> {
        let timeout = Duration::from_millis(arguments.timeout_ms);
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "--protocol=tcp", "--user=lab", "--database=lab"])
            .args(["--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect"])
            .arg(format!("--host={}", arguments.target.ip()))
            .arg(format!("--port={}", arguments.target.port()))
            .arg(format!("--connect-timeout={}", timeout.as_secs().max(1)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start mariadb, the command-line client; tests/install-deps installs it")?;
        let statements = client.stdin.take();
        let output = client.stdout.take().context("no output of the client")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { client, statements, answers, timeout, asked: 0, longest: Duration::ZERO })
    }

    /// Executes a statement and returns the lines of its result.
    fn ask(&mut self, statement: &str) -> Result<Vec<String>> {
        let begun = Instant::now();
        self.asked += 1;
        let mark = format!("answered {}", self.asked);
        let text = format!("{statement};\nSELECT '{mark}';\n");
        let pipe = self.statements.as_mut().context("the client is closed")?;
        let written = pipe.write_all(text.as_bytes()).and_then(|()| pipe.flush());
        let mut lines = Vec::new();
        let result = loop {
            if written.is_err() {
                break Err(anyhow!("the client ended"));
            }
            match self.answers.recv_timeout(self.timeout.saturating_sub(begun.elapsed())) {
                Ok(line) if line == mark => break Ok(lines),
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Timeout) => break Err(anyhow!("no answer within {:?}", self.timeout)),
                Err(RecvTimeoutError::Disconnected) => break Err(anyhow!("the client ended")),
            }
        };
        self.longest = self.longest.max(begun.elapsed());
        result.map_err(|error| error.context(self.last_words())).with_context(|| statement.to_owned())
    }

    /// Executes a statement whose result is one value.
    fn one(&mut self, statement: &str) -> Result<String> {
        let lines = self.ask(statement)?;
        lines.into_iter().next().with_context(|| format!("`{statement}` has no result"))
    }

    /// Ends the client and returns what it complained of.
    fn last_words(&mut self) -> String {
        self.statements = None;
        self.client.kill().ok();
        let mut words = String::new();
        if let Some(errors) = self.client.stderr.take() {
            errors.take(4096).read_to_string(&mut words).ok();
        }
        self.client.wait().ok();
        words.trim().to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.statements = None;
        self.client.kill().ok();
        self.client.wait().ok();
    }
}
