//! The way out, as the protocol sees it.

use std::net::IpAddr;

/// What became of one datagram to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmission {
    /// It is on its way.
    Sent,
    /// The transmit queue or ring is full.
    QueueFull,
    /// The peer's link-layer address is not known yet.
    NoNeighbour,
}

/// Where datagrams go: a transmit queue, a ring to a worker, or a test's list.
pub trait Transmit {
    /// Sends one datagram to the sync port of a peer's address. Never blocks.
    fn transmit(&mut self, peer: IpAddr, payload: &[u8]) -> Transmission;
}

impl<F: FnMut(IpAddr, &[u8]) -> Transmission> Transmit for F {
    fn transmit(&mut self, peer: IpAddr, payload: &[u8]) -> Transmission {
        self(peer, payload)
    }
}
