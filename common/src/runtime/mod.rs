//! The runtime directory: how a node's processes find each other, and how one is kept to one.

mod lock;
mod process;

pub use lock::{LockError, ProcessLock, holder, lock_within};
pub use process::ProcessWatch;

use std::path::{Path, PathBuf};

use crate::id::NumaId;

/// The file that the living primary holds locked and writes its process id into.
pub fn primary_lock_path(runtime: &Path) -> PathBuf {
    runtime.join("primary.lock")
}

/// The file that is there while the sync domain of a NUMA node holds what the other nodes have: it may draw traffic.
pub fn ready_path(runtime: &Path, numa: NumaId) -> PathBuf {
    runtime.join(format!("sync-{numa}.ready"))
}

/// The file that the living secondary of a NUMA node holds locked and writes its process id into.
pub fn sync_lock_path(runtime: &Path, numa: NumaId) -> PathBuf {
    runtime.join(format!("sync-{numa}.lock"))
}
