//! The command line.

use std::path::PathBuf;

use baton_common::config::DEFAULT_PATH;
use clap::{Parser, Subcommand};

use crate::filter::SessionFilter;

/// Shows what a Baton node is doing: its sessions, counters, services and peers.
#[derive(Debug, Parser)]
#[command(name = "batonctl", version, arg_required_else_help = true)]
pub struct Arguments {
    /// The node's configuration file.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print JSON instead of tables; field names stay the same from version to version.
    #[arg(long, global = true)]
    pub json: bool,
    /// Only check the configuration file.
    #[arg(long, conflicts_with = "print_default")]
    pub check: bool,
    /// Only print a sample configuration, with every field explained.
    #[arg(long)]
    pub print_default: bool,
    /// What to show.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be shown.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How the primary is: port, steering, workers, secondaries.
    Status,
    /// What was received, sent, dropped and why. Works without a primary too.
    Counters {
        /// Show counters that are zero too.
        #[arg(long)]
        all: bool,
        /// Show the value of each thread too.
        #[arg(long)]
        per_thread: bool,
    },
    /// The sessions in this node's tables. Works without a primary too.
    Sessions(SessionsArguments),
    /// The services, their real servers and the sessions these were given.
    Services,
    /// What was heard from the other nodes. Works without a primary too.
    Peers,
}

/// Which sessions to show, and how many.
#[derive(Debug, clap::Args)]
pub struct SessionsArguments {
    /// Which sessions.
    #[command(flatten)]
    pub filter: SessionFilter,
    /// Show no more than this; 0 shows all.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,
    /// Show only how many there are.
    #[arg(long)]
    pub count: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        let before = Arguments::try_parse_from(["batonctl", "--json", "--config", "x", "peers"]).unwrap();
        let behind = Arguments::try_parse_from(["batonctl", "peers", "--json", "--config", "x"]).unwrap();

        assert!(before.json && behind.json);
        assert_eq!((before.config, behind.config), ("x".into(), "x".into()));
    }
}
