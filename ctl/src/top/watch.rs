//! The watch: what happened to the node's processes between one reading and the next.

use std::collections::BTreeMap;

use super::reading::Reading;

/// What is known of the processes by the last reading.
#[derive(Debug, Default)]
pub struct Watch {
    /// Each process that was ever seen, and its number if it answered last time.
    processes: BTreeMap<String, Process>,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    answers: bool,
}

impl Watch {
    /// Looks at the next reading, and tells what is new.
    pub fn look(&mut self, reading: &Reading) -> Vec<String> {
        let primary = reading.primary.iter().map(|status| ("the primary".to_owned(), status.pid));
        let secondaries = reading
            .sync
            .iter()
            .map(|status| (format!("the secondary of NUMA node {}", status.numa), status.pid));
        let here: BTreeMap<String, u32> = primary.chain(secondaries).collect();
        let mut news = Vec::new();
        for (name, process) in &mut self.processes {
            let found = here.get(name).copied();
            match found {
                None if process.answers => {
                    news.push(format!("{name} (process {}) does not answer", process.pid))
                }
                Some(pid) if pid != process.pid => {
                    news.push(format!("{name} was restarted: process {pid}, before {}", process.pid));
                }
                Some(pid) if !process.answers => news.push(format!("{name} (process {pid}) answers again")),
                _ => {}
            }
            *process = Process { pid: found.unwrap_or(process.pid), answers: found.is_some() };
        }
        for (name, pid) in here {
            if !self.processes.contains_key(&name) {
                if self.has_begun {
                    news.push(format!("{name} is here: process {pid}"));
                }
                self.processes.insert(name, Process { pid, answers: true });
            }
        }
        self.has_begun = true;
        news
    }
}

#[cfg(test)]
mod tests {
    use baton_common::control::{SuccessionStatus, SyncStatus};
    use baton_common::id::NumaId;
    use baton_common::sync::protocol::readiness::ReadyState;

    use super::*;

    fn reading(pid: Option<u32>) -> Reading {
        let status = |pid| SyncStatus {
            version: "1".into(),
            pid,
            numa: NumaId(0),
            state: ReadyState::Ready,
            alarm: false,
            member: true,
            sessions_owned: 0,
            succession: SuccessionStatus::default(),
            peers: vec![],
        };
        Reading { sync: pid.map(status).into_iter().collect(), ..Reading::default() }
    }

    #[test]
    fn a_restart_is_told_once_whether_the_gap_was_seen_or_not() {
        let mut watch = Watch::default();
        let mut news =
            |pid| watch.look(&reading(pid)).join("; ").replace("the secondary of NUMA node 0", "it");

        assert_eq!(news(Some(7)), "", "what is there at first is no news");
        assert_eq!(news(Some(7)), "");
        assert_eq!(news(Some(8)), "it was restarted: process 8, before 7");
        assert_eq!(news(None), "it (process 8) does not answer");
        assert_eq!(news(None), "");
        assert_eq!(news(Some(9)), "it was restarted: process 9, before 8");
        assert_eq!(news(None), "it (process 9) does not answer");
        assert_eq!(news(Some(9)), "it (process 9) answers again");
    }

    #[test]
    fn a_process_that_comes_later_is_news() {
        let mut watch = Watch::default();
        assert!(watch.look(&reading(None)).is_empty());
        assert_eq!(watch.look(&reading(Some(7))), ["the secondary of NUMA node 0 is here: process 7"]);
    }
}
