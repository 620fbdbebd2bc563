//! Processes that the lab started: found again, ended and never mistaken for another.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, by its number and the time it started, so that a number used again names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl ProcessId {
    /// The process with this number, if it lives.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        stat.is_alive().then_some(Self { pid, start_ticks: stat.start_ticks })
    }

    /// The calling process.
    pub fn own() -> Self {
        let pid = std::process::id();
        Self { pid, start_ticks: stat(pid).map_or(0, |stat| stat.start_ticks) }
    }

    /// If it lives; a zombie does not.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// If it executes a program of this name.
    pub fn runs(self, program: &str) -> bool {
        let executed = std::fs::read_link(format!("/proc/{}/exe", self.pid));
        executed.is_ok_and(|path| path.file_name().is_some_and(|name| name == program))
    }

    /// A handle that stays with this process even if its number is used again; `None` if it is gone.
    pub fn pidfd(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Opened first, compared then: if the start time fits now, the handle is of the right process.
        self.is_alive().then_some(handle)
    }

    /// Sends a signal; says if the process was there to get it.
    pub fn signal(self, signal: Signal) -> bool {
        self.pidfd().is_some_and(|handle| pidfd_send_signal(handle, signal).is_ok())
    }

    /// Waits until it is gone; says if it is.
    pub fn wait_gone(self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Asks it to end, waits, and kills it if it does not; an error only if it lives on even so.
    ///
    /// # Errors
    /// If it is still there 10 s after the kill.
    pub fn end(self, patience: Duration) -> Result<()> {
        if self.signal(Signal::TERM) && self.wait_gone(patience) {
            return Ok(());
        }
        self.kill()
    }

    /// Kills it and waits until it is gone; no error if it was gone before.
    ///
    /// # Errors
    /// If it is still there 10 s later.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL);
        if !self.wait_gone(Duration::from_secs(10)) {
            bail!("process {} does not die", self.pid);
        }
        Ok(())
    }
}

/// What the kernel says of a process.
#[derive(Clone, Copy)]
struct Stat {
    state: char,
    threads: u32,
    start_ticks: u64,
}

impl Stat {
    /// Not if it is a zombie: it has let go of its files and memory. But a zombie with threads has not yet: its first thread
    /// is gone, and the others still hold everything.
    fn is_alive(self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// Reads fields of `/proc/PID/stat`.
fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name in brackets may hold anything, brackets and spaces too: the fields start after the last bracket.
    let mut fields = line[line.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next()?;
    let threads = fields.nth(16)?.parse().ok()?;
    let start_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, threads, start_ticks })
}

/// A process started by the lab, as the state file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Which process it is.
    pub id: ProcessId,
    /// Where its standard output and error go.
    pub log: PathBuf,
}

/// Starts `command` in the background: a process group of its own, no input, output appended to `log`.
///
/// # Errors
/// If the log cannot be opened or the program not be started.
pub fn spawn(mut command: Command, log: &Path) -> Result<(Child, Process)> {
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot open the log {}", log.display()))?;
    let errors = output.try_clone()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let id = match stat(child.id()) {
        Some(stat) => ProcessId { pid: child.id(), start_ticks: stat.start_ticks },
        None => bail!("{program} was gone at once; its log ends:\n{}", tail(log)),
    };
    Ok((child, Process { id, log: log.to_path_buf() }))
}

/// The last lines of a log, for error messages.
pub fn tail(log: &Path) -> String {
    const LINES: usize = 20;
    const BYTES: u64 = 8192;
    let read = || -> std::io::Result<String> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.take(BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if text.trim().is_empty() => format!("  (empty: {})", log.display()),
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES)..];
            last.iter().map(|line| format!("  | {line}\n")).collect()
        }
        Err(error) => format!("  (cannot read {}: {error})", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_used_again_names_nobody() {
        let own = ProcessId::own();
        let other = ProcessId { start_ticks: own.start_ticks + 1, ..own };
        assert!(own.is_alive());
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::KILL), "a signal for a process that is gone must reach nobody");
    }

    #[test]
    fn a_zombie_is_alive_as_long_as_it_has_threads() {
        let stat = |state, threads| {
            let line = format!("7 (a b) c) {state} 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 4711 0 0");
            parse_stat(&line).unwrap()
        };
        assert_eq!(stat('S', 1).start_ticks, 4711);
        assert!(stat('S', 1).is_alive() && stat('Z', 2).is_alive());
        assert!(!stat('Z', 1).is_alive() && !stat('Z', 0).is_alive() && !stat('X', 0).is_alive());
    }

    #[test]
    fn a_killed_child_is_gone_though_nobody_reaped_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut command = Command::new("sleep");
        command.arg("60");
        let (mut child, process) = spawn(command, &log).unwrap();
        assert!(process.id.is_alive());
        process.id.kill().unwrap();
        assert!(!process.id.is_alive());
        child.wait().unwrap();
    }

    #[test]
    fn tail_shows_the_last_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text: String = (0..100).map(|line| format!("line {line}\n")).collect();
        std::fs::write(&log, text).unwrap();
        let tail = tail(&log);
        assert!(tail.contains("line 99") && tail.contains("line 80") && !tail.contains("line 79"), "{tail}");
    }
}
