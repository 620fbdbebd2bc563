//! The operator's command.

mod arguments;
mod completions;
mod counters;
mod difference;
mod files;
mod filter;
mod keys;
mod peers;
mod report;
mod services;
mod sessions;
mod status;
mod sync;
mod top;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_common::config::{self, Config};
use baton_common::control::{CallError, Callee, Client};
use baton_common::id::NodeId;
use baton_common::time::Millis;
use clap::{CommandFactory, Parser, error::ErrorKind};

use arguments::{Arguments, Command, SessionsArguments, SessionsCommand, Show};
use counters::CountersReport;
use peers::PeersReport;
use report::Report;
use services::ServicesReport;
use sessions::SessionsReport;
use status::StatusReport;

/// How long the primary may take to answer.
const PRIMARY_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("batonctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.print_default {
        report::print_text(config::SAMPLE)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        let (text, good) = config::check_report(&arguments.config);
        report::print_text(&text)?;
        return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let Some(command) = &arguments.command else {
        Arguments::command().error(ErrorKind::MissingSubcommand, "a command is needed: see --help").exit();
    };
    match command {
        Command::Sync(command) => {
            print(&sync::run(*command, &Config::load(&arguments.config)?)?, arguments.json)?;
        }
        Command::Show(Show::Sessions(SessionsArguments {
            command: Some(SessionsCommand::Diff { peer }),
            ..
        })) => {
            let config = Config::load(&arguments.config)?;
            let report = difference::compare(&config, NodeId(*peer))?;
            print(&report, arguments.json)?;
            return Ok(if report.equal { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Top(arguments_of_top) => {
            top::run(arguments_of_top, Config::load(&arguments.config)?, arguments.json)?;
        }
        Command::Completions { shell } => print(&completions::of(*shell), arguments.json)?,
        Command::Key(command) => print(&keys::run(command, &arguments.config)?, arguments.json)?,
        Command::Show(what) => show(what, &Config::load(&arguments.config)?, arguments.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(what: &Show, config: &Config, json: bool) -> Result<()> {
    match what {
        Show::Status => print(&StatusReport(primary(config)?.status()?), json),
        Show::Services => print(&ServicesReport { services: primary(config)?.services()? }, json),
        Show::Counters { all, per_thread } => {
            let file = files::counters(config)?;
            let threads = counters::of_primary(&file).chain(counters::of_secondaries(&file, config));
            print(&CountersReport::read(&threads.collect::<Vec<_>>(), *all, *per_thread), json)
        }
        Show::Sessions(arguments) => {
            let tables = files::tables(config, &arguments.filter)?;
            let scan = |visit: &mut dyn FnMut(_, _)| tables.iter().map(|table| table.scan(visit)).sum();
            print(&SessionsReport::collect(scan, arguments, Millis::now()), json)
        }
        Show::Peers => print(&peers(config)?, json),
    }
}

fn peers(config: &Config) -> Result<PeersReport> {
    if !config.sync.enabled {
        return Ok(PeersReport::new(config, &[], &[], Vec::new(), Millis::now()));
    }
    let file = files::counters(config)?;
    let threads: Vec<_> = counters::of_secondaries(&file, config).collect();
    let counted = CountersReport::read(&threads, false, false);
    let (heard, said) = (files::peers(config)?, sync::statuses(config));
    Ok(PeersReport::new(config, &heard, &said, counted.counters, Millis::now()))
}

fn primary(config: &Config) -> Result<Client, CallError> {
    Client::connect(&config.paths.runtime, Callee::Primary, PRIMARY_TIMEOUT)
}

fn print(report: &impl Report, json: bool) -> Result<()> {
    report::print(report, json).context("cannot write to standard output")
}
