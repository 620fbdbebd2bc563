//! Simulated clients: connections, what is true of them, and what they do next.

use crate::flow::{Address, Endpoint, FlowKey, Protocol};

/// Where a connection stands, as its two ends know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is none; the client may open one from then on.
    Closed(u64),
    /// It is established, through this local endpoint.
    Open { local: Endpoint, since: u64 },
}

/// A client's port, and the connection that it has or not.
#[derive(Clone, Debug)]
pub struct Connection {
    pub key: FlowKey,
    pub server: Endpoint,
    pub phase: Phase,
    /// Decides where the router sends it.
    pub hash: u64,
    /// When both ends last heard each other.
    pub heard: u64,
    /// When its session's owner last saw a packet of it.
    pub owner_saw: u64,
    /// When the first packet of those was sent that found no session since.
    pub missing_since: Option<u64>,
    pub next_try: u64,
    /// Whether it was opened through a session of an earlier connection, whose end may still be on its way.
    pub inherited: bool,
    /// Whether another node held its session when one lost everything: then it must not be lost.
    pub safe: bool,
    /// How often the client says something, microseconds.
    pub pace: u64,
}

impl Connection {
    /// The connection of client number `number`, not open yet.
    pub fn new(number: usize) -> Connection {
        let v6 = number % 4 == 3;
        let protocol = if number % 5 == 4 { Protocol::Udp } else { Protocol::Tcp };
        let endpoint = |address: [u8; 4], port| {
            let endpoint = Endpoint { address: Address::v4(address), port };
            if v6 { super::worker::v6(endpoint) } else { endpoint }
        };
        let client = endpoint([10, 1, 0, 1 + number as u8 % 8], 30_000 + number as u16);
        Connection {
            key: FlowKey { source: client, destination: endpoint([10, 9, 0, 1], 80), protocol },
            server: endpoint([10, 3, 0, 1 + number as u8 % 2], 8080),
            phase: Phase::Closed(0),
            hash: (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            heard: 0,
            owner_saw: 0,
            missing_since: None,
            next_try: 0,
            inherited: false,
            safe: false,
            pace: 100_000 + 400_000 * (number as u64 % 7),
        }
    }

    /// The key of the server's packets.
    pub fn server_key(&self, local: Endpoint) -> FlowKey {
        FlowKey { source: self.server, destination: local, protocol: self.key.protocol }
    }

    /// Whether it is open, and through what.
    pub fn local(&self) -> Option<Endpoint> {
        match self.phase {
            Phase::Open { local, .. } => Some(local),
            Phase::Closed(_) => None,
        }
    }
}
