//! Watching another process by its pidfd: the kernel says whether it is dead, never a heartbeat.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Another process. Its number may be used again after its death; this still means the dead one.
#[derive(Debug)]
pub struct ProcessWatch {
    pid: u32,
    pidfd: OwnedFd,
}

impl ProcessWatch {
    /// Watches the process with that number.
    ///
    /// # Errors
    /// There is none.
    pub fn open(pid: u32) -> io::Result<ProcessWatch> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let number = number.ok_or_else(|| io::Error::other(format!("{pid} is no process id")))?;
        Ok(ProcessWatch { pid, pidfd: pidfd_open(number, PidfdFlags::empty())? })
    }

    /// Its number.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let watch = ProcessWatch::open(child.id()).unwrap();
        assert!(watch.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!watch.lives());
    }
}
