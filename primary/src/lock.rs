//! The primary's turn: one primary a node, and none over a living secondary of an earlier one.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use baton_common::runtime::{self, ProcessLock};

/// How long to wait for an earlier primary or its secondaries to end. They end by themselves.
const WAIT: Duration = Duration::from_secs(10);

/// Takes the primary's lock.
///
/// # Errors
/// Another primary holds it; the message names its process.
pub fn acquire(runtime_dir: &Path) -> anyhow::Result<ProcessLock> {
    ProcessLock::acquire(&runtime::primary_lock_path(runtime_dir), WAIT).context("this node has a primary")
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
    if !runtime::lock_within(&file, WAIT).with_context(|| format!("locking {}", path.display()))? {
        bail!(
            "a secondary of an earlier primary still lives (it holds {}): stop baton-sync first",
            path.display()
        );
    }
    Ok(())
}
