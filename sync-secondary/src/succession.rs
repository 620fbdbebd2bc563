//! The succession: who has the part of a NUMA node's secondary while it goes from this process to the next one.
//!
//! The rules, apart from processes and files. The old one gives its part up only when the new one has said that it is ready; it
//! ends only when the new one has said that it has the part; and if the new one ends before that, the old one takes
//! it back. Whoever has the part holds the lock on `sync-<numa>.lock` and on the remote table, so that there is one at most.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_common::control::HandedOver;

/// How far a hand-over is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is none.
    InCharge,
    /// The successor is being started.
    Starting,
    /// It attaches, maps and checks everything.
    Preparing(u32),
    /// It is ready and has asked for the part.
    Asked(u32),
    /// It may take the part: this process holds none of it.
    GivenUp(u32),
    /// It has the part.
    Succeeded(HandedOver),
}

/// Why a step is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misstep {
    /// A successor is on its way already.
    #[error("a successor is being started: wait for it")]
    Busy,
    /// Only a process that this one has started may succeed it, and only step by step.
    #[error("process {0} was not started as the successor, or it is not its turn")]
    NotSuccessor(u32),
}

/// The rules' state.
struct Rules {
    stage: Stage,
    failures: u32,
    failure: Option<String>,
}

/// What becomes of a part that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The successor has it.
    Succeeded(HandedOver),
    /// The successor has ended: it is this process's again.
    Back,
    /// Not known yet.
    Open,
}

/// The succession of this process.
pub struct Succession {
    rules: Mutex<Rules>,
    changed: Condvar,
}

impl Succession {
    /// No hand-over yet.
    pub fn new() -> Succession {
        let rules = Rules { stage: Stage::InCharge, failures: 0, failure: None };
        Succession { rules: Mutex::new(rules), changed: Condvar::new() }
    }

    /// A hand-over begins.
    ///
    /// # Errors
    /// One is going on.
    pub fn begin(&self) -> Result<(), Misstep> {
        self.step(|stage| (stage == Stage::InCharge).then_some(Stage::Starting).ok_or(Misstep::Busy))
    }

    /// The successor runs.
    ///
    /// # Errors
    /// None is being started.
    pub fn started(&self, pid: u32) -> Result<(), Misstep> {
        self.step(|stage| match stage {
            Stage::Starting => Ok(Stage::Preparing(pid)),
            _ => Err(Misstep::NotSuccessor(pid)),
        })
    }

    /// The successor is ready and wants the part. Waits until it was given up, at most for `patience`.
    ///
    /// # Errors
    /// It is another process, or not at that step; or the part is not given up: then it must not be taken.
    pub fn ask(&self, pid: u32, patience: Duration) -> Result<(), Misstep> {
        // It may be quicker than who started it.
        let starting = |rules: &mut Rules| rules.stage == Stage::Starting;
        drop(self.changed.wait_timeout_while(self.lock(), patience, starting));
        self.step(|stage| match stage {
            Stage::Preparing(successor) if successor == pid => Ok(Stage::Asked(pid)),
            _ => Err(Misstep::NotSuccessor(pid)),
        })?;
        let asked = |rules: &mut Rules| rules.stage == Stage::Asked(pid);
        let waited = self.changed.wait_timeout_while(self.lock(), patience, asked);
        let (mut rules, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match rules.stage {
            Stage::GivenUp(successor) if successor == pid => Ok(()),
            Stage::Asked(_) => {
                rules.stage = Stage::Preparing(pid);
                Err(Misstep::Busy)
            }
            _ => Err(Misstep::NotSuccessor(pid)),
        }
    }

    /// Whether a successor waits for the part.
    pub fn is_asked(&self) -> bool {
        matches!(self.lock().stage, Stage::Asked(_))
    }

    /// This process has let go of everything. `false` if nobody wants it any more: the part is this process's again.
    pub fn give_up(&self) -> bool {
        self.step(|stage| match stage {
            Stage::Asked(pid) => Ok(Stage::GivenUp(pid)),
            _ => Err(Misstep::NotSuccessor(0)),
        })
        .is_ok()
    }

    /// The successor has the part.
    ///
    /// # Errors
    /// It is another process, or not at that step.
    pub fn taken(&self, pid: u32, silence_us: u64) -> Result<(), Misstep> {
        self.step(|stage| match stage {
            Stage::GivenUp(successor) if successor == pid => {
                Ok(Stage::Succeeded(HandedOver { pid, silence_us }))
            }
            _ => Err(Misstep::NotSuccessor(pid)),
        })
    }

    /// The successor has ended, or could not be started, for this reason. Says whether that undid the hand-over: not if it
    /// had the part already.
    pub fn ended(&self, reason: &str) -> bool {
        let mut rules = self.lock();
        if matches!(rules.stage, Stage::Succeeded(_)) {
            return false;
        }
        rules.stage = Stage::InCharge;
        rules.failures += 1;
        rules.failure = Some(reason.to_owned());
        self.changed.notify_all();
        true
    }

    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.lock().stage
    }

    /// What becomes of the part that was given up; waits for it, at most for `patience`.
    pub fn verdict(&self, patience: Duration) -> Verdict {
        let open = |rules: &mut Rules| matches!(rules.stage, Stage::GivenUp(_));
        let waited = self.changed.wait_timeout_while(self.lock(), patience, open);
        let (rules, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match rules.stage {
            Stage::Succeeded(done) => Verdict::Succeeded(done),
            Stage::GivenUp(_) => Verdict::Open,
            _ => Verdict::Back,
        }
    }

    /// How many successors have failed, and why the last one did.
    pub fn failures(&self) -> (u32, Option<String>) {
        let rules = self.lock();
        (rules.failures, rules.failure.clone())
    }

    fn step(&self, next: impl FnOnce(Stage) -> Result<Stage, Misstep>) -> Result<(), Misstep> {
        let mut rules = self.lock();
        rules.stage = next(rules.stage)?;
        self.changed.notify_all();
        Ok(())
    }

    /// Every change is one assignment, so a panic leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(20);

    /// A succession whose successor, process 7, prepares.
    fn preparing() -> Arc<Succession> {
        let succession = Arc::new(Succession::new());
        succession.begin().unwrap();
        succession.started(7).unwrap();
        succession
    }

    /// One whose successor has asked, and was given the part.
    fn given_up() -> Arc<Succession> {
        let succession = preparing();
        let asking = succession.clone();
        let asked = std::thread::spawn(move || asking.ask(7, LATE));
        while !succession.is_asked() {
            std::thread::yield_now();
        }
        assert!(succession.give_up());
        assert_eq!(asked.join().unwrap(), Ok(()));
        succession
    }

    #[test]
    fn the_part_is_given_up_only_to_a_successor_that_asked_for_it() {
        let succession = preparing();
        assert!(!succession.give_up());
        assert_eq!(succession.ask(8, SOON), Err(Misstep::NotSuccessor(8)));
        assert_eq!(succession.taken(7, 0), Err(Misstep::NotSuccessor(7)));
        assert_eq!(succession.stage(), Stage::Preparing(7));
    }

    #[test]
    fn a_successor_that_has_the_part_ends_the_matter() {
        let succession = given_up();
        assert_eq!(succession.verdict(SOON), Verdict::Open);
        assert_eq!(succession.taken(8, 0), Err(Misstep::NotSuccessor(8)));
        succession.taken(7, 42).unwrap();
        let done = HandedOver { pid: 7, silence_us: 42 };
        assert_eq!(succession.verdict(SOON), Verdict::Succeeded(done));
        // Its end is not this process's business any more.
        assert!(!succession.ended("killed"));
        assert_eq!(succession.verdict(SOON), Verdict::Succeeded(done));
    }

    #[test]
    fn a_successor_that_ends_in_between_leaves_the_old_one_in_charge() {
        let succession = given_up();
        assert!(succession.ended("killed"));
        assert_eq!(succession.verdict(LATE), Verdict::Back);
        assert_eq!(succession.taken(7, 0), Err(Misstep::NotSuccessor(7)));
        assert_eq!(succession.failures(), (1, Some("killed".into())));
        succession.begin().unwrap();
    }

    #[test]
    fn a_successor_that_ends_before_it_is_ready_changes_nothing() {
        let succession = preparing();
        assert!(succession.ended("bad configuration"));
        assert_eq!(succession.stage(), Stage::InCharge);
        assert!(!succession.give_up());
    }

    #[test]
    fn there_is_one_successor_at_a_time() {
        let succession = preparing();
        assert_eq!(succession.begin(), Err(Misstep::Busy));
        assert_eq!(succession.started(8), Err(Misstep::NotSuccessor(8)));
    }

    #[test]
    fn a_part_that_is_not_given_up_in_time_must_not_be_taken() {
        let succession = preparing();
        assert_eq!(succession.ask(7, SOON), Err(Misstep::Busy));
        assert!(!succession.give_up(), "it has stopped waiting");
        assert_eq!(succession.taken(7, 0), Err(Misstep::NotSuccessor(7)));
    }
}
