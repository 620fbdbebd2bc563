//! Reserves hugepages, mounts Baton's hugetlbfs and creates the table files; shows them, and takes them away again.
//!
//! Every command is idempotent and may be killed at any instruction: what was done so far is found out again from the
//! machine and from the record in `paths.runtime`.

mod apply;
mod arguments;
mod inventory;
mod locks;
mod machine;
mod mount;
mod need;
mod numa;
mod plan;
mod record;
mod remove;
mod report;
mod reserve;
mod status;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Parser;

use arguments::{Arguments, Command};
use baton_common::config::{Config, SAMPLE, check_report};
use machine::Machine;
use report::Report;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_default {
        print(SAMPLE.trim_end());
        return ExitCode::SUCCESS;
    }
    if arguments.check {
        let (report, good) = check_report(&arguments.config);
        print(&report);
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match run(&arguments) {
        Ok(output) => {
            print(&output);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("baton-hugepages: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a result. A reader that went away has what it wanted.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run(arguments: &Arguments) -> Result<String> {
    let Some(command) = &arguments.command else { bail!("no command: say plan, apply, status or remove") };
    let config = Config::load(&arguments.config)?;
    let machine = Machine::this();
    let json = arguments.json;
    match command {
        Command::Plan => output(&plan::look(&config, &machine)?, json),
        Command::Apply => {
            require_root("apply")?;
            let _lock = locks::machine_lock()?;
            output(&apply::apply(&config, &machine)?, json)
        }
        Command::Status => output(&status::status(&config, &machine)?, json),
        Command::Remove => {
            require_root("remove")?;
            let _lock = locks::machine_lock()?;
            output(&remove::remove(&config, &machine)?, json)
        }
    }
}

fn require_root(command: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("`{command}` reserves memory and mounts, which needs root: run it with sudo");
    }
    Ok(())
}

fn output<R: Report>(report: &R, json: bool) -> Result<String> {
    if json {
        return serde_json::to_string_pretty(report).context("cannot write JSON");
    }
    Ok(report.text().trim_end().to_owned())
}
