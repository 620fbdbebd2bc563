//! The primary's metrics: its workers' counters, tables, services, and who is attached to it.

use std::path::PathBuf;
use std::sync::Arc;

use super::counters::{Counted, CounterFamilies, LabelledBlock};
use super::exposition::{Exposition, MetricKind};
use super::{Source, seconds_since_1970, write_identity, write_start, write_tables};
use crate::config::Config;
use crate::control::{SecondaryStatus, ServiceStatus};
use crate::counter::CounterFile;
use crate::session::table::{SessionTable, TableError};
use crate::shm::header::FileKind;

/// Most real servers that have samples of their own: a scrape stays small. Services always have.
const REAL_SERVERS_MAX: usize = 10_000;

/// What only the primary's own threads know.
pub trait PrimaryLive: Send + Sync + 'static {
    /// The services and the sessions that their real servers were given.
    fn services(&self) -> Vec<ServiceStatus>;

    /// The secondaries.
    fn secondaries(&self) -> Vec<SecondaryStatus>;
}

/// The primary's metrics.
pub struct PrimaryMetrics {
    config: Arc<Config>,
    counters: &'static CounterFile,
    tables: Vec<SessionTable>,
    live: Arc<dyn PrimaryLive>,
    families: CounterFamilies,
    began: f64,
}

impl PrimaryMetrics {
    /// Maps the workers' tables, to say how full they are.
    ///
    /// # Errors
    /// A table's file cannot be mapped.
    pub fn new(
        config: Arc<Config>,
        counters: &'static CounterFile,
        live: Arc<dyn PrimaryLive>,
    ) -> Result<PrimaryMetrics, TableError> {
        let path =
            |worker: usize| -> PathBuf { FileKind::LocalTable.path(&config.paths.hugepages, worker as u8) };
        let tables = (0..config.workers.len())
            .map(|worker| SessionTable::open_read_only(&path(worker), FileKind::LocalTable))
            .collect::<Result<_, _>>()?;
        let families = CounterFamilies::new(Counted::Forwarding);
        Ok(PrimaryMetrics { config, counters, tables, live, families, began: seconds_since_1970() })
    }
}

impl Source for PrimaryMetrics {
    fn write(&self, to: &mut Exposition) {
        write_identity(to, &self.config, "primary");
        write_start(to, self.began);
        let worker = |worker: usize| vec![("worker", worker.to_string())];
        let workers =
            (0..self.counters.workers()).filter_map(|n| Some((worker(n), self.counters.worker(n)?)));
        // The punt thread counts in the block of its own, and is no worker.
        let punt = (vec![("worker", "punt".to_owned())], self.counters.control());
        self.families.write(to, &workers.chain([punt]).collect::<Vec<LabelledBlock<'_>>>());
        let tables: Vec<_> = (self.tables.iter().enumerate())
            .map(|(worker, table)| (worker.to_string(), table.len(), table.capacity()))
            .collect();
        write_tables(to, "local", "worker", &tables);
        write_services(to, &self.live.services());
        let help = "Whether the NUMA node's sync secondary is attached: 1 or 0.";
        to.family("baton_secondary_attached", MetricKind::Gauge, help);
        // Without synchronisation they only stand by.
        for secondary in self.live.secondaries().iter().filter(|_| self.config.sync.enabled) {
            to.sample(&[("numa", &secondary.numa.to_string())], secondary.attached.into());
        }
    }
}

fn write_services(to: &mut Exposition, services: &[ServiceStatus]) {
    let help = "Sessions created since the primary began, by service.";
    to.family("baton_service_sessions_created_total", MetricKind::Counter, help);
    for service in services {
        let created = service.real_servers.iter().map(|server| server.sessions_created).sum();
        let (vip, protocol) = (service.vip.to_string(), service.protocol.name());
        to.sample(&[("service", &service.name), ("vip", &vip), ("protocol", protocol)], created);
    }
    if services.iter().map(|service| service.real_servers.len()).sum::<usize>() > REAL_SERVERS_MAX {
        return;
    }
    let servers = || {
        let servers = |service: &'_ ServiceStatus| service.real_servers.clone().into_iter();
        services.iter().flat_map(move |service| servers(service).map(move |server| (service, server)))
    };
    let help = "Sessions created towards the real server since the primary began.";
    to.family("baton_real_server_sessions_created_total", MetricKind::Counter, help);
    for (service, server) in servers() {
        let endpoint = server.endpoint.to_string();
        to.sample(&[("service", &service.name), ("server", &endpoint)], server.sessions_created);
    }
    to.family("baton_real_server_weight", MetricKind::Gauge, "The real server's share of new sessions.");
    for (service, server) in servers() {
        let endpoint = server.endpoint.to_string();
        to.sample(&[("service", &service.name), ("server", &endpoint)], server.weight.into());
    }
}
