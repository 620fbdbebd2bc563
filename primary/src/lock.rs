//! The primary's lock: one primary a node, and none over a living secondary of an earlier one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::runtime;
use rustix::fs::{FlockOperation, flock};

/// How long to wait for an earlier primary or its secondaries to end. They end by themselves.
const WAIT: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(20);

/// Held for as long as the primary lives; the kernel frees it when it dies.
pub struct PrimaryLock {
    _file: File,
}

impl PrimaryLock {
    /// Takes the lock and writes this process's id into the file.
    ///
    /// # Errors
    /// Another primary holds it; the message names its process.
    pub fn acquire(runtime_dir: &Path) -> anyhow::Result<PrimaryLock> {
        std::fs::create_dir_all(runtime_dir)
            .with_context(|| format!("making the runtime directory {}", runtime_dir.display()))?;
        let path = runtime::primary_lock_path(runtime_dir);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        if !lock_within(&file, WAIT)? {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!(
                "process {} is this node's primary and holds {}: stop it first",
                holder.trim(),
                path.display()
            );
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(PrimaryLock { _file: file })
    }
}

/// Waits until no process of an earlier primary uses DPDK's shared memory any more: a new primary would break it.
///
/// Every DPDK process holds a shared lock on this file while it lives.
///
/// # Errors
/// One is still there after ten seconds.
pub fn wait_for_old_secondaries(runtime_dir: &Path, file_prefix: &str) -> anyhow::Result<()> {
    let path = dpdk::shared_files_dir(runtime_dir, file_prefix).join("fbarray_memzone");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    if !lock_within(&file, WAIT)? {
        bail!(
            "a secondary of an earlier primary still lives (it holds {}): stop baton-sync first",
            path.display()
        );
    }
    Ok(())
}

/// Whether the file's lock was had within that time.
fn lock_within(file: &File, time: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + time;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(POLL),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error).context("locking"),
        }
    }
}
