//! A load that the demo makes: a process on the client, told to begin, watched, and called off.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::demo::stage::Stage;
use crate::demo::wait::wait_until;
use crate::host::Host;
use crate::netns;
use crate::process::{spawn, tail};
use crate::state::write_atomically;

/// Longest time that a load goes on if nobody calls it off, seconds.
const SECONDS_MAX: u32 = 170;
/// How long a load may take until it is whole.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running load.
pub struct Traffic {
    name: String,
    child: Child,
    log: PathBuf,
    ready: PathBuf,
    report: PathBuf,
    until: PathBuf,
}

impl Traffic {
    /// Starts `baton-lab load ARGUMENTS` on client c1; `name` is that of its files.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(stage: &Stage, name: &str, arguments: &[&str]) -> Result<Self> {
        let host = Host::Client(1);
        let dir = stage.host_dir(host);
        let file = |kind: &str| dir.join(format!("{name}.{kind}"));
        let (log, ready, report, until) = (file("log"), file("ready"), file("json"), file("until"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--name", &stage.name, "load"]).args(arguments);
        command.args(["--seconds", &SECONDS_MAX.to_string()]);
        for (option, path) in [("--ready-file", &ready), ("--report-file", &report), ("--until-file", &until)]
        {
            command.arg(option).arg(path);
        }
        // Inside the namespace from the start, where `down` finds it.
        let (child, _) = netns::inside(&stage.lab()?.netns(host), || spawn(command, &log))?;
        Ok(Self { name: name.to_owned(), child, log, ready, report, until })
    }

    /// Waits until the load is whole: everything is open and was answered.
    ///
    /// # Errors
    /// If that takes too long or the load ends.
    pub fn wait_ready(&mut self) -> Result<()> {
        let what = format!("the load `{}` to be whole", self.name);
        let (child, ready) = (&mut self.child, &self.ready);
        let waited = wait_until(READY_TIMEOUT, &what, || Ok(ready.exists() || child.try_wait()?.is_some()));
        if waited.is_ok() && self.ready.exists() {
            return Ok(());
        }
        let shown =
            || format!("the load `{}` did not come about; its log ends:\n{}", self.name, tail(&self.log));
        waited.with_context(shown)?;
        Err(anyhow::anyhow!("{}", shown()))
    }

    /// The report as it stands, at most 0.2 s old; `None` as long as there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn report<R: DeserializeOwned>(&self) -> Result<Option<R>> {
        match std::fs::read(&self.report) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| self.report.display().to_string()),
        }
    }

    /// Tells the load to end in order.
    ///
    /// # Errors
    /// If it cannot be told.
    pub fn call_off(&self) -> Result<()> {
        write_atomically(&self.until, b"")
    }

    /// Waits for the end, at most for `limit`, and returns the last report.
    ///
    /// # Errors
    /// If it does not end, or left no report.
    pub fn end<R: DeserializeOwned>(mut self, limit: Duration) -> Result<R> {
        self.call_off()?;
        let what = format!("the end of the load `{}`", self.name);
        wait_until(limit, &what, || Ok(self.child.try_wait()?.is_some()))?;
        self.report()?.with_context(|| {
            format!("the load `{}` left no report; its log ends:\n{}", self.name, tail(&self.log))
        })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
