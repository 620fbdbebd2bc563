//! `batonctl sync`: how far this node is, and what an operator wants of it.

use std::time::Duration;

use anyhow::Result;
use baton_common::config::Config;
use baton_common::control::{CallError, Callee, Client, Request, SyncStatus};
use baton_common::id::NumaId;
use serde::Serialize;

use crate::arguments::SyncCommand;
use crate::report::{Report, lines, table};

/// How long a secondary may take to answer.
const SECONDARY_TIMEOUT: Duration = Duration::from_secs(5);

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
            let remarks: Vec<&str> = [alarm, outside].into_iter().flatten().collect();
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
