//! Services: virtual endpoints, their real servers, and the schedulers that choose among them.

mod round_robin;
mod schedulers;
mod tally;

pub use round_robin::WeightedRoundRobin;
pub use schedulers::{Pick, Schedulers};
pub use tally::Tally;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::config::Service;
use crate::flow::{Address, Endpoint, Protocol};
use crate::id::{ServiceId, WorkerId};

/// The node's services, for looking up what a packet goes to. Read-only once built; shared by all workers.
#[derive(Clone, Debug, Default)]
pub struct Services {
    services: Vec<Service>,
    by_endpoint: FxHashMap<(Endpoint, Protocol), ServiceId>,
    vips: FxHashSet<Address>,
}

impl Services {
    /// Builds the lookup from the validated config's services. If two had the same endpoint, the first would win.
    pub fn new(services: &[Service]) -> Services {
        let mut by_endpoint = FxHashMap::default();
        for (position, service) in services.iter().enumerate() {
            by_endpoint.entry((service.vip, service.protocol)).or_insert(ServiceId(position as u16));
        }
        let vips = services.iter().map(|service| service.vip.address).collect();
        Services { services: services.to_vec(), by_endpoint, vips }
    }

    /// The service at a virtual endpoint.
    #[inline]
    pub fn lookup(&self, vip: Endpoint, protocol: Protocol) -> Option<ServiceId> {
        self.by_endpoint.get(&(vip, protocol)).copied()
    }

    /// Whether an address is any service's virtual address.
    #[inline]
    pub fn is_vip(&self, address: Address) -> bool {
        self.vips.contains(&address)
    }

    /// A service by its number.
    #[inline]
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.services.get(usize::from(id.0))
    }

    /// All services with their numbers, in the config's order.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Service)> {
        self.services.iter().enumerate().map(|(position, service)| (ServiceId(position as u16), service))
    }

    /// The schedulers of one worker, at their start.
    pub fn schedulers(&self, worker: WorkerId) -> Schedulers {
        Schedulers::new(&self.services, worker)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{RealServer, Scheduler};

    pub(crate) fn endpoint(text: &str) -> Endpoint {
        text.parse::<std::net::SocketAddr>().unwrap().into()
    }

    pub(crate) fn service(vip: &str, protocol: Protocol, real_servers: &[(&str, u16)]) -> Service {
        Service {
            name: vip.to_owned(),
            vip: endpoint(vip),
            protocol,
            scheduler: Scheduler::WeightedRoundRobin,
            sync_after: crate::config::SyncAfter::Packets(1),
            real_servers: real_servers
                .iter()
                .map(|&(server, weight)| RealServer { endpoint: endpoint(server), weight })
                .collect(),
        }
    }

    fn services() -> Services {
        Services::new(&[
            service("10.9.0.1:80", Protocol::Tcp, &[("10.3.0.2:8080", 1)]),
            service("10.9.0.1:80", Protocol::Udp, &[("10.3.0.2:8080", 1)]),
            service("[fd00:9::1]:80", Protocol::Tcp, &[("[fd00:3::2]:8080", 1)]),
        ])
    }

    #[test]
    fn lookup_tells_protocol_port_and_family_apart() {
        let services = services();
        let table = [
            ("10.9.0.1:80", Protocol::Tcp, Some(ServiceId(0))),
            ("10.9.0.1:80", Protocol::Udp, Some(ServiceId(1))),
            ("[fd00:9::1]:80", Protocol::Tcp, Some(ServiceId(2))),
            ("[fd00:9::1]:80", Protocol::Udp, None),
            ("10.9.0.1:81", Protocol::Tcp, None),
            ("10.9.0.2:80", Protocol::Tcp, None),
        ];
        for (vip, protocol, expected) in table {
            assert_eq!(services.lookup(endpoint(vip), protocol), expected, "{vip} {protocol:?}");
        }
    }

    #[test]
    fn vip_is_an_address_whatever_the_port() {
        let services = services();
        assert!(services.is_vip(endpoint("10.9.0.1:1").address));
        assert!(services.is_vip(endpoint("[fd00:9::1]:1").address));
        assert!(!services.is_vip(endpoint("10.3.0.2:80").address));
    }

    #[test]
    fn numbers_are_the_positions_in_the_config() {
        let services = services();
        assert_eq!(services.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(services.service(ServiceId(2)).unwrap().vip, endpoint("[fd00:9::1]:80"));
        assert!(services.service(ServiceId(3)).is_none());
    }
}
