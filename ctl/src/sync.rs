//! `batonctl sync`: how far this node is, and what an operator wants of it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use baton_common::config::Config;
use baton_common::control::{CallError, Callee, Client, Request, SuccessionStatus, SyncStatus};
use baton_common::id::NumaId;
use serde::Serialize;

use crate::arguments::SyncCommand;
use crate::report::{Report, lines, table};

/// How long a secondary may take to answer.
const SECONDARY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a successor is asked.
const SUCCESSOR_POLL: Duration = Duration::from_millis(5);

/// How long a hand-over may take: a successor is given 30 seconds to be ready.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(45);

/// How far the node is, by each of its secondaries.
#[derive(Debug, Serialize)]
pub struct SyncReport {
    /// One for each sync domain.
    domains: Vec<DomainRow>,
}

#[derive(Debug, Serialize)]
struct DomainRow {
    numa: NumaId,
    pid: u32,
    state: &'static str,
    alarm: bool,
    member: bool,
    sessions_owned: u32,
    peers: usize,
    /// How it came to its part, and what became of those that were to succeed it.
    succession: SuccessionStatus,
}

/// Connects to the secondary of a NUMA node.
pub fn secondary(config: &Config, numa: NumaId) -> Result<Client, CallError> {
    Client::connect(&config.paths.runtime, Callee::Secondary(numa), SECONDARY_TIMEOUT)
}

/// How each secondary of the node is that answers.
pub fn statuses(config: &Config) -> Vec<SyncStatus> {
    let domains = config.sync.domains.iter();
    domains.filter_map(|domain| secondary(config, domain.numa).ok()?.sync_status().ok()).collect()
}

/// Has every secondary do what is asked, and reports how each then is.
pub fn run(command: SyncCommand, config: &Config) -> Result<SyncReport> {
    let request = match command {
        SyncCommand::Show => None,
        SyncCommand::Drain => Some(Request::SyncDrain { draining: true }),
        SyncCommand::Resume => Some(Request::SyncDrain { draining: false }),
        SyncCommand::Accept => Some(Request::SyncAccept),
        SyncCommand::Keys => Some(Request::SyncKeys),
        SyncCommand::HandOver { numa } => return hand_over(config, numa.map(NumaId)),
    };
    let mut domains = Vec::new();
    for domain in &config.sync.domains {
        let mut client = secondary(config, domain.numa)?;
        if let Some(request) = &request {
            client.have_done(request)?;
        }
        domains.push(DomainRow::new(&client.sync_status()?));
    }
    Ok(SyncReport { domains })
}

impl DomainRow {
    fn new(status: &SyncStatus) -> DomainRow {
        DomainRow {
            numa: status.numa,
            pid: status.pid,
            state: status.state.name(),
            alarm: status.alarm,
            member: status.member,
            sessions_owned: status.sessions_owned,
            peers: status.peers.len(),
            succession: status.succession.clone(),
        }
    }

    /// What an operator should know of how it came to its part.
    fn came(&self) -> Option<String> {
        let silence_ms = self.succession.silence_us? as f64 / 1000.0;
        let how = if self.succession.handed_over { "handed over" } else { "started" };
        Some(format!("{how} after {silence_ms:.1} ms of silence"))
    }
}

/// Has the secondaries hand over, all or that of one NUMA node, one after the other.
fn hand_over(config: &Config, numa: Option<NumaId>) -> Result<SyncReport> {
    let domains = config.sync.domains.iter().map(|domain| domain.numa);
    let mut rows = Vec::new();
    for number in domains.filter(|number| numa.is_none_or(|wanted| wanted == *number)) {
        let mut old = Client::connect(&config.paths.runtime, Callee::Secondary(number), HAND_OVER_TIMEOUT)?;
        let done = old.hand_over()?;
        rows.push(DomainRow::new(&status_of(config, number, done.pid)?));
    }
    if rows.is_empty() {
        bail!("no sync domain for that NUMA node in the configuration");
    }
    Ok(SyncReport { domains: rows })
}

/// How process `pid` is, once it answers in its predecessor's place.
fn status_of(config: &Config, numa: NumaId, pid: u32) -> Result<SyncStatus> {
    let deadline = Instant::now() + SECONDARY_TIMEOUT;
    loop {
        let status = secondary(config, numa).and_then(|mut client| client.sync_status());
        match status {
            Ok(status) if status.pid == pid => return Ok(status),
            _ if Instant::now() < deadline => std::thread::sleep(SUCCESSOR_POLL),
            Ok(status) => bail!("process {} answers, not the successor {pid}", status.pid),
            Err(error) => return Err(error.into()),
        }
    }
}

impl Report for SyncReport {
    fn text(&self) -> String {
        if self.domains.is_empty() {
            return "synchronisation is off (sync.domains is empty)".into();
        }
        let mut table = table(&["#numa", "state", "#sessions", "#peers", "#process", "remarks"]);
        for row in &self.domains {
            let alarm = row.alarm.then_some("not ready in time: see `batonctl peers`");
            let outside = (!row.member).then_some("no member: sends nothing");
            let failure = row.succession.failure.as_ref().map(|reason| format!("successor failed: {reason}"));
            let remarks = [alarm.map(String::from), outside.map(String::from), row.came(), failure];
            let remarks: Vec<String> = remarks.into_iter().flatten().collect();
            table.add_row([
                row.numa.to_string(),
                row.state.to_owned(),
                row.sessions_owned.to_string(),
                row.peers.to_string(),
                row.pid.to_string(),
                remarks.join(", "),
            ]);
        }
        lines(&table)
    }
}
