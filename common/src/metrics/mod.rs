//! Metrics for Prometheus: what a process counts and how it is, in Prometheus' text format over HTTP.
//!
//! Nothing is kept for it: the shared counters, table sizes and peers' positions are read when somebody asks. One thread of
//! its own answers, at the lowest priority; the threads that forward and synchronise are not touched.
//! `docs/operations.md` lists the metrics.

mod client;
mod counters;
mod exposition;
mod primary;
mod server;
mod sync;

pub use counters::{Counted, CounterFamilies, LabelledBlock};
pub use exposition::{Exposition, MetricKind};
pub use primary::{PrimaryLive, PrimaryMetrics};
pub use server::Server;
pub use sync::{AskStatus, SyncMetrics, SyncMetricsError};

/// What a process has to tell. Asked from the metrics thread, each time that somebody asks it.
pub trait Source: Send + 'static {
    /// Writes all metrics as they are now.
    fn write(&self, to: &mut Exposition);
}

/// The release of this process and whose it is: the labels of `baton_build_info`.
fn write_identity(to: &mut Exposition, config: &crate::config::Config, process: &str) {
    let node = config.node.id.to_string();
    let cluster = config.node.cluster.to_string();
    let labels = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("process", process),
        ("node", &node),
        ("name", &config.node.name),
        ("cluster", &cluster),
    ];
    to.family(
        "baton_build_info",
        MetricKind::Gauge,
        "Always 1; the labels say which node and release this is.",
    );
    to.sample(&labels, 1);
}

/// Seconds since 1970: when a process began to answer. A change of it is a restart.
fn seconds_since_1970() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_millis() as f64 / 1e3)
}

/// Writes when the process began.
fn write_start(to: &mut Exposition, began: f64) {
    let help = "When this process began to answer, seconds since 1970. A change of it is a restart.";
    to.family("process_start_time_seconds", MetricKind::Gauge, help);
    to.sample_f64(&[], began);
}

/// Writes how full session tables are: number of the table, sessions in it, room for sessions.
fn write_tables(to: &mut Exposition, kind: &str, label: &str, tables: &[(String, u32, u32)]) {
    type Size = fn(&(String, u32, u32)) -> u32;
    let families: [(&str, &str, Size); 2] = [
        ("baton_table_sessions", "Sessions in the table now.", |table| table.1),
        ("baton_table_capacity_sessions", "Sessions that the table has room for.", |table| table.2),
    ];
    for (name, help, size) in families {
        to.family(name, MetricKind::Gauge, help);
        for table in tables {
            to.sample(&[("table", kind), (label, &table.0)], size(table).into());
        }
    }
}
