//! The outbox: puts datagrams for peers into frames and sends them.

use std::net::IpAddr;

use baton_common::flow::{Address, Endpoint};
use baton_common::neighbour::{NeighbourReader, Resolution};
use baton_common::netlink::{Mirror, Resolver};
use baton_common::packet::{MacAddress, UdpPath};
use baton_common::sync::transmit::{Transmission, Transmit};

use crate::link::Outlet;

/// Bytes of an Ethernet header with one VLAN tag.
const ETHERNET_BYTES_MAX: usize = 18;

/// The peers' link-layer addresses, as the kernel knows them.
pub struct Neighbourhood {
    neighbours: NeighbourReader,
    resolver: Resolver,
}

impl Neighbourhood {
    /// The neighbourhood that is mirrored.
    pub fn new(mirror: &Mirror) -> Neighbourhood {
        Neighbourhood { neighbours: NeighbourReader::new(mirror.neighbours()), resolver: mirror.resolver() }
    }

    /// The link-layer address of the next hop to a peer; one that is not known is asked for.
    fn next_hop_mac(&mut self, peer: Address) -> Option<MacAddress> {
        match self.neighbours.resolve(peer) {
            Resolution::Reachable { mac } => Some(mac),
            Resolution::Unresolved { next_hop } => {
                self.resolver.want(next_hop);
                None
            }
            Resolution::NoRoute => None,
        }
    }

    /// Whether a datagram to each of these peers could be sent now.
    pub fn knows_all(&mut self, peers: &[IpAddr]) -> bool {
        // All are asked for, not only the first.
        peers.iter().filter(|&&peer| self.next_hop_mac(peer.into()).is_none()).count() == 0
    }
}

/// Addresses datagrams and sends them.
pub struct Outbox<'q> {
    outlet: Outlet<'q>,
    neighbourhood: Neighbourhood,
    mac: MacAddress,
    own: Endpoint,
    frame: Vec<u8>,
    sent: u64,
}

impl<'q> Outbox<'q> {
    /// An outbox that sends from `own` and `mac`; `mtu` is the sync network's.
    pub fn new(outlet: Outlet<'q>, mirror: &Mirror, mac: MacAddress, own: Endpoint, mtu: u16) -> Outbox<'q> {
        Outbox {
            outlet,
            neighbourhood: Neighbourhood::new(mirror),
            mac,
            own,
            frame: vec![0; usize::from(mtu) + ETHERNET_BYTES_MAX],
            sent: 0,
        }
    }

    /// Whether a datagram to each of these peers could be sent now.
    pub fn knows_all(&mut self, peers: &[IpAddr]) -> bool {
        self.neighbourhood.knows_all(peers)
    }

    /// Datagrams that the link took.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

impl Transmit for Outbox<'_> {
    fn transmit(&mut self, peer: IpAddr, payload: &[u8]) -> Transmission {
        let destination = Endpoint { address: peer.into(), port: self.own.port };
        let Some(next_hop_mac) = self.neighbourhood.next_hop_mac(destination.address) else {
            return Transmission::NoNeighbour;
        };
        let path = UdpPath { source_mac: self.mac, next_hop_mac, source: self.own, destination };
        // The frame holds the largest payload, and a validated configuration has sync addresses of one family.
        let Ok(length) = path.write(&mut self.frame, payload) else { return Transmission::QueueFull };
        match self.outlet.send(&self.frame[..length]) {
            true => {
                self.sent += 1;
                Transmission::Sent
            }
            false => Transmission::QueueFull,
        }
    }
}
