//! The sync secondary: one process per NUMA node. It tells the peers of this node's sessions and keeps theirs.

mod announcer;
mod attachment;
mod control;
mod foreign;
mod link;
mod lock;
mod memory;
mod metrics;
mod outbox;
mod post;
mod predecessor;
mod primary;
mod reports;
mod secondary;
mod security;
mod succession;
mod successor;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::config::{self, Config, SyncDomain};
use baton_common::id::{NumaId, SyncDomainId};
use baton_common::logging;
use clap::Parser;
use sd_notify::NotifyState;

use crate::announcer::Announcement;
use crate::post::Post;
use crate::predecessor::Predecessor;
use crate::secondary::{End, Secondary};
use crate::succession::Verdict;
use crate::successor::Program;
use baton_common::runtime::ProcessWatch;

/// Baton's sync secondary: tells the peers of this node's sessions, and keeps theirs, for one NUMA node.
#[derive(Parser)]
#[command(name = "baton-sync", version)]
struct Arguments {
    /// The node's configuration.
    #[arg(long, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// The NUMA node to serve; it has an entry in `sync.domains`.
    #[arg(long, required_unless_present_any = ["check", "print_default"])]
    numa: Option<u8>,
    /// Takes the part of this process, which is in charge and has started this one: see `batonctl sync hand-over`.
    #[arg(long, value_name = "PID", hide = true)]
    succeed: Option<u32>,
    /// Checks the configuration and exits.
    #[arg(long)]
    check: bool,
    /// Prints the commented sample configuration and exits.
    #[arg(long)]
    print_default: bool,
}

/// How often a process that stands by looks whether it is to leave.
const STAND_BY_TURN: Duration = Duration::from_millis(200);

/// How often a process that has given its part up looks whether it is to leave for another reason.
const VERDICT_TURN: Duration = Duration::from_millis(20);

/// How long a process that was succeeded stays, for its last answer to be sent.
const LAST_ANSWER: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_default {
        print!("{}", config::SAMPLE);
        return ExitCode::SUCCESS;
    }
    if arguments.check {
        let (report, good) = config::check_report(&arguments.config);
        println!("{report}");
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baton-sync: {error:#}");
            if arguments.succeed.is_some() {
                // Who started it reads this, and goes on in its place.
                println!("{error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let began = Instant::now();
    let config = &Config::load(&arguments.config)?;
    let numa = NumaId(arguments.numa.unwrap_or_default());
    logging::start(config, Some(numa));
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("catching signals")?;
    }
    let runtime = &config.paths.runtime;
    let mut predecessor = arguments.succeed.map(|pid| Predecessor::find(runtime, numa, pid)).transpose()?;
    let mut role = if predecessor.is_none() { Some(lock::acquire(runtime, numa)?) } else { None };
    let primary = primary::find(runtime)?;
    if !config.sync.enabled {
        if predecessor.is_some() {
            bail!("sync.enabled is false in the configuration: restart the service instead");
        }
        return stand_by(&primary, &stop);
    }
    let (id, domain) = domain_of(config, numa)?;
    let succeeds = predecessor.is_some();
    let mut post = Post::set_up(config, id, domain, &primary, successor_of(arguments)?, succeeds)?;
    let elapsed_ms = began.elapsed().as_millis() as u64;
    if let Some(predecessor) = &mut predecessor {
        post.know_neighbours(&primary, &stop)?;
        tracing::info!(numa = numa.0, elapsed_ms, "ready to succeed");
        predecessor.ask()?;
    }
    loop {
        let held = match role.take() {
            Some(held) => held,
            None => lock::acquire(runtime, numa)?,
        };
        let secondary = Secondary::new(&mut post, predecessor.take())?;
        if !succeeds {
            sd_notify::notify(false, &[NotifyState::Ready]).context("telling the service manager")?;
        }
        tracing::info!(numa = numa.0, elapsed_ms = began.elapsed().as_millis() as u64, "synchronising");
        let end = secondary.run(&primary, &stop);
        drop(held);
        if end != End::GivenUp {
            leave(end, post, &primary);
            return Ok(());
        }
        if let Some(pid) = wait_for_verdict(&post, &primary, &stop) {
            post.desk.step_down();
            // A service manager that does not listen is no reason to stay.
            let _ = sd_notify::notify(false, &[NotifyState::MainPid(pid)]);
            std::thread::sleep(LAST_ANSWER);
            tracing::info!(numa = numa.0, successor = pid, "left, as the successor is in charge");
            return Ok(());
        }
        if stop.load(Ordering::Relaxed) || !primary.lives() {
            leave(End::Stopped, post, &primary);
            return Ok(());
        }
        tracing::warn!(numa = numa.0, "the successor ended: taking the part back");
    }
}

/// Says that this process stops, and why.
fn leave(end: End, post: Post<'_>, primary: &ProcessWatch) {
    // A service manager that does not listen is no reason to fail at the end.
    let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    let numa = post.domain.numa.0;
    if end == End::PrimaryGone {
        post.announcer.tell_last(Announcement::Down);
        tracing::info!(numa, pid = primary.pid(), "left, as the primary is gone");
    } else {
        tracing::info!(numa, "stopped");
    }
}

/// Gives the part up, and waits until the successor has it; returns its process then. `None` if the part is this process's again, or
/// it is to leave.
fn wait_for_verdict(post: &Post<'_>, primary: &ProcessWatch, stop: &AtomicBool) -> Option<u32> {
    let succession = post.desk.succession();
    succession.give_up();
    loop {
        match succession.verdict(VERDICT_TURN) {
            Verdict::Succeeded(done) => return Some(done.pid),
            Verdict::Open if primary.lives() && !stop.load(Ordering::Relaxed) => {}
            Verdict::Open | Verdict::Back => return None,
        }
    }
}

/// What succeeds this process: the program in the same place, with the same arguments.
fn successor_of(arguments: &Arguments) -> anyhow::Result<Program> {
    let path = std::env::current_exe().context("finding this program's file")?;
    let mut words = vec![OsString::from("--config"), arguments.config.clone().into()];
    if let Some(numa) = arguments.numa {
        words.extend(["--numa".into(), numa.to_string().into()]);
    }
    Ok(Program { path, arguments: words })
}

/// Stays until it is told to stop or the primary is gone, and does nothing: with sync off there is nothing to do, and a
/// service manager that wants this process would start it again and again if it left.
fn stand_by(primary: &ProcessWatch, stop: &AtomicBool) -> anyhow::Result<()> {
    let status = NotifyState::Status("standing by: sync.enabled is false in the configuration");
    sd_notify::notify(false, &[NotifyState::Ready, status]).context("telling the service manager")?;
    tracing::warn!("standing by: sync.enabled is false in the configuration");
    while primary.lives() && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STAND_BY_TURN);
        let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
    }
    Ok(())
}

/// The sync domain of a NUMA node.
fn domain_of(config: &Config, numa: NumaId) -> anyhow::Result<(SyncDomainId, &SyncDomain)> {
    let position = config.sync.domains.iter().position(|domain| domain.numa == numa);
    let Some(position) = position else {
        let known: Vec<_> = config.sync.domains.iter().map(|domain| domain.numa.to_string()).collect();
        bail!("NUMA node {numa} has no entry in sync.domains; --numa may be one of: {}", known.join(", "));
    };
    Ok((SyncDomainId(position as u8), &config.sync.domains[position]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Config {
        Config::parse(config::SAMPLE, "sample").unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_numa_node_without_a_domain_is_refused_by_name() {
        let config = sample();
        assert_eq!(domain_of(&config, NumaId(0)).unwrap().0, SyncDomainId(0));
        let error = domain_of(&config, NumaId(7)).unwrap_err().to_string();
        assert!(error.contains("NUMA node 7") && error.contains("one of: 0"), "{error}");
    }
}
