//! `baton-bench`: runs Baton's benchmarks.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use baton_bench::host::child;
use baton_bench::sync::{self, memory, port};
use baton_bench::table::{self, Kind};
use clap::{Args, Parser, Subcommand};

/// Baton beside what others would have used, and beside what the machine can do at all.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Session tables: Baton's, DPDK's rte_hash, concurrent maps of Rust. Needs root, for hugepages.
    Table(TableArguments),
    /// Sessions from node to node: Baton's protocol, conntrackd, Redis. Needs root, for hugepages and namespaces.
    Sync(SyncArguments),
    /// One contender of `table`, in a process of its own.
    #[command(name = table::TRIAL_COMMAND, hide = true)]
    TableTrial {
        /// What to do, as JSON.
        job: String,
        /// Where the answer goes.
        answer: PathBuf,
    },
    /// The sending end of a port.
    #[command(name = port::SOURCE_COMMAND, hide = true)]
    SyncSource {
        /// What to do, as JSON.
        job: String,
    },
    /// The receiving end of a port.
    #[command(name = sync::PORT_COMMAND, hide = true)]
    SyncPort {
        /// What to do, as JSON.
        job: String,
        /// Where the answer goes.
        answer: PathBuf,
    },
    /// Two nodes in one process.
    #[command(name = sync::MEMORY_COMMAND, hide = true)]
    SyncMemory {
        /// What to do, as JSON.
        job: String,
        /// Where the answer goes.
        answer: PathBuf,
    },
    /// A writer that is killed.
    #[command(name = table::WRITER_COMMAND, hide = true)]
    TableWriter {
        /// What to do, as JSON.
        job: String,
    },
}

#[derive(Debug, Args)]
struct SyncArguments {
    /// Sessions of a full sync: numbers, separated by blanks or commas.
    #[arg(long, default_value = "1000000 5000000 20000000", value_parser = sizes)]
    sizes: Sizes,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Where the results go.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct TableArguments {
    /// Sessions in the tables: numbers, separated by blanks or commas.
    #[arg(long, default_value = "1000000 5000000 20000000", value_parser = sizes)]
    sizes: Sizes,
    /// Who is measured: baton, rte_hash, papaya, scc, dashmap, machine. All of them unless said otherwise.
    #[arg(long, value_delimiter = ',', value_parser = contender)]
    contenders: Vec<Kind>,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long each rate is measured, milliseconds.
    #[arg(long, default_value_t = 200)]
    slice_ms: u64,
    /// Another seed gives other sessions.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Where the results go.
    #[arg(long, default_value = "bench/results")]
    out: PathBuf,
}

#[derive(Clone, Debug)]
struct Sizes(Vec<u32>);

fn sizes(text: &str) -> Result<Sizes, std::num::ParseIntError> {
    let words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.map(|word| word.replace('_', "").parse()).collect::<Result<_, _>>().map(Sizes)
}

fn contender(name: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name));
    known.ok_or_else(|| format!("there is no contender {name}"))
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baton-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Table(arguments) => table::run(&table::Options {
            sizes: arguments.sizes.0,
            contenders: match &arguments.contenders[..] {
                [] => Kind::ALL.to_vec(),
                some => some.to_vec(),
            },
            rounds: arguments.rounds,
            slice: Duration::from_millis(arguments.slice_ms),
            seed: arguments.seed,
            out: arguments.out,
        }),
        Command::TableTrial { job, answer } => {
            let job = serde_json::from_str(&job).context("no such trial")?;
            child::answer(&answer, &table::trial(&job)?)
        }
        Command::Sync(SyncArguments { sizes, rounds, out }) => {
            sync::run(&sync::Options { sizes: sizes.0, rounds, out })
        }
        Command::SyncMemory { job, answer } => {
            let job = serde_json::from_str(&job).context("no such trial")?;
            child::answer(&answer, &memory::full_sync(&job)?)
        }
        Command::SyncSource { job } => port::source(&serde_json::from_str(&job).context("no such trial")?),
        Command::SyncPort { job, answer } => {
            let job = serde_json::from_str(&job).context("no such trial")?;
            child::answer(&answer, &port::trial(&job)?)
        }
        Command::TableWriter { job } => {
            table::write_for_ever(&serde_json::from_str(&job).context("no such writer")?)
        }
    }
}
