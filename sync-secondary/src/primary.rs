//! The primary, as its secondary sees it: alive or gone.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use baton_common::runtime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The living primary that this secondary follows.
pub struct Primary {
    pid: u32,
    pidfd: OwnedFd,
}

impl Primary {
    /// Finds the primary of a runtime directory: the process that holds the lock there.
    ///
    /// # Errors
    /// No primary lives.
    pub fn find(runtime_dir: &Path) -> anyhow::Result<Primary> {
        let path = runtime::primary_lock_path(runtime_dir);
        let Some(pid) = holder(&path)? else {
            bail!("no primary runs (nobody holds {}): start baton-primary first", path.display());
        };
        let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("process id out of range")?;
        let pidfd = pidfd_open(process, PidfdFlags::empty()).with_context(|| {
            format!("process {pid}, which {} names as the primary, is gone", path.display())
        })?;
        // The number may have been another process's by then; the lock says whose it is now.
        if holder(&path)? != Some(pid) {
            bail!("the primary (process {pid}) ended or was replaced just now: start again");
        }
        Ok(Primary { pid, pidfd })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs. One system call.
    pub fn lives(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        !matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }
}

/// The process that holds the primary's lock, if any does.
fn holder(path: &Path) -> anyhow::Result<Option<u32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        // Had for a moment only: a primary that starts just now tries for longer.
        Ok(()) => return Ok(None),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(error).with_context(|| format!("trying the lock {}", path.display())),
    }
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("reading {}", path.display()))?;
    let pid = text.trim().parse();
    pid.map(Some)
        .with_context(|| format!("{} holds {:?}, expected a process id", path.display(), text.trim()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lock_file(directory: &Path, pid: u32) -> File {
        let mut file = File::create(runtime::primary_lock_path(directory)).unwrap();
        write!(file, "{pid}").unwrap();
        file
    }

    #[test]
    fn a_lock_that_nobody_holds_is_no_primary() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Primary::find(directory.path()).err().unwrap().to_string();
        let _file = lock_file(directory.path(), std::process::id());
        let stale = Primary::find(directory.path()).err().unwrap().to_string();
        assert!(
            missing.contains("no primary runs") && stale.contains("no primary runs"),
            "{missing}; {stale}"
        );
    }

    #[test]
    fn the_holder_of_the_lock_is_the_primary_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let file = lock_file(directory.path(), child.id());
        flock(&file, FlockOperation::LockExclusive).unwrap();

        let primary = Primary::find(directory.path()).unwrap();

        assert_eq!(primary.pid(), child.id());
        assert!(primary.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!primary.lives());
    }
}
