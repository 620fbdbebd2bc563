//! Baton's processes on a node: configuration, memory, start, readiness, kill.

use std::fmt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_common::control::{Callee, Client, Request};
use baton_common::id::NumaId;
use baton_common::runtime::ready_path;

use crate::command::{run_command, run_to_end};
use crate::host::Host;
use crate::netns;
use crate::node_config;
use crate::process::{Process, ProcessId, spawn, tail};
use crate::state::{Lab, Locked};

/// How long a process may take from its start until it says that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take until it holds what the others have.
const SYNC_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a secondary may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a hand-over may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(50);
/// How long a secondary may take to leave after its primary died.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `baton-hugepages` may take.
pub const HUGEPAGES_TIMEOUT: Duration = Duration::from_secs(60);
/// The program that reserves hugepages and makes the table files.
pub const HUGEPAGES: &str = "baton-hugepages";

/// One of a node's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// baton-primary
    Primary,
    /// baton-sync
    Sync,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Sync => "sync",
        })
    }
}

impl Role {
    /// The roles that a lab's nodes have: without synchronisation there is no secondary.
    pub fn of(lab: &Lab) -> &'static [Self] {
        if lab.shape.sync { &[Self::Primary, Self::Sync] } else { &[Self::Primary] }
    }
}

/// The name of a process in the state.
pub fn process_key(node: u16, role: Role) -> String {
    format!("{}/{role}", Host::Node(node))
}

/// The path of a node's configuration.
pub fn config_path(lab: &Lab, node: u16) -> PathBuf {
    lab.host_dir(Host::Node(node)).join("baton.ron")
}

/// The path of one of Baton's binaries.
///
/// # Errors
/// If it is not where the lab was told that it is.
pub fn binary(lab: &Lab, name: &str) -> Result<PathBuf> {
    let path = lab.shape.bin_dir.join(name);
    if !path.exists() {
        bail!("{} does not exist; build it, or say where it is with --bin-dir", path.display());
    }
    Ok(path)
}

/// Writes the node's configuration and makes its directories.
///
/// # Errors
/// If a file cannot be written.
pub fn write_config(lab: &Lab, node: u16) -> Result<()> {
    let dir = lab.host_dir(Host::Node(node));
    for directory in ["run", "hugepages"] {
        std::fs::create_dir_all(dir.join(directory))?;
    }
    std::fs::write(config_path(lab, node), node_config::render(lab, node))?;
    Ok(())
}

/// Runs `baton-hugepages` with `action` for the node.
///
/// # Errors
/// If it fails.
pub fn hugepages(lab: &Lab, node: u16, action: &str) -> Result<String> {
    let mut command = Command::new(binary(lab, HUGEPAGES)?);
    command.arg("--config").arg(config_path(lab, node)).arg(action);
    // Inside the namespace, where `down` finds it if this process is killed meanwhile. Never cut off: what the kernel
    // was asked for and what is written down would differ, and pages stay reserved for good.
    let netns = lab.netns(Host::Node(node));
    if netns::exists(&netns) {
        netns::inside(&netns, || run_to_end(command, HUGEPAGES_TIMEOUT))
    } else {
        run_to_end(command, HUGEPAGES_TIMEOUT)
    }
}

/// When a process was started and when it was ready.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Right before it was executed.
    pub executed: Instant,
    /// When it had said that it is ready.
    pub ready: Instant,
}

/// Starts one of a node's processes, notes it in the state and waits until it is ready.
///
/// # Errors
/// If it runs already, does not start, or is not ready in time.
pub fn start(dir: &Path, node: u16, role: Role) -> Result<Started> {
    let mut locked = Locked::open(dir)?;
    let key = process_key(node, role);
    if locked.lab.processes.get(&key).is_some_and(|process| process.id.is_alive()) {
        bail!("the {role} of n{node} runs already");
    }
    if role == Role::Primary {
        wait_for_secondary_to_leave(&locked.lab, node)?;
        // `up` did this, unless it was told to start nothing.
        if !locked.lab.host_dir(Host::Node(node)).join("hugepages/local-0").exists() {
            hugepages(&locked.lab, node, "apply").with_context(|| format!("hugepages of n{node}"))?;
        }
    }
    let host_dir = locked.lab.host_dir(Host::Node(node));
    let notify = NotifySocket::bind(&host_dir.join(format!("{role}.notify")))?;
    let log = host_dir.join(format!("{role}.log"));
    let mut command = command(&locked.lab, node, role)?;
    command.env("NOTIFY_SOCKET", &notify.path);
    let netns = locked.lab.netns(Host::Node(node));
    let executed = Instant::now();
    let (mut child, process) = netns::inside(&netns, || spawn(command, &log))?;
    locked.lab.processes.insert(key, process);
    locked.save()?;
    drop(locked);
    let name = format!("{role} of n{node}");
    wait_ready(&notify, &mut child, &name, &log)?;
    Ok(Started { executed, ready: Instant::now() })
}

/// Has a node's secondary hand over to a successor, and notes the process that it names as the main one from then on.
///
/// # Errors
/// If the successor fails: the old one is in charge as before.
pub fn hand_over(dir: &Path, node: u16) -> Result<()> {
    let mut locked = Locked::open(dir)?;
    let lab = &locked.lab;
    let notify = NotifySocket::bind(&lab.host_dir(Host::Node(node)).join(format!("{}.notify", Role::Sync)))?;
    let mut command = Command::new(binary(lab, "batonctl")?);
    command.arg("--config").arg(config_path(lab, node)).args(["sync", "hand-over"]);
    run_command(command, HAND_OVER_TIMEOUT)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let pid = loop {
        match notify.main_pid() {
            Some(pid) => break pid,
            None if Instant::now() > deadline => bail!("no main process was named after the hand-over"),
            None => {}
        }
    };
    let id = ProcessId::of(pid).with_context(|| format!("the successor, process {pid}, is gone"))?;
    let key = process_key(node, Role::Sync);
    let old = locked.lab.processes.get_mut(&key).context("the secondary was never started")?;
    let predecessor = std::mem::replace(&mut old.id, id);
    locked.save()?;
    drop(locked);
    if !predecessor.wait_gone(ANSWER_TIMEOUT) {
        bail!("process {} is still there after it was succeeded", predecessor.pid);
    }
    Ok(())
}

/// Waits until the node holds what the others have, as whoever announces its routes should.
///
/// # Errors
/// If it does not in time.
pub fn wait_until_in_sync(lab: &Lab, node: u16) -> Result<()> {
    if !lab.shape.sync {
        return Ok(());
    }
    let runtime = lab.host_dir(Host::Node(node)).join("run");
    let deadline = Instant::now() + SYNC_TIMEOUT;
    while !ready_path(&runtime, NumaId(0)).exists() {
        crate::signals::check()?;
        if Instant::now() > deadline {
            let log = lab.host_dir(Host::Node(node)).join("sync.log");
            bail!(
                "n{node} does not hold what the others have after {} s; its secondary's log ends:\n{}",
                SYNC_TIMEOUT.as_secs(),
                tail(&log)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Tells a node not to wait for members that are not there yet.
///
/// # Errors
/// If its secondary does not answer.
pub fn accept_absence(lab: &Lab, node: u16) -> Result<()> {
    let runtime = lab.host_dir(Host::Node(node)).join("run");
    let mut client = Client::connect(&runtime, Callee::Secondary(NumaId(0)), ANSWER_TIMEOUT)?;
    Ok(client.have_done(&Request::SyncAccept)?)
}

/// Makes a dead node forget everything, as a machine does that loses its power: tables, rings, what it was.
///
/// # Errors
/// If a process of it lives, or something cannot be removed.
pub fn forget(lab: &Lab, node: u16) -> Result<()> {
    for role in [Role::Primary, Role::Sync] {
        if lab.processes.get(&process_key(node, role)).is_some_and(|process| process.id.is_alive()) {
            bail!("the {role} of n{node} runs: kill it first");
        }
    }
    hugepages(lab, node, "remove").with_context(|| format!("hugepages of n{node}"))?;
    let runtime = lab.host_dir(Host::Node(node)).join("run");
    std::fs::remove_dir_all(&runtime)?;
    std::fs::create_dir_all(&runtime)?;
    Ok(())
}

/// Kills the given processes of a node at once (SIGKILL), then waits until they are gone. Processes that do not run
/// are no error; their names are not in the answer.
///
/// # Errors
/// If one does not die.
pub fn kill(lab: &Lab, node: u16, roles: &[Role]) -> Result<Vec<Role>> {
    let victims: Vec<(Role, &Process)> =
        roles.iter().filter_map(|&role| Some((role, lab.processes.get(&process_key(node, role))?))).collect();
    let hit: Vec<Role> = victims
        .iter()
        .filter(|(_, process)| process.id.signal(rustix::process::Signal::KILL))
        .map(|(role, _)| *role)
        .collect();
    for (_, process) in victims {
        process.id.kill()?;
    }
    Ok(hit)
}

fn command(lab: &Lab, node: u16, role: Role) -> Result<Command> {
    let mut command = match role {
        Role::Primary => Command::new(binary(lab, "baton-primary")?),
        Role::Sync => {
            let mut command = Command::new(binary(lab, "baton-sync")?);
            command.args(["--numa", "0"]);
            command
        }
    };
    command.arg("--config").arg(config_path(lab, node));
    // DPDK keeps its runtime files below this; primary and secondary must share it, as under systemd.
    command.env("RUNTIME_DIRECTORY", lab.host_dir(Host::Node(node)).join("run"));
    command.env("RUST_BACKTRACE", "1");
    Ok(command)
}

/// A new primary cannot start over an old secondary, which leaves by itself when its primary is gone.
fn wait_for_secondary_to_leave(lab: &Lab, node: u16) -> Result<()> {
    match lab.processes.get(&process_key(node, Role::Sync)) {
        Some(process) if !process.id.wait_gone(LEAVE_TIMEOUT) => {
            bail!(
                "the secondary of n{node} (process {}) did not leave within {} s after its primary was gone; its log ends:\n{}",
                process.id.pid,
                LEAVE_TIMEOUT.as_secs(),
                tail(&process.log)
            )
        }
        _ => Ok(()),
    }
}

/// Where a process reports its readiness, as it would to systemd. The file is removed in the end.
struct NotifySocket {
    path: PathBuf,
    socket: UnixDatagram,
}

impl NotifySocket {
    fn bind(path: &Path) -> Result<Self> {
        std::fs::remove_file(path).ok();
        let socket =
            UnixDatagram::bind(path).with_context(|| format!("cannot make the socket {}", path.display()))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { path: path.to_path_buf(), socket })
    }

    /// If readiness was reported within the read timeout.
    fn is_ready(&self) -> bool {
        self.heard().is_some_and(|text| text.lines().any(|line| line == "READY=1"))
    }

    /// The process that was named as the main one within the read timeout.
    fn main_pid(&self) -> Option<u32> {
        self.heard()?.lines().find_map(|line| line.strip_prefix("MAINPID=")?.parse().ok())
    }

    /// What was reported within the read timeout.
    fn heard(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}

fn wait_ready(notify: &NotifySocket, child: &mut Child, name: &str, log: &Path) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    while !notify.is_ready() {
        crate::signals::check()?;
        if let Some(status) = child.try_wait()? {
            bail!("the {name} ended ({status}) before it was ready; its log ends:\n{}", tail(log));
        }
        if Instant::now() > deadline {
            bail!(
                "the {name} was not ready within {} s; its log ends:\n{}",
                READY_TIMEOUT.as_secs(),
                tail(log)
            );
        }
    }
    Ok(())
}
