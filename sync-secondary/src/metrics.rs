//! The secondary's metrics: who reads them is answered on a thread of its own.

use std::sync::Arc;

use anyhow::Context;
use baton_common::config::{Config, SyncDomain};
use baton_common::id::SyncDomainId;
use baton_common::metrics::{Server, SyncMetrics};

use crate::control::Desk;

/// Begins to answer Prometheus, if it is configured. To be called before DPDK binds this thread to its CPU: the thread that
/// answers is not to share it. A predecessor that still has the address keeps it until it leaves.
///
/// # Errors
/// A file of the NUMA node cannot be mapped, or the thread not be made.
pub fn start(
    config: &Config,
    id: SyncDomainId,
    domain: &SyncDomain,
    desk: &Desk,
) -> anyhow::Result<Option<Server>> {
    let Some(address) = domain.metrics.address else { return Ok(None) };
    let source = SyncMetrics::new(Arc::new(config.clone()), id, domain.numa, desk.status_reader())
        .context("mapping the files that the metrics are read from")?;
    Server::start(address, source).map(Some).context("starting the metrics thread")
}
