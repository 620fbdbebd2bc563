//! The secondary's lock: one secondary a NUMA node.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::id::NumaId;
use baton_common::runtime;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long to wait for a predecessor that is just being torn down by the kernel.
pub const WAIT: Duration = Duration::from_secs(1);

/// How often a lock is tried meanwhile.
pub const POLL: Duration = Duration::from_millis(5);

/// Held for as long as the secondary lives; the kernel frees it when it dies.
#[derive(Debug)]
pub struct SyncLock {
    _file: File,
}

impl SyncLock {
    /// Takes the lock and writes this process's id into the file.
    ///
    /// # Errors
    /// Another secondary of that NUMA node holds it; the message names its process.
    pub fn acquire(runtime_dir: &Path, numa: NumaId) -> anyhow::Result<SyncLock> {
        SyncLock::acquire_within(runtime_dir, numa, WAIT)
    }

    fn acquire_within(runtime_dir: &Path, numa: NumaId, time: Duration) -> anyhow::Result<SyncLock> {
        std::fs::create_dir_all(runtime_dir)
            .with_context(|| format!("making the runtime directory {}", runtime_dir.display()))?;
        let path = runtime::sync_lock_path(runtime_dir, numa);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).with_context(|| format!("opening {}", path.display()))?;
        let deadline = Instant::now() + time;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
            if Instant::now() >= deadline {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                let holder = holder.trim();
                bail!(
                    "process {holder} is the secondary of NUMA node {numa} and holds {}: stop it first",
                    path.display()
                );
            }
            std::thread::sleep(POLL);
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(SyncLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_secondary_is_refused_and_told_who_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = SyncLock::acquire(directory.path(), NumaId(3)).unwrap();

        let error =
            SyncLock::acquire_within(directory.path(), NumaId(3), Duration::ZERO).unwrap_err().to_string();

        assert!(error.contains(&format!("process {} is", std::process::id())), "{error}");
        SyncLock::acquire(directory.path(), NumaId(4)).unwrap();
        drop(first);
        SyncLock::acquire(directory.path(), NumaId(3)).unwrap();
    }
}
