//! What a lab consists of and what of it lives.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use crate::host::{Host, VIP4, VIP6};
use crate::impair::Impairment;
use crate::netns;
use crate::state::{self, Lab};

/// The state of a lab, for people and programs.
#[derive(Debug, Serialize)]
struct Status {
    name: String,
    dir: String,
    complete: bool,
    stale: bool,
    sync: bool,
    steering: String,
    vips: [String; 2],
    hosts: Vec<HostStatus>,
}

#[derive(Debug, Serialize)]
struct HostStatus {
    name: String,
    netns: String,
    exists: bool,
    ipv4: String,
    ipv6: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    announced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impaired: Option<Impairment>,
    processes: Vec<ProcessStatus>,
}

#[derive(Debug, Serialize)]
struct ProcessStatus {
    role: String,
    pid: u32,
    alive: bool,
    log: String,
}

/// Prints the state of lab `name`.
///
/// # Errors
/// If there is no such lab.
pub fn print(name: &str, json: bool) -> Result<()> {
    let lab = Lab::load(&state::dir_of(name))?;
    let status = status(&lab);
    let text = if json { serde_json::to_string_pretty(&status)? + "\n" } else { table(&status) };
    // A reader that wants no more, such as `head`, is no failure.
    std::io::stdout().write_all(text.as_bytes()).ok();
    Ok(())
}

fn status(lab: &Lab) -> Status {
    Status {
        name: lab.name.clone(),
        dir: lab.dir.display().to_string(),
        complete: lab.complete,
        stale: lab.is_stale(),
        sync: lab.shape.sync,
        steering: lab.shape.steering.clone(),
        vips: [VIP4.to_string(), VIP6.to_string()],
        hosts: lab.shape.hosts().into_iter().map(|host| host_status(lab, host)).collect(),
    }
}

fn host_status(lab: &Lab, host: Host) -> HostStatus {
    let prefix = format!("{host}/");
    let processes = lab.processes.iter().filter_map(|(key, process)| {
        Some(ProcessStatus {
            role: key.strip_prefix(&prefix)?.to_owned(),
            pid: process.id.pid,
            alive: process.id.is_alive(),
            log: process.log.display().to_string(),
        })
    });
    let node = if let Host::Node(number) = host { Some(number) } else { None };
    HostStatus {
        name: host.to_string(),
        netns: lab.netns(host),
        exists: netns::exists(&lab.netns(host)),
        ipv4: host.ipv4().to_string(),
        ipv6: host.ipv6().to_string(),
        announced: node.map(|number| !lab.withdrawn.contains(&number)),
        impaired: node.and_then(|number| lab.impaired.get(&number).copied()),
        processes: processes.collect(),
    }
}

fn table(status: &Status) -> String {
    let condition = match (status.complete, status.stale) {
        (_, true) => "left behind",
        (true, false) => "up",
        (false, false) => "being made",
    };
    let sync = if status.sync { "on" } else { "off" };
    let mut lines = vec![format!(
        "lab {}: {condition}, sync {sync}, VIPs {} {}, in {}",
        status.name, status.vips[0], status.vips[1], status.dir
    )];
    lines.push(format!("{:<7} {:<12} {:<12} {:<10} PROCESSES", "HOST", "IPV4", "IPV6", "ROUTES"));
    for host in &status.hosts {
        let routes = match host.announced {
            Some(true) => "announced",
            Some(false) => "withdrawn",
            None => "",
        };
        let mut processes: Vec<String> = Vec::new();
        for process in &host.processes {
            let dead = if process.alive { "" } else { " (dead)" };
            processes.push(format!("{} {}{dead}", process.role, process.pid));
        }
        if !host.exists {
            processes.push("(no namespace)".into());
        }
        if let Some(Impairment { loss_percent, delay_ms, duplicate_percent }) = host.impaired {
            processes.push(format!(
                "sync impaired: loss {loss_percent} %, delay {delay_ms} ms, duplicates {duplicate_percent} %"
            ));
        }
        lines.push(format!(
            "{:<7} {:<12} {:<12} {routes:<10} {}",
            host.name,
            host.ipv4,
            host.ipv6,
            processes.join(", ")
        ));
    }
    lines.join("\n") + "\n"
}
