//! One worker's schedulers: which real server the next new session of a service goes to.

use super::WeightedRoundRobin;
use crate::config::{RealServer, Scheduler, Service};
use crate::flow::Endpoint;
use crate::id::{ServiceId, WorkerId};

/// The schedulers of all services, owned by one worker: no lock, no atomic, nothing shared.
#[derive(Clone, Debug)]
pub struct Schedulers {
    worker: WorkerId,
    services: Vec<ServiceScheduler>,
}

/// The real server that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Its position in the service's list.
    pub position: usize,
    /// Its address and port.
    pub endpoint: Endpoint,
}

#[derive(Clone, Debug)]
struct ServiceScheduler {
    service: Service,
    robin: WeightedRoundRobin,
}

impl ServiceScheduler {
    /// A scheduler that has taken as many turns as its worker's number: workers that start together do not all send
    /// their first sessions to the same real server.
    fn new(service: &Service, worker: WorkerId) -> ServiceScheduler {
        let mut robin = match service.scheduler {
            Scheduler::WeightedRoundRobin => {
                WeightedRoundRobin::new(service.real_servers.iter().map(|server| server.weight))
            }
        };
        for _ in 0..worker.0 {
            robin.turn();
        }
        ServiceScheduler { service: service.clone(), robin }
    }

    fn has_servers_of(&self, other: &Service) -> bool {
        let endpoints =
            |servers: &[RealServer]| servers.iter().map(|server| server.endpoint).collect::<Vec<_>>();
        self.service.scheduler == other.scheduler
            && endpoints(&self.service.real_servers) == endpoints(&other.real_servers)
    }
}

impl Schedulers {
    /// The schedulers of a worker at their start. `ServiceId` is the position in `services`.
    pub fn new(services: &[Service], worker: WorkerId) -> Schedulers {
        let services = services.iter().map(|service| ServiceScheduler::new(service, worker)).collect();
        Schedulers { worker, services }
    }

    /// The real server for the next new session of a service; none if no weight is above zero, or no such service.
    #[inline]
    pub fn pick(&mut self, service: ServiceId) -> Option<Pick> {
        let scheduler = self.services.get_mut(usize::from(service.0))?;
        let position = scheduler.robin.turn()?;
        scheduler
            .service
            .real_servers
            .get(position)
            .map(|server| Pick { position, endpoint: server.endpoint })
    }

    /// Takes over changed services. One that is still there with the same real servers goes on in its cycle, or, where a
    /// weight has changed, starts a new one; the others start afresh. Not for the packet path: it allocates.
    pub fn update(&mut self, services: &[Service]) {
        let worker = self.worker;
        let mut old = std::mem::take(&mut self.services);
        self.services = services
            .iter()
            .map(|service| {
                let same = |old: &ServiceScheduler| {
                    (old.service.vip, old.service.protocol) == (service.vip, service.protocol)
                        && old.has_servers_of(service)
                };
                let Some(position) = old.iter().position(same) else {
                    return ServiceScheduler::new(service, worker);
                };
                let mut kept = old.swap_remove(position);
                for (position, server) in service.real_servers.iter().enumerate() {
                    kept.robin.set_weight(position, server.weight);
                }
                kept.service = service.clone();
                kept
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;
    use crate::service::Services;
    use crate::service::tests::{endpoint, service};

    const A: &str = "10.3.0.2:80";
    const B: &str = "10.3.0.3:80";

    fn web(weights: (u16, u16)) -> Service {
        service("10.9.0.1:80", Protocol::Tcp, &[(A, weights.0), (B, weights.1)])
    }

    fn picks(schedulers: &mut Schedulers, service: u16, count: usize) -> Vec<Endpoint> {
        (0..count).map_while(|_| schedulers.pick(ServiceId(service))).map(|pick| pick.endpoint).collect()
    }

    #[test]
    fn services_are_scheduled_independently() {
        let dns = service("10.9.0.1:53", Protocol::Udp, &[(B, 1)]);
        let mut schedulers = Services::new(&[web((1, 1)), dns]).schedulers(WorkerId(0));
        assert_eq!(picks(&mut schedulers, 0, 1), [endpoint(A)]);
        assert_eq!(picks(&mut schedulers, 1, 2), [endpoint(B); 2]);
        assert_eq!(picks(&mut schedulers, 0, 1), [endpoint(B)]);
    }

    #[test]
    fn workers_start_at_different_places() {
        let services = [web((1, 1))];
        let first = |worker| picks(&mut Schedulers::new(&services, WorkerId(worker)), 0, 1);
        assert_eq!((first(0), first(1), first(2)), (vec![endpoint(A)], vec![endpoint(B)], vec![endpoint(A)]));
    }

    #[test]
    fn no_server_is_picked_where_none_has_weight() {
        let mut schedulers = Schedulers::new(&[web((0, 0))], WorkerId(3));
        assert_eq!(schedulers.pick(ServiceId(0)), None);
        assert_eq!(schedulers.pick(ServiceId(1)), None);
    }

    #[test]
    fn update_keeps_the_cycle_of_an_unchanged_service() {
        let mut schedulers = Schedulers::new(&[web((1, 1))], WorkerId(0));
        schedulers.pick(ServiceId(0));
        let dns = service("10.9.0.1:53", Protocol::Udp, &[(A, 1)]);
        schedulers.update(&[dns, web((1, 1))]);
        assert_eq!(picks(&mut schedulers, 1, 2), [endpoint(B), endpoint(A)]);
    }

    #[test]
    fn update_takes_over_changed_weights() {
        let mut schedulers = Schedulers::new(&[web((1, 1))], WorkerId(0));
        schedulers.update(&[web((0, 1))]);
        assert_eq!(picks(&mut schedulers, 0, 3), [endpoint(B); 3]);
    }

    #[test]
    fn update_takes_over_changed_real_servers() {
        let mut schedulers = Schedulers::new(&[web((1, 1))], WorkerId(0));
        schedulers.update(&[service("10.9.0.1:80", Protocol::Tcp, &[("10.3.0.9:80", 1)])]);
        assert_eq!(picks(&mut schedulers, 0, 2), [endpoint("10.3.0.9:80"); 2]);
    }
}
