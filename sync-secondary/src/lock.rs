//! The secondary's lock: one secondary a NUMA node.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use baton_common::id::NumaId;
use baton_common::runtime::{self, ProcessLock};

/// How long to wait for a predecessor that is just being torn down by the kernel.
pub const WAIT: Duration = Duration::from_secs(1);

/// How often a lock is tried meanwhile.
pub const POLL: Duration = Duration::from_millis(5);

/// Takes the lock of a NUMA node's secondary.
///
/// # Errors
/// Another secondary of that NUMA node holds it; the message names its process.
pub fn acquire(runtime_dir: &Path, numa: NumaId) -> anyhow::Result<ProcessLock> {
    ProcessLock::acquire(&runtime::sync_lock_path(runtime_dir, numa), WAIT)
        .with_context(|| format!("NUMA node {numa} has a secondary"))
}
