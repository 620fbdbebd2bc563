//! The process behind `impair`: reads diverted frames from taps and drops, holds or doubles them.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::impair::Impairment;
use crate::netns;
use crate::random::Random;
use crate::signals;
use crate::state::write_atomically;

/// Most frames held at a time, in each direction; more are lost, as in any queue.
const HELD_MAX: usize = 20_000;
/// How often the report is written.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// What the relay is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A tap to serve, as NAMESPACE/INTERFACE
    #[arg(long = "tap", required = true)]
    taps: Vec<String>,
    /// Where to write what was done, as JSON
    #[arg(long)]
    report: PathBuf,
    #[command(flatten)]
    impairment: Impairment,
    /// Start of the random sequence, for a run like an earlier one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the relay did since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Report {
    seen: u64,
    lost: u64,
    doubled: u64,
    overflowed: u64,
    passed: u64,
}

/// Frames of one direction on their way.
struct Line {
    tap: SyncDevice,
    held: VecDeque<(Instant, Vec<u8>)>,
}

/// Relays until told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// If a tap cannot be opened or read.
pub fn relay(arguments: &Arguments) -> Result<()> {
    signals::note()?;
    let mut lines = Vec::new();
    for name in &arguments.taps {
        let (netns, interface) =
            name.split_once('/').ok_or_else(|| anyhow!("`{name}` is not NAMESPACE/INTERFACE"))?;
        let tap = netns::inside(netns, || open_tap(interface).with_context(|| format!("tap {name}")))?;
        lines.push(Line { tap, held: VecDeque::new() });
    }
    let mut random = Random::new(arguments.seed);
    let mut report = Report::default();
    let mut reported = Instant::now();
    write_report(arguments, report)?;
    while !signals::is_set() {
        wait(&lines)?;
        for line in &mut lines {
            receive(line, &arguments.impairment, &mut random, &mut report)?;
            release(line, Instant::now(), &mut report);
        }
        if reported.elapsed() >= REPORT_EVERY {
            write_report(arguments, report)?;
            reported = Instant::now();
        }
    }
    write_report(arguments, report)
}

fn write_report(arguments: &Arguments, report: Report) -> Result<()> {
    write_atomically(&arguments.report, &serde_json::to_vec(&report)?)
}

/// Waits for a frame, for the time that the next held one is due, or for the next report.
fn wait(lines: &[Line]) -> Result<()> {
    let due = lines.iter().filter_map(|line| line.held.front()).map(|(due, _)| *due).min();
    let timeout = match due {
        Some(due) => due.saturating_duration_since(Instant::now()).min(REPORT_EVERY),
        None => REPORT_EVERY,
    };
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(timeout.subsec_nanos()) };
    let mut polled: Vec<PollFd> = lines.iter().map(|line| PollFd::new(&line.tap, PollFlags::IN)).collect();
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes what has arrived and decides on each frame.
fn receive(line: &mut Line, impairment: &Impairment, random: &mut Random, report: &mut Report) -> Result<()> {
    const BURST_MAX: usize = 256;
    let mut frame = [0; 10_000];
    for _ in 0..BURST_MAX {
        let length = match line.tap.recv(&mut frame) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
            Err(error) => return Err(error).context("reading from the tap"),
        };
        report.seen += 1;
        if random.chance(impairment.loss_percent) {
            report.lost += 1;
            continue;
        }
        let doubled = random.chance(impairment.duplicate_percent);
        report.doubled += u64::from(doubled);
        let due = Instant::now() + Duration::from_millis(impairment.delay_ms.into());
        for _ in 0..=usize::from(doubled) {
            if line.held.len() < HELD_MAX {
                line.held.push_back((due, frame[..length].to_vec()));
            } else {
                report.overflowed += 1;
            }
        }
    }
    Ok(())
}

/// Sends on what has been held for long enough.
fn release(line: &mut Line, now: Instant, report: &mut Report) {
    while line.held.front().is_some_and(|(due, _)| *due <= now) {
        let Some((_, frame)) = line.held.pop_front() else { break };
        match line.tap.send(&frame) {
            Ok(_) => report.passed += 1,
            Err(_) => report.overflowed += 1,
        }
    }
}

/// Opens the existing tap `interface` of this thread's namespace, non-blocking.
fn open_tap(interface: &str) -> Result<SyncDevice> {
    let tap = DeviceBuilder::new().name(interface).layer(Layer::L2).inherit_enable_state().build_sync()?;
    tap.set_nonblocking(true)?;
    Ok(tap)
}
