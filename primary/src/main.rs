//! The primary process: owns the port, its queues and steering rules, and the connection tables, and forwards.

mod lock;
mod memory;
mod node;
mod port;
mod pulse;
mod punt;
mod server;
mod supervisor;
mod worker;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use baton_common::config::{self, Config};
use baton_common::logging;
use baton_common::runtime::ready_path;
use clap::Parser;
use sd_notify::NotifyState;

use crate::node::Node;

/// Baton's primary process: port, workers, forwarding.
#[derive(Parser)]
#[command(name = "baton-primary", version)]
struct Arguments {
    /// The node's configuration.
    #[arg(long, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
    /// Checks the configuration and exits.
    #[arg(long)]
    check: bool,
    /// Prints the commented sample configuration and exits.
    #[arg(long)]
    print_default: bool,
}

/// How often the control thread looks around.
const TURN: Duration = Duration::from_millis(20);

/// How often the watchdog is fed.
const FEED: Duration = Duration::from_secs(1);

/// A thread whose pulse stands still for so long hangs: the watchdog is no longer fed.
const HANG: Duration = Duration::from_secs(3);

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
            eprintln!("baton-primary: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = Arc::new(Config::load(&arguments.config)?);
    logging::start(&config, None);
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("catching signals")?;
    }
    let node = Node::start(config.clone())?;
    node.wait_for_neighbours();
    sd_notify::notify(false, &[NotifyState::Ready]).context("telling the service manager")?;
    tracing::info!(node = config.node.id.0, workers = config.workers.len(), "forwarding");
    watch(&node, &stop);
    sd_notify::notify(false, &[NotifyState::Stopping]).context("telling the service manager")?;
    node.stop();
    withdraw(&config);
    tracing::info!("stopped");
    Ok(())
}

/// Takes the ready files away. A secondary that is stopped leaves its own, for the node forwards on; now it does not.
fn withdraw(config: &Config) {
    for domain in &config.sync.domains {
        let path = ready_path(&config.paths.runtime, domain.numa);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), %error, "the ready file cannot be removed");
            }
            _ => {}
        }
    }
}

/// Looks after the node until it is told to stop.
fn watch(node: &Node, stop: &AtomicBool) {
    let mut last_beats = node.beats();
    let mut last_change = vec![Instant::now(); last_beats.len()];
    let mut fed = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(TURN);
        node.supervisor().reap();
        let beats = node.beats();
        for (thread, changed) in last_change.iter_mut().enumerate() {
            if beats[thread] != last_beats[thread] {
                *changed = Instant::now();
            }
        }
        last_beats = beats;
        if fed.elapsed() >= FEED && last_change.iter().all(|changed| changed.elapsed() < HANG) {
            fed = Instant::now();
            // A service manager that does not listen is no reason to stop forwarding.
            let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
        }
    }
}
