//! The name of a process that stays its own after the process is gone: its number and when it was started.

use std::fs;

use rustix::process::{Pid, getpid, test_kill_process};

/// A process: its pid, and the low 32 bits of its start time in clock ticks, so that a number given out again names
/// another process. As a word: `start << 32 | pid`; zero is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessName {
    /// Its number.
    pub pid: u32,
    /// Low 32 bits of its start time; zero if that could not be found out.
    pub start: u32,
}

/// What `/proc` says of a pid.
enum Status {
    Running {
        start: u32,
    },
    /// Dead, and not yet waited for.
    Zombie,
    /// Not there, or not to be seen from here.
    Unknown,
}

impl ProcessName {
    /// This process.
    pub fn own() -> ProcessName {
        ProcessName::of(getpid().as_raw_nonzero().get() as u32)
    }

    /// The process that has `pid` now.
    fn of(pid: u32) -> ProcessName {
        match status(pid) {
            Status::Running { start } => ProcessName { pid, start },
            Status::Zombie | Status::Unknown => ProcessName { pid, start: 0 },
        }
    }

    /// The process that `word` names, if it names one.
    pub fn from_word(word: u64) -> Option<ProcessName> {
        let name = ProcessName { pid: word as u32, start: (word >> 32) as u32 };
        (name.pid != 0).then_some(name)
    }

    /// The name as one word.
    pub fn to_word(self) -> u64 {
        u64::from(self.start) << 32 | u64::from(self.pid)
    }

    /// Whether the process still runs. System calls: not for the packet path.
    ///
    /// Errs on the side of "yes": what cannot be found out counts as running.
    pub fn is_running(self) -> bool {
        match status(self.pid) {
            Status::Running { start } => self.start == 0 || start == self.start,
            Status::Zombie => false,
            Status::Unknown => {
                let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
                pid.is_some_and(|pid| test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
            }
        }
    }
}

/// Fields 3 and 22 of `/proc/<pid>/stat` (proc(5)), counted from the last `)`, for the name before it may hold anything.
fn status(pid: u32) -> Status {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Status::Unknown };
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Status::Unknown };
    if fields.starts_with(['Z', 'X']) {
        return Status::Zombie;
    }
    match fields.split(' ').nth(19).and_then(|start| start.parse::<u64>().ok()) {
        Some(start) => Status::Running { start: start as u32 },
        None => Status::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_process_is_running() {
        let own = ProcessName::own();
        assert_ne!(own.start, 0);
        assert!(own.is_running());
        assert_eq!(ProcessName::from_word(own.to_word()), Some(own));
    }

    #[test]
    fn a_pid_given_out_again_is_another_process() {
        let own = ProcessName::own();
        assert!(!ProcessName { start: own.start.wrapping_add(1).max(1), ..own }.is_running());
    }

    #[test]
    fn a_killed_process_is_not_running_before_nor_after_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let name = ProcessName::of(child.id());
        assert!(name.is_running());
        child.kill().unwrap();
        while name.is_running() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!name.is_running());
    }

    #[test]
    fn nonsense_is_nobody() {
        assert_eq!(ProcessName::from_word(0), None);
        assert!(!ProcessName { pid: u32::MAX, start: 7 }.is_running());
    }
}
