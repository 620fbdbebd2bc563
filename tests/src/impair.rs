//! Impairment of a node's sync traffic: loss, delay, duplication.
//!
//! The kernel's netem is not in every kernel, so a process of ours does it, the same everywhere: at both ends of the
//! node's uplink, what arrives for the sync port is redirected to a tap; the relay reads it there, drops, holds or
//! doubles it, and writes it back to the tap, which is a port of the same bridge. Other traffic is not touched.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command::{ip_in, run};
use crate::host::{Host, SYNC_PORT};
use crate::netns;
use crate::process::{spawn, tail};
use crate::state::{Lab, Locked};

/// What happens to each datagram, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Impairment {
    /// Share of datagrams that are lost, percent
    #[arg(long = "loss", value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub loss_percent: f64,
    /// Time that each datagram is held, milliseconds
    #[arg(long = "delay", value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub delay_ms: u32,
    /// Share of datagrams that arrive twice, percent
    #[arg(long = "duplicate", value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub duplicate_percent: f64,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 to 100".into()),
    }
}

/// Where one direction is diverted: a namespace, the interface whose arrivals are taken, the bridge, and the tap.
struct Diversion {
    netns: String,
    interface: String,
    bridge: &'static str,
    tap: String,
}

/// From the node (at the router's end of its uplink) and to the node (at its own end).
fn diversions(lab: &Lab, node: u16) -> [Diversion; 2] {
    let host = Host::Node(node);
    [
        Diversion {
            netns: lab.netns(Host::Router),
            interface: host.to_string(),
            bridge: "fabric",
            tap: format!("{host}-sync"),
        },
        Diversion { netns: lab.netns(host), interface: "up0".into(), bridge: "br0", tap: "up0-sync".into() },
    ]
}

/// Impairs the sync traffic of `node`, or changes how.
///
/// # Errors
/// If a command fails or the relay does not start.
pub fn set(locked: &mut Locked, node: u16, impairment: Impairment) -> Result<()> {
    let key = process_key(node);
    let diversions = diversions(&locked.lab, node);
    if !locked.lab.impaired.contains_key(&node) {
        for diversion in &diversions {
            make_tap(diversion)?;
        }
    }
    if let Some(old) = locked.lab.processes.remove(&key) {
        old.id.end(Duration::from_secs(2))?;
    }
    locked.lab.impaired.insert(node, impairment);
    locked.save()?;

    let dir = locked.lab.host_dir(Host::Node(node));
    let log = dir.join("relay.log");
    let ready = dir.join("relay.json");
    std::fs::remove_file(&ready).ok();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("relay").arg("--report").arg(&ready);
    for diversion in &diversions {
        command.arg("--tap").arg(format!("{}/{}", diversion.netns, diversion.tap));
    }
    command.args(["--loss", &impairment.loss_percent.to_string()]);
    command.args(["--delay", &impairment.delay_ms.to_string()]);
    command.args(["--duplicate", &impairment.duplicate_percent.to_string()]);
    // Inside the namespace, where `down` finds it even if it could not be noted.
    let netns = locked.lab.netns(Host::Node(node));
    let (mut child, process) = netns::inside(&netns, || spawn(command, &log))?;
    locked.lab.processes.insert(key, process);
    locked.save()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready.exists() {
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            bail!("the relay did not start; its log ends:\n{}", tail(&log));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for diversion in &diversions {
        divert(diversion).with_context(|| format!("cannot divert the sync traffic of n{node}"))?;
    }
    Ok(())
}

/// Lets the sync traffic of `node` pass again; no error if it was never impaired.
///
/// # Errors
/// If a command fails.
pub fn clear(locked: &mut Locked, node: u16) -> Result<()> {
    if locked.lab.impaired.remove(&node).is_none() {
        return Ok(());
    }
    for diversion in diversions(&locked.lab, node) {
        run("tc", &["-n", &diversion.netns, "filter", "del", "dev", &diversion.interface, "ingress"]).ok();
    }
    if let Some(relay) = locked.lab.processes.remove(&process_key(node)) {
        relay.id.end(Duration::from_secs(2))?;
    }
    for diversion in diversions(&locked.lab, node) {
        ip_in(&diversion.netns, &format!("link del {}", diversion.tap)).ok();
    }
    locked.save()
}

/// Makes it possible to impair a node: its interfaces get the hook that filters hang on. Done once, before there is traffic,
/// because hooking and unhooking loses what is just being sent. A kernel without it is good enough for everything else.
pub fn prepare(lab: &Lab, node: u16) {
    for Diversion { netns, interface, .. } in diversions(lab, node) {
        run("tc", &["-n", &netns, "qdisc", "add", "dev", &interface, "clsact"]).ok();
    }
}

/// The name of a node's relay among the lab's processes.
pub fn process_key(node: u16) -> String {
    format!("{}/relay", Host::Node(node))
}

/// A tap on the bridge that learns nothing and gets nothing flooded: it only carries what is diverted.
fn make_tap(diversion: &Diversion) -> Result<()> {
    let Diversion { netns, bridge, tap, .. } = diversion;
    ip_in(netns, &format!("tuntap add dev {tap} mode tap"))?;
    netns::inside(netns, || {
        run("sysctl", &["-q", "-w", &format!("net.ipv6.conf.{tap}.disable_ipv6=1")]).map(drop)
    })?;
    ip_in(netns, &format!("link set {tap} txqueuelen 10000 master {bridge} up"))?;
    let flags = ["learning", "off", "flood", "off", "mcast_flood", "off", "bcast_flood", "off"];
    let mut words = vec!["-n", netns, "link", "set", "dev", tap];
    words.extend(flags);
    run("bridge", &words)?;
    Ok(())
}

/// Redirects arriving datagrams for the sync port to the tap.
fn divert(diversion: &Diversion) -> Result<()> {
    let Diversion { netns, interface, tap, .. } = diversion;
    let port = SYNC_PORT.to_string();
    let families: [(&str, &str, &[&str]); 2] = [
        ("ip", "1", &["match", "ip", "protocol", "17", "0xff", "match", "ip", "dport", &port, "0xffff"]),
        ("ipv6", "2", &["match", "ip6", "protocol", "17", "0xff", "match", "ip6", "dport", &port, "0xffff"]),
    ];
    for (protocol, priority, matches) in families {
        let mut words =
            vec!["-n", netns, "filter", "replace", "dev", interface, "ingress", "protocol", protocol];
        words.extend(["prio", priority, "handle", "800::800", "u32"]);
        words.extend(matches);
        words.extend(["action", "mirred", "egress", "redirect", "dev", tap]);
        run("tc", &words)?;
    }
    Ok(())
}
