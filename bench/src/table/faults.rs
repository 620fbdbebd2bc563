//! A reader of Baton's table beside a writer process that was stopped, and then killed, inside a change.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde::{Deserialize, Serialize};

use super::baton::Baton;
use super::beside::Reading;
use super::churn::Churn;
use super::population::Population;
use super::quantity::Quantity;
use super::trial::{Job, Trial};
use crate::host::child::die_with_parent;
use crate::host::cpus;
use crate::report::median;

/// Writers that are stopped and killed.
const WRITERS: u32 = 2;

/// Slices of reading in each state.
const SLICES: u32 = 3;

/// How long a writer works before it is stopped.
const WORK: Duration = Duration::from_millis(5);

/// How long a process takes to stop, at most.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Times that a writer is stopped until it is found inside a change.
const STOP_ATTEMPTS: u32 = 200;

/// The command of the writer process.
pub const WRITER_COMMAND: &str = "table-writer";

/// What a writer process is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriterJob {
    table: PathBuf,
    population: Population,
    cpu: usize,
}

/// The writer process: takes the table over, says that it is ready, and changes it until it is killed.
///
/// # Errors
/// The table cannot be taken over.
pub fn write_for_ever(job: &WriterJob) -> Result<()> {
    die_with_parent()?;
    cpus::pin(job.cpu)?;
    let mut table = Baton::take_over(&job.table)?;
    let mut churn = Churn::of(job.population);
    println!("ready");
    std::io::stdout().flush()?;
    loop {
        churn.step(&mut table);
    }
}

/// Measures what a reader keeps of its speed.
///
/// # Errors
/// A session was lost, or a process cannot be started or stopped.
pub fn measure(job: &Job, trial: &mut Trial<Baton>) -> Result<()> {
    let (mut stopped, mut killed, mut contended) = (Vec::new(), Vec::new(), 0);
    for _ in 0..WRITERS {
        let mut churn = Churn::of(job.population);
        churn.prepare(&mut trial.table)?;
        let mut reading = Reading::new(&trial.table, job.population, churn.stable())?;
        let mut read = |reading: &mut Reading<Baton>| rate(reading, job.slice(), &mut contended);
        let before = read(&mut reading)?;
        trial.table.give_up();
        let mut writer = Writer::start(job, trial)?;
        writer.stop_in_change(&trial.table, &mut reading)?;
        let beside_stopped = read(&mut reading)?;
        writer.kill()?;
        let beside_killed = read(&mut reading)?;
        trial.table.succeed_the_dead()?;
        let after = read(&mut reading)?;
        // The machine's speed drifts; its state before and after is what it is compared with.
        let alone = (before + after) / 2.0;
        stopped.push(beside_stopped / alone);
        killed.push(beside_killed / alone);
        drop(reading);
        churn.restore(&mut trial.table)?;
    }
    trial.note(Quantity::ReaderKeptStopped, median(&stopped).unwrap_or(f64::NAN));
    trial.note(Quantity::ReaderKeptKilled, median(&killed).unwrap_or(f64::NAN));
    trial.note(Quantity::ContendedAfterDeath, contended as f64);
    Ok(())
}

/// The rate of a reader: the median of some slices.
fn rate(reading: &mut Reading<Baton>, length: Duration, contended: &mut u64) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..SLICES {
        let slice = reading.slice(length)?;
        *contended += slice.contended;
        rates.push(slice.rate());
    }
    Ok(median(&rates).unwrap_or(f64::NAN))
}

/// The writer process. It is killed at the latest when this is dropped.
struct Writer(Child);

impl Writer {
    /// Starts it and waits until it works.
    fn start(job: &Job, trial: &Trial<Baton>) -> Result<Writer> {
        let writer_job = WriterJob {
            table: trial.table.path().to_owned(),
            population: job.population,
            cpu: job.cpus.writer,
        };
        let child = Command::new(env::current_exe()?)
            .arg(WRITER_COMMAND)
            .arg(serde_json::to_string(&writer_job)?)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a writer process")?;
        let mut writer = Writer(child);
        let output = writer.0.stdout.take().context("the writer has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "the writer did not become ready: {line:?}");
        Ok(writer)
    }

    /// Stops it inside a change. The reader goes on meanwhile, for the writer needs the slots that it is through with.
    fn stop_in_change(&self, table: &Baton, reading: &mut Reading<Baton>) -> Result<()> {
        for _ in 0..STOP_ATTEMPTS {
            reading.slice(WORK)?;
            self.stop()?;
            if table.is_in_change()? {
                return Ok(());
            }
            kill_process(self.pid(), Signal::CONT)?;
        }
        bail!("the writer was in no change at any of {STOP_ATTEMPTS} stops");
    }

    /// Stops it somewhere.
    fn stop(&self) -> Result<()> {
        kill_process(self.pid(), Signal::STOP)?;
        let deadline = Instant::now() + STOP_MAX;
        loop {
            let state = waitpid(Some(self.pid()), WaitOptions::UNTRACED | WaitOptions::NOHANG)?;
            if state.is_some_and(|(_, state)| state.stopped()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the writer does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.kill();
    }
}
