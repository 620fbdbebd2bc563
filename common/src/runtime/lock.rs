//! Process locks: a file that one process holds locked for life, with its id in it. The kernel frees it at death.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use thiserror::Error;

/// How often a lock is tried while waiting for it.
const POLL: Duration = Duration::from_millis(5);

/// Why a process lock was not had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("process {pid} holds {path}: stop it first")]
    Held {
        /// What the holder wrote into the file.
        pid: String,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be made, read, written or locked.
    #[error("cannot use the lock file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A lock that this process holds until it ends or drops this.
#[derive(Debug)]
pub struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock, waiting at most `time` for a holder that is just ending, and writes this process's id into the file.
    /// Makes the file's directory if need be.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(path: &Path, time: Duration) -> Result<ProcessLock, LockError> {
        ProcessLock::try_acquire(path, time)
            .map_err(|source| LockError::File { path: path.into(), source })?
    }

    fn try_acquire(path: &Path, time: Duration) -> io::Result<Result<ProcessLock, LockError>> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if !lock_within(&file, time)? {
            let mut pid = String::new();
            file.read_to_string(&mut pid)?;
            return Ok(Err(LockError::Held { pid: pid.trim().into(), path: path.into() }));
        }
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Ok(ProcessLock { _file: file }))
    }
}

/// Locks a file exclusively; `false` if others hold a lock on it for longer than `time`.
///
/// # Errors
/// The file cannot be locked at all.
pub fn lock_within(file: &File, time: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + time;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The process that holds a process lock, if one does.
///
/// # Errors
/// The file cannot be read, or names no process.
pub fn holder(path: &Path) -> io::Result<Option<u32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Had for a moment only: who takes the lock just now tries for longer.
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error.into()),
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let pid = text.trim().parse();
    pid.map(Some).map_err(|_| io::Error::other(format!("it holds {:?}, expected a process id", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/a.lock");
        let first = ProcessLock::acquire(&path, Duration::ZERO).unwrap();
        let error = ProcessLock::acquire(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} holds", std::process::id())), "{error}");
        drop(first);
        ProcessLock::acquire(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn only_a_held_lock_has_a_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.lock");
        assert_eq!(holder(&path).unwrap(), None);
        let lock = ProcessLock::acquire(&path, Duration::ZERO).unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&path).unwrap(), None);
    }
}
