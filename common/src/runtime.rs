//! The runtime directory: names of the files through which a node's processes find each other.

use std::path::{Path, PathBuf};

/// The file that the living primary holds locked and writes its process id into.
pub fn primary_lock_path(runtime: &Path) -> PathBuf {
    runtime.join("primary.lock")
}

/// The file that the living secondary of a NUMA node holds locked and writes its process id into.
pub fn sync_lock_path(runtime: &Path, numa: crate::id::NumaId) -> PathBuf {
    runtime.join(format!("sync-{numa}.lock"))
}
