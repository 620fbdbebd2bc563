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
mod primary;
mod reports;
mod secondary;
mod security;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::config::{self, Config, SyncDomain};
use baton_common::id::{NumaId, SyncDomainId};
use baton_common::logging;
use baton_common::netlink::{Mirror, MirrorOptions};
use clap::Parser;
use sd_notify::NotifyState;

use crate::announcer::Announcer;
use crate::attachment::Attachment;
use crate::control::Desk;
use crate::memory::Memory;
use crate::secondary::{End, Secondary};
use crate::security::load_keys;
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
    /// Checks the configuration and exits.
    #[arg(long)]
    check: bool,
    /// Prints the commented sample configuration and exits.
    #[arg(long)]
    print_default: bool,
}

/// How often a process that stands by looks whether it is to leave.
const STAND_BY_TURN: Duration = Duration::from_millis(200);

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
    let _lock = lock::acquire(&config.paths.runtime, numa)?;
    let primary = primary::find(&config.paths.runtime)?;
    if !config.sync.enabled {
        return stand_by(&primary, &stop);
    }
    let (id, domain) = domain_of(config, numa)?;
    let keyring = load_keys(&config.sync.security)?;
    // Before DPDK binds this thread to its CPU: other threads are not to share it.
    let desk = Desk::open(&config.paths.runtime, numa, &config.sync.security)?;
    let announcer = Announcer::start(config, numa)?;
    let mirror = Mirror::start(MirrorOptions {
        interface: config.punt.interface.clone(),
        keep: config
            .sync
            .peers
            .iter()
            .flat_map(|peer| &peer.addresses)
            .map(|&address| address.into())
            .collect(),
    })
    .context("mirroring the kernel's routes and neighbours")?;
    let memory = Memory::attach(config, id, domain)?;
    let _metrics = metrics::start(config, id, domain, &desk)?;
    let attachment = Attachment::begin(config, id, domain, &primary)?;
    let secondary = Secondary::new(config, domain, keyring, memory, attachment, &mirror, desk, announcer)?;
    sd_notify::notify(false, &[NotifyState::Ready]).context("telling the service manager")?;
    tracing::info!(numa = domain.numa.0, elapsed_ms = began.elapsed().as_millis() as u64, "synchronising");
    let end = secondary.run(&primary, &stop);
    // A service manager that does not listen is no reason to fail at the end.
    let _ = sd_notify::notify(false, &[NotifyState::Stopping]);
    match end {
        End::PrimaryGone => {
            tracing::info!(numa = domain.numa.0, pid = primary.pid(), "left, as the primary is gone")
        }
        End::Stopped => tracing::info!(numa = domain.numa.0, "stopped"),
    }
    Ok(())
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
