//! Logging: to the journal with fields if systemd connected this process to it, otherwise as lines to standard error.

use std::io::{self, IsTerminal};

use tracing_journald::{Layer, Priority, PriorityMappings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Config;
use crate::id::NumaId;

/// What every field of Baton's begins with in the journal: `numa` of a log line is `BATON_NUMA` there.
const FIELD_PREFIX: &str = "BATON";

/// Begins to log, for the rest of the process's life. `numa` is the NUMA node of a process that serves but one.
pub fn start(config: &Config, numa: Option<NumaId>) {
    let filter = EnvFilter::new(&config.log);
    let journal = match is_stderr_the_journal() {
        // What cannot be sent to the journal's socket still gets there over standard error.
        true => journal(config, numa).ok(),
        false => None,
    };
    match journal {
        Some(journal) => tracing_subscriber::registry().with(filter).with(journal).init(),
        None => {
            // Colours are for people: a file would have their codes in it.
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colours = io::stderr().is_terminal() && !no_colour;
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_ansi(colours)
                .with_writer(io::stderr)
                .init();
        }
    }
}

/// Whether systemd connected standard error to the journal: it says which file that is in `JOURNAL_STREAM`. A child that was
/// given another standard error has the variable too, and is not meant.
fn is_stderr_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let Ok(stderr) = rustix::fs::fstat(io::stderr()) else { return false };
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}

/// A line's fields under their names in capitals, and whose process it is in every line.
fn journal(config: &Config, numa: Option<NumaId>) -> io::Result<Layer> {
    let always = [
        Some(("BATON_NODE", config.node.id.to_string())),
        Some(("BATON_NAME", config.node.name.clone())),
        Some(("BATON_CLUSTER", config.node.cluster.to_string())),
        numa.map(|numa| ("BATON_NUMA", numa.to_string())),
    ];
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    Ok(Layer::new()?
        .with_field_prefix(Some(FIELD_PREFIX.to_owned()))
        .with_priority_mappings(priorities)
        .with_custom_fields(always.into_iter().flatten()))
}
