//! What the primary tells of itself: its answers on the control socket, and what its metrics ask it.

use std::sync::Arc;

use baton_common::config::{Config, Service};
use baton_common::control::{
    Handler, HeapStatus, NodeStatus, PortStatus, RealServerStatus, Refusal, RefusalCode, Request, Response,
    SecondaryStatus, ServiceStatus, Status, WorkerStatus, not_mine,
};
use baton_common::id::{ServiceId, WorkerId};
use baton_common::metrics::PrimaryLive;
use baton_common::service::Tally;
use baton_common::steering::SteeringBackend;
use baton_common::time::Millis;

use dpdk::{HeapUse, Mempool};

use crate::supervisor::{PlaceReport, Supervisor};

/// What the control socket can tell and do.
pub struct Control {
    pub config: Arc<Config>,
    pub started: Millis,
    pub steering: SteeringBackend,
    pub port: PortStatus,
    /// One a worker.
    pub tallies: Vec<Arc<Tally>>,
    pub supervisor: Arc<Supervisor>,
    /// One a sync domain.
    pub sync_pools: Vec<Mempool>,
}

impl Control {
    fn service(&self, id: ServiceId, service: &Service) -> ServiceStatus {
        let real_servers =
            service.real_servers.iter().enumerate().map(|(position, server)| RealServerStatus {
                endpoint: server.endpoint.into(),
                weight: server.weight,
                sessions_created: self.tallies.iter().map(|tally| tally.created(id, position)).sum(),
            });
        ServiceStatus {
            name: service.name.clone(),
            vip: service.vip.into(),
            protocol: service.protocol,
            scheduler: service.scheduler,
            real_servers: real_servers.collect(),
        }
    }
}

impl Control {
    fn status(&self) -> Status {
        let config = &self.config;
        let workers = config.workers.iter().enumerate().map(|(number, worker)| WorkerStatus {
            worker: WorkerId(number as u8),
            lcore: worker.lcore,
            cpu: worker.cpu,
            numa: worker.numa,
            local_addresses: worker.local_addresses.iter().map(|&address| address.into()).collect(),
        });
        let HeapUse { bytes, elements } = self.supervisor.heap_use();
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: Millis::now().since(self.started),
            node: NodeStatus {
                id: config.node.id,
                name: config.node.name.clone(),
                cluster: config.node.cluster,
            },
            steering: self.steering.name().into(),
            port: self.port.clone(),
            workers: workers.collect(),
            secondaries: self.secondaries(),
            heap: HeapStatus { bytes, elements },
            sync_enabled: config.sync.enabled,
        }
    }
}

impl PrimaryLive for Control {
    fn services(&self) -> Vec<ServiceStatus> {
        let services = self.config.services.iter().enumerate();
        services.map(|(number, service)| self.service(ServiceId(number as u16), service)).collect()
    }

    fn secondaries(&self) -> Vec<SecondaryStatus> {
        let secondaries = self.supervisor.secondaries().into_iter().zip(&self.sync_pools);
        secondaries.map(secondary_status).collect()
    }
}

fn secondary_status((place, pool): (PlaceReport, &Mempool)) -> SecondaryStatus {
    let PlaceReport { numa, pid, attached, successor } = place;
    SecondaryStatus {
        numa,
        pid,
        attached,
        successor,
        buffers: pool.capacity(),
        buffers_free: pool.available(),
    }
}

impl Handler for Control {
    fn answer(&self, request: Request, caller: u32) -> Result<Response, Refusal> {
        match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Services => Ok(Response::Services(self.services())),
            Request::AttachSecondary { pid, .. } if pid != caller => Err(Refusal::new(
                RefusalCode::NotPossible,
                format!("process {caller} asks to attach process {pid}: a secondary asks for itself"),
            )),
            Request::AttachSecondary { numa, pid, succeeds } => {
                self.supervisor.attach(numa, pid, succeeds).map(|()| Response::AttachGranted { numa })
            }
            Request::SecondaryReady { numa } => {
                self.supervisor.ready(numa, caller).map(|()| Response::SecondaryNoted)
            }
            other => Err(not_mine(&other)),
        }
    }
}
