//! Child processes: every measurement has a process of its own, so that its memory is given back, whatever it was.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::signals;

/// How often a waiting parent looks for signals.
const LOOK: Duration = Duration::from_millis(10);

/// A child that was killed, by the kernel for want of memory or by its parent for taking too long: it says nothing about
/// whether what it measured is right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// Runs this program again as `<program> <command> <job as JSON> <file>`; it writes its answer to the file as JSON. What it
/// says is shown if it fails.
///
/// # Errors
/// The child fails, writes no answer or takes longer than `limit`, or this process is interrupted.
pub fn run<T: DeserializeOwned>(command: &str, job: &impl Serialize, limit: Duration) -> Result<T> {
    let directory = tempfile::tempdir().context("cannot make a directory for a child's answer")?;
    let (answer, log) = (directory.path().join("answer"), directory.path().join("log"));
    let output = File::create(&log)?;
    let mut child = Command::new(env::current_exe()?)
        .arg(command)
        .arg(serde_json::to_string(job)?)
        .arg(&answer)
        // The maps of the Rust contenders live on the heap: let it be of hugepages as far as the kernel has them.
        .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start a child process")?;
    let status = wait(&mut child, limit)?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        bail!("{command} failed ({status}): {}", said.trim());
    }
    let answer = fs::read(&answer).context("the child wrote no answer")?;
    serde_json::from_slice(&answer).context("the child's answer makes no sense")
}

/// Waits for a child; it is killed if it takes too long or this process is interrupted.
fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return match status.signal() {
                Some(signal) if signal == Signal::INT.as_raw() => bail!("interrupted"),
                Some(signal) if signal == Signal::KILL.as_raw() => {
                    Err(Lost("killed, probably for want of memory".into()).into())
                }
                _ => Ok(status),
            };
        }
        let in_time = || match Instant::now() < deadline {
            true => Ok(()),
            false => Err(Lost(format!("not done within {limit:?}")).into()),
        };
        if let Err(reason) = signals::check().and_then(|()| in_time()) {
            child.kill()?;
            child.wait()?;
            return Err(reason);
        }
        thread::sleep(LOOK);
    }
}

/// In a child: it dies with its parent.
///
/// # Errors
/// The kernel does not know how.
pub fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")
}

/// In a child: its answer.
///
/// # Errors
/// The file cannot be written.
pub fn answer(file: &Path, answer: &impl Serialize) -> Result<()> {
    fs::write(file, serde_json::to_vec(answer)?).with_context(|| format!("cannot write {}", file.display()))
}
