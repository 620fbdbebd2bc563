//! The command line.

use std::path::PathBuf;

use baton_common::config::DEFAULT_PATH;
use clap::{Parser, Subcommand};

/// Reserves hugepages, mounts Baton's hugetlbfs and creates the table files.
#[derive(Parser)]
#[command(name = "baton-hugepages", version, arg_required_else_help = true)]
pub struct Arguments {
    /// The node's configuration.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, global = true)]
    pub config: PathBuf,
    /// Check the configuration and say what is wrong with it; do nothing else.
    #[arg(long)]
    pub check: bool,
    /// Print a complete, commented configuration; do nothing else.
    #[arg(long)]
    pub print_default: bool,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Clone, Copy, Subcommand)]
pub enum Command {
    /// Show what the configuration needs, what there is, and what `apply` would do. Changes nothing.
    Plan,
    /// Reserve pages, mount, create the table files. Keeps what is there already.
    Apply,
    /// Show pages, mount and table files as they are.
    Status,
    /// Delete the table files, unmount, give the pages back. Refuses while a process uses them.
    Remove,
}
