//! The command line.

use std::path::PathBuf;

use baton_common::config::DEFAULT_PATH;
use clap::{Parser, Subcommand};

use crate::filter::SessionFilter;
use crate::top::TopArguments;

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
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at this node.
    #[command(flatten)]
    Show(Show),
    /// How far this node is with what the others have; withdraw it, or do not wait for the rest.
    #[command(subcommand)]
    Sync(SyncCommand),
    /// What the node does just now: rates, sessions, drops, peers; on a terminal with keys, or in print. Works without a
    /// primary too.
    Top(TopArguments),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: CompletionShell,
    },
    /// Make, show and change the key file of the sync protocol. Without a path: the one that the configuration names.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// The shells that completions can be had for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompletionShell {
    /// For /usr/share/bash-completion/completions/batonctl
    Bash,
    /// For a file _batonctl in a directory of $fpath
    Zsh,
    /// For /usr/share/fish/vendor_completions.d/batonctl.fish
    Fish,
}

/// What can be shown.
#[derive(Debug, Subcommand)]
pub enum Show {
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

/// What to ask of the sync secondaries.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SyncCommand {
    /// Show each secondary's state.
    Show,
    /// Draw no more traffic: state, ready file and hook say so. Remembered until `resume`, or until the machine restarts.
    Drain,
    /// Draw traffic again.
    Resume,
    /// Do not wait for members that are not heard, nor for the last sessions: `sync.ready_percent` of them are enough.
    Accept,
    /// Read the key file again and use its keys from now on.
    Keys,
    /// Start a secondary from the program on disk and hand over to it, as an upgrade does. If it fails, the old one stays.
    HandOver {
        /// The secondary of this NUMA node only.
        #[arg(long)]
        numa: Option<u8>,
    },
}

/// What to do with a key file. Secondaries read it when they start, and on `batonctl sync keys`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key file with one new key. One that exists stays as it is.
    New(KeyPath),
    /// Show the keys' numbers, what they are used for, and fingerprints that tell whether two nodes have the same.
    Show(KeyPath),
    /// Add a new key, which opens and does not seal yet.
    Add(KeyPath),
    /// Let a key seal. The one before goes on opening.
    Use(KeyChoice),
    /// Take a key away that no node seals with any more.
    Remove(KeyChoice),
}

/// Which key file.
#[derive(Debug, clap::Args)]
pub struct KeyPath {
    /// The key file.
    pub path: Option<PathBuf>,
}

/// Which key of which file.
#[derive(Debug, clap::Args)]
pub struct KeyChoice {
    /// The key's number.
    #[arg(value_parser = clap::value_parser!(u8).range(1..))]
    pub id: u8,
    /// The key file.
    #[command(flatten)]
    pub file: KeyPath,
}

/// Which sessions to show, and how many.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SessionsArguments {
    /// What else to do with sessions.
    #[command(subcommand)]
    pub command: Option<SessionsCommand>,
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

/// What else to do with sessions.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum SessionsCommand {
    /// Compare what this node and a peer have of each other's sessions. Exits with 1 if it is not the same.
    Diff {
        /// The peer's node number.
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        peer: u16,
    },
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
    fn a_key_is_named_by_a_number_that_can_be_one() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        assert!(parse("batonctl key use 255 /tmp/x").is_ok() && parse("batonctl key new").is_ok());
        for wrong in ["batonctl key use 0", "batonctl key use 256", "batonctl key use", "batonctl key"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        let before = Arguments::try_parse_from(["batonctl", "--json", "--config", "x", "peers"]).unwrap();
        let behind = Arguments::try_parse_from(["batonctl", "peers", "--json", "--config", "x"]).unwrap();

        assert!(before.json && behind.json);
        assert_eq!((before.config, behind.config), ("x".into(), "x".into()));
    }
}
