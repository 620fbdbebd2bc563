//! The successor, as the process sees it that is in charge: a program on disk that is started, watched, and given the part.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use baton_common::control::{HandedOver, Refusal, RefusalCode};

use crate::succession::{Stage, Succession};

/// How long a successor may take until it is ready.
const READY_WAIT: Duration = Duration::from_secs(30);

/// How long it may take from being given the part until it has it. All that time nobody synchronises.
const TAKE_WAIT: Duration = Duration::from_secs(5);

/// How long to wait for the reason of one that is dead.
const REASON_WAIT: Duration = Duration::from_millis(500);

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(2);

/// Bytes that it may say about why it failed.
const REASON_MAX: u64 = 2048;

/// What to start.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file. What lies there when it is started, not what this process was started from.
    pub path: PathBuf,
    /// Its arguments, but for the one that makes it a successor.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// Starts a successor and gives it this process's part; waits until that is done.
    ///
    /// # Errors
    /// One is being started already; or it failed, and why: this process is in charge as before.
    pub fn succeed(&self, succession: &Succession) -> Result<HandedOver, Refusal> {
        succession.begin().map_err(|error| Refusal::new(RefusalCode::Busy, error.to_string()))?;
        self.start_and_watch(succession).map_err(|reason| {
            succession.ended(&reason);
            tracing::error!(error = %reason, "the successor failed: this process stays in charge");
            Refusal::new(
                RefusalCode::NotPossible,
                format!("the successor failed, the old one stays: {reason}"),
            )
        })
    }

    fn start_and_watch(&self, succession: &Succession) -> Result<HandedOver, String> {
        let path = self.path.display();
        let mut child = self.start().map_err(|error| format!("{path} cannot be started: {error}"))?;
        let pid = child.id();
        tracing::info!(pid, program = %path, "started the successor");
        let reason = child.stdout.take().map(listen);
        let outcome = match succession.started(pid) {
            Ok(()) => watch(&mut child, succession),
            Err(error) => Err(Some(error.to_string())),
        };
        outcome.map_err(|why| {
            // It is dead, or is so now: it can take nothing any more. What it said ends with it.
            let _ = child.kill();
            let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            let said = reason.and_then(|reason| reason.recv_timeout(REASON_WAIT).ok());
            let said = said.filter(|said| !said.is_empty());
            why.or(said).unwrap_or_else(|| format!("it ended before it had the part ({status}); see its log"))
        })
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new(&self.path)
            .args(&self.arguments)
            .arg("--succeed")
            .arg(std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    }
}

/// Waits until the successor has the part, or has failed: with a reason, if it is known from outside.
fn watch(child: &mut Child, succession: &Succession) -> Result<HandedOver, Option<String>> {
    let began = Instant::now();
    let mut given_up: Option<Instant> = None;
    loop {
        let stage = succession.stage();
        if let Stage::Succeeded(done) = stage {
            return Ok(done);
        }
        if matches!(stage, Stage::GivenUp(_)) {
            given_up.get_or_insert_with(Instant::now);
        }
        if child.try_wait().map_err(|error| Some(error.to_string()))?.is_some() {
            // It may have had the part for a moment.
            return match succession.stage() {
                Stage::Succeeded(done) => Ok(done),
                _ => Err(None),
            };
        }
        let (since, limit) = given_up.map_or((began, READY_WAIT), |since| (since, TAKE_WAIT));
        if since.elapsed() > limit {
            let what = if given_up.is_some() { "take the part" } else { "get ready" };
            return Err(Some(format!("it did not {what} within {} s and was ended", limit.as_secs())));
        }
        std::thread::sleep(POLL);
    }
}

/// Reads what the successor says before it ends, on a thread of its own: what it started itself may keep the pipe open.
fn listen(said: ChildStdout) -> Receiver<String> {
    let (reason, heard) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is worth as much; and who asked may have waited long enough.
        let _ = said.take(REASON_MAX).read_to_end(&mut bytes);
        let _ = reason.send(String::from_utf8_lossy(&bytes).trim().to_owned());
    });
    heard
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        let arguments = ["-c", script].map(OsString::from).to_vec();
        Program { path: "/bin/sh".into(), arguments }
    }

    /// What is said when that script is the successor.
    fn failure(program: &Program) -> String {
        let succession = Succession::new();
        let refusal = program.succeed(&succession).unwrap_err();
        assert_eq!(succession.stage(), Stage::InCharge);
        assert_eq!(succession.failures().0, 1);
        refusal.message
    }

    #[test]
    fn a_successor_that_fails_says_why() {
        let said = failure(&shell("echo 'no configuration'; exit 1"));
        assert!(said.contains("no configuration") && said.contains("the old one stays"), "{said}");
    }

    #[test]
    fn one_that_is_killed_says_nothing_and_its_end_is_told() {
        let said = failure(&shell("kill -SEGV $$"));
        assert!(said.contains("signal: 11"), "{said}");
    }

    #[test]
    fn what_a_dead_successor_has_started_keeps_nobody_waiting() {
        let began = Instant::now();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let said = failure(&shell(&format!("sleep 20 & echo $! > {}; exit 3", file.display())));
        let waited = began.elapsed();
        let pid = std::fs::read_to_string(file).unwrap().trim().parse().ok();
        let child = pid.and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        assert!(said.contains("exit status: 3"), "{said}");
        assert!(waited < Duration::from_secs(15));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let said = failure(&Program { path: "/nonexistent/baton-sync".into(), arguments: vec![] });
        assert!(said.contains("/nonexistent/baton-sync cannot be started"), "{said}");
    }

    /// Has the successor that is being started ask for the part, and gives it; returns its process.
    fn give_the_part(succession: &Succession) -> u32 {
        let pid = loop {
            match succession.stage() {
                Stage::Preparing(pid) => break pid,
                _ => std::thread::yield_now(),
            }
        };
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| succession.ask(pid, Duration::from_secs(20)));
            while !succession.give_up() {
                std::thread::yield_now();
            }
            asked.join().unwrap().unwrap();
        });
        pid
    }

    #[test]
    fn a_successor_that_ends_after_it_was_given_the_part_leaves_it_to_the_old_one() {
        let succession = &Succession::new();
        let program = shell("exec sleep 60");
        std::thread::scope(|scope| {
            let done = scope.spawn(|| program.succeed(succession));
            let pid = give_the_part(succession);
            let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).unwrap();
            rustix::process::kill_process(number, rustix::process::Signal::KILL).unwrap();
            assert!(done.join().unwrap().is_err());
        });
        assert_eq!(succession.stage(), Stage::InCharge);
    }

    #[test]
    fn a_successor_that_has_the_part_is_left_running() {
        let succession = &Succession::new();
        let program = shell("exec sleep 1");
        std::thread::scope(|scope| {
            let done = scope.spawn(|| program.succeed(succession));
            let pid = give_the_part(succession);
            succession.taken(pid, 9).unwrap();
            assert_eq!(done.join().unwrap().unwrap(), HandedOver { pid, silence_us: 9 });
        });
    }
}
