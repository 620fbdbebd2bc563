//! conntrackd: the kernel's connections from one network namespace to another.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The namespaces' names begin with this.
const PREFIX: &str = "baton-bench";

/// How long nothing may change before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most connections: what fits the kernel's table with room to spare, as a rule.
pub const SESSIONS_MAX: u32 = 200_000;

/// What conntrackd did.
#[derive(Clone, Copy, Debug)]
pub struct Tracked {
    /// Connections that there were.
    pub sessions: u32,
    /// From the first one made until the peer had the last that came.
    pub event_seconds: f64,
    /// Connections that came by events.
    pub event_sessions: u32,
    /// From the command for a bulk until the last had come.
    pub bulk_seconds: f64,
    /// Connections that came by the bulk.
    pub bulk_sessions: u32,
    /// Bytes of UDP payload a connection.
    pub bytes: f64,
}

/// Two namespaces; they go when this is dropped.
struct Namespaces([String; 2]);

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A daemon that is killed when this is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes connections in one namespace and waits for them in the other one's conntrackd; then again, all at once.
///
/// # Errors
/// conntrackd, conntrack or the kernel's connection tracking is missing.
pub fn track(sessions: u32) -> Result<Tracked> {
    let directory = tempfile::tempdir()?;
    let names = ["a", "b"].map(|side| format!("{PREFIX}-{}-{side}", std::process::id()));
    let namespaces = Namespaces(names);
    let [a, b] = &namespaces.0;
    for name in [a, b] {
        ip(&["netns", "add", name])?;
    }
    ip(&["link", "add", "sync", "netns", a, "type", "veth", "peer", "name", "sync", "netns", b])?;
    for (name, address) in [(a, "10.99.0.1/24"), (b, "10.99.0.2/24")] {
        ip(&["-n", name, "addr", "add", address, "dev", "sync"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        ip(&["-n", name, "link", "set", "sync", "up"])?;
    }
    let files = ["a", "b"].map(|side| directory.path().join(side));
    fs::write(&files[0], configuration(directory.path(), "a", ["10.99.0.1", "10.99.0.2"]))?;
    fs::write(&files[1], configuration(directory.path(), "b", ["10.99.0.2", "10.99.0.1"]))?;
    let start = |name: &str, file: &Path| -> Result<Daemon> {
        let child = Command::new("ip")
            .args(["netns", "exec", name, "conntrackd", "-C"])
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start conntrackd: `make testdeps` installs it")?;
        Ok(Daemon(child))
    };
    let _sender = start(a, &files[0])?;
    let receiver = start(b, &files[1])?;
    for (name, file) in namespaces.0.iter().zip(&files) {
        wait_for(name, file)?;
    }

    let load = directory.path().join("load");
    fs::write(&load, connections(sessions))?;
    let began = Instant::now();
    let mut maker = Command::new("ip")
        .args(["netns", "exec", a, "conntrack", "-R"])
        .arg(&load)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start conntrack")?;
    let (event_sessions, event_seconds) = arrival(b, &files[1], sessions, began)?;
    maker.wait()?;
    ensure!(event_sessions > 0, "no connection came: conntrackd or the kernel does not track them");
    drop(receiver);
    // Killed, it leaves what would keep its successor from starting.
    for left in ["b.lock", "b.ctl"] {
        let _ = fs::remove_file(directory.path().join(left));
    }
    let _receiver = start(b, &files[1])?;
    wait_for(b, &files[1])?;
    let before = bytes_received(b)?;
    let began = Instant::now();
    control(a, &files[0], "-B")?;
    let (bulk_sessions, bulk_seconds) = arrival(b, &files[1], sessions, began)?;
    let bytes = (bytes_received(b)? - before) as f64 / f64::from(bulk_sessions.max(1));
    Ok(Tracked { sessions, event_seconds, event_sessions, bulk_seconds, bulk_sessions, bytes })
}

/// How many connections came to a daemon, and when the last one was there.
fn arrival(name: &str, file: &Path, sessions: u32, began: Instant) -> Result<(u32, f64)> {
    let (mut count, mut last) = (0, Instant::now());
    loop {
        let now = external(&control(name, file, "-s")?);
        let looked = Instant::now();
        if now > count {
            (count, last) = (now, looked);
        }
        if count >= sessions || looked - last > PATIENCE {
            return Ok((count, (last - began).as_secs_f64()));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Connections in the cache of what peers have.
fn external(statistics: &str) -> u32 {
    let cache = statistics.split("cache external:").nth(1).unwrap_or_default();
    let line = cache.lines().find(|line| line.starts_with("current active connections:"));
    line.and_then(|line| line.split_whitespace().last()?.parse().ok()).unwrap_or(0)
}

fn bytes_received(name: &str) -> Result<u64> {
    let output = Command::new("ip")
        .args(["netns", "exec", name, "cat", "/sys/class/net/sync/statistics/rx_bytes"])
        .output()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().context("no byte count of the veth")
}

fn wait_for(name: &str, file: &Path) -> Result<()> {
    let start = Instant::now();
    while let Err(error) = control(name, file, "-s") {
        ensure!(start.elapsed() < Duration::from_secs(10), "conntrackd does not answer: {error}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn control(name: &str, file: &Path, command: &str) -> Result<String> {
    let output = Command::new("ip")
        .args(["netns", "exec", name, "conntrackd", "-C"])
        .arg(file)
        .arg(command)
        .output()?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!("conntrackd {command}: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// The mode that loses nothing on a quiet link and waits for nobody, with buffers that hold a bulk.
fn configuration(directory: &Path, side: &str, [own, peer]: [&str; 2]) -> String {
    let directory = directory.display();
    format!(
        "Sync {{\n Mode NOTRACK {{\n  DisableExternalCache no\n }}\n UDP {{\n  IPv4_address {own}\n  \
         IPv4_Destination_Address {peer}\n  Port 3780\n  Interface sync\n  SndSocketBuffer 67108864\n  \
         RcvSocketBuffer 67108864\n  Checksum no\n }}\n}}\nGeneral {{\n HashSize 1048576\n HashLimit 4194304\n \
         LogFile off\n Syslog off\n LockFile {directory}/{side}.lock\n UNIX {{\n  Path {directory}/{side}.ctl\n }}\n \
         NetlinkBufferSize 67108864\n NetlinkBufferSizeMaxGrowth 268435456\n NetlinkOverrunResync off\n}}\n"
    )
}

/// Commands for `conntrack -R`: a connection a line.
fn connections(sessions: u32) -> String {
    let mut text = String::new();
    for number in 0..sessions {
        let [_, a, b, c] = number.to_be_bytes();
        let port = 1024 + number % 60_000;
        let _ = writeln!(
            text,
            "-A -p tcp -s 20.{a}.{b}.{c} -d 10.0.0.1 --sport {port} --dport 443 --state ESTABLISHED --timeout 3600"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_external_cache_is_told_from_the_internal_one() {
        let text = "cache internal:\ncurrent active connections:\t 7\n\ncache external:\ncurrent active connections:\t 20\n";
        assert_eq!(external(text), 20);
        assert_eq!(external(""), 0);
    }

    #[test]
    fn connections_differ() {
        let text = connections(300);
        assert_eq!(text.lines().collect::<std::collections::HashSet<_>>().len(), 300);
    }
}
