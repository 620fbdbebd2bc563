//! When a load begins, reports and ends, and how it tells so.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::signals;
use crate::state::write_atomically;

/// How often the report file is replaced and the end file looked for.
const REPORT_EVERY: Duration = Duration::from_millis(200);
/// How often a progress line is written.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What every load is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Limits {
    /// Longest time that the load goes on
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// End in order as soon as this file exists (so does SIGTERM)
    #[arg(long, value_name = "FILE")]
    pub until_file: Option<PathBuf>,
    /// Make this file when the load is whole: everything is open and was answered
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Keep this file up to date with the report as it stands, five times a second
    #[arg(long, value_name = "FILE")]
    pub report_file: Option<PathBuf>,
    /// Write the report as it stands to standard error every second
    #[arg(long)]
    pub progress: bool,
}

/// The clock of one load.
pub struct Pace {
    limits: Limits,
    started: Instant,
    reported: Instant,
    progressed: Instant,
    looked: Instant,
    ready: bool,
    over: bool,
}

impl Pace {
    /// The load starts now.
    pub fn start(limits: &Limits) -> Self {
        let started = Instant::now();
        Self {
            limits: limits.clone(),
            started,
            reported: started,
            progressed: started,
            looked: started,
            ready: false,
            over: false,
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the load started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// If the load is to end: its time is over, a signal came, or the end file exists.
    pub fn is_over(&mut self) -> bool {
        if !self.over {
            self.over = self.elapsed().as_secs() >= self.limits.seconds
                || signals::is_set()
                || self.end_file_exists();
        }
        self.over
    }

    fn end_file_exists(&mut self) -> bool {
        const LOOK_EVERY: Duration = Duration::from_millis(10);
        let Some(file) = &self.limits.until_file else { return false };
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        file.exists()
    }

    /// If [`ready`](Self::ready) was called.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Tells that the load is whole, with a report that says so; only the first call counts.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn ready<R: Serialize>(&mut self, report: impl FnOnce() -> R) -> Result<()> {
        if !self.ready {
            self.ready = true;
            self.write(&report())?;
            if let Some(file) = &self.limits.ready_file {
                write_atomically(file, b"")?;
            }
        }
        Ok(())
    }

    /// Shows the report as it stands, where and when it is wanted.
    ///
    /// # Errors
    /// If the report file cannot be written.
    pub fn show<R: Serialize>(&mut self, report: impl Fn() -> R) -> Result<()> {
        if self.limits.progress && self.progressed.elapsed() >= PROGRESS_EVERY {
            self.progressed = Instant::now();
            eprintln!("{}", serde_json::to_string(&report())?);
        }
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.write(&report())?;
        }
        Ok(())
    }

    /// Writes the last report.
    ///
    /// # Errors
    /// If the report file cannot be written.
    pub fn finish<R: Serialize>(&self, report: &R) -> Result<()> {
        self.write(report)
    }

    fn write<R: Serialize>(&self, report: &R) -> Result<()> {
        match &self.limits.report_file {
            Some(file) => write_atomically(file, &serde_json::to_vec(report)?),
            None => Ok(()),
        }
    }
}

/// Milliseconds with three decimals, as reports show times.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
