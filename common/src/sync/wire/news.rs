//! News of a session: that it is there, that it has ended, that it lives on.
//!
//! Only a session's owner reports it, so none of these names an owner: it is the node in the datagram's header.

use crate::flow::{Address, Endpoint, FlowKey, address_from_words, address_words, key_words};
use crate::id::Generation;
use crate::session::SessionState;
use crate::sync::address;

/// A session that a peer may have to carry on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// How often the owner has changed.
    pub generation: Generation,
    /// Where the connection stands; tells its protocol.
    pub state: SessionState,
    /// What is left of its timeout, milliseconds. The wire rounds it up, see [`Remaining`](super::Remaining).
    pub remaining_ms: u32,
    /// The client's address and port.
    pub client: Endpoint,
    /// The service's virtual address and port.
    pub vip: Endpoint,
    /// The balancer's address and port towards the real server.
    pub local: Endpoint,
    /// The real server's address and port.
    pub server: Endpoint,
}

impl Reported {
    /// The key of packets from the client.
    pub fn client_key(&self) -> FlowKey {
        FlowKey { source: self.client, destination: self.vip, protocol: address::protocol_of(self.state) }
    }

    /// The key of packets from the real server.
    pub fn server_key(&self) -> FlowKey {
        FlowKey { source: self.server, destination: self.local, protocol: address::protocol_of(self.state) }
    }
}

/// A [`Reported`] whose shared parts stay in the dictionary of its datagram.
#[derive(Clone, Copy, Debug)]
pub struct Brief<'d> {
    /// How often the owner has changed.
    pub generation: Generation,
    /// Where the connection stands; tells its protocol.
    pub state: SessionState,
    /// What is left of its timeout, milliseconds.
    pub remaining_ms: u32,
    /// The client's address, as [`address_words`].
    pub client: [u64; 2],
    /// And its port.
    pub client_port: u16,
    /// The service's virtual address and port.
    pub vip: &'d Endpoint,
    /// The balancer's address towards the real server.
    pub local: &'d Address,
    /// And its port.
    pub local_port: u16,
    /// The real server's address and port.
    pub server: &'d Endpoint,
}

impl Brief<'_> {
    /// The whole of it.
    pub fn reported(&self) -> Reported {
        Reported {
            generation: self.generation,
            state: self.state,
            remaining_ms: self.remaining_ms,
            client: self.client(),
            vip: *self.vip,
            local: Endpoint { address: *self.local, port: self.local_port },
            server: *self.server,
        }
    }

    /// The client's address and port.
    #[inline(always)]
    pub fn client(&self) -> Endpoint {
        Endpoint { address: address_from_words(self.client), port: self.client_port }
    }

    /// The words of [`Reported::client_key`] and of [`Reported::server_key`].
    #[inline(always)]
    pub fn keys(&self) -> [[u64; 5]; 2] {
        let protocol = address::protocol_of(self.state);
        let words = |endpoint: &Endpoint| (address_words(endpoint.address), endpoint.port);
        let local = (address_words(*self.local), self.local_port);
        [
            key_words((self.client, self.client_port), words(self.vip), protocol),
            key_words(words(self.server), local, protocol),
        ]
    }
}

/// A session that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How often the owner has changed.
    pub generation: Generation,
    /// The state in which it ended; tells its protocol.
    pub state: SessionState,
    /// The client's address and port.
    pub client: Endpoint,
    /// The service's virtual address and port.
    pub vip: Endpoint,
}

impl Ended {
    /// The key of packets from the client.
    pub fn client_key(&self) -> FlowKey {
        FlowKey { source: self.client, destination: self.vip, protocol: address::protocol_of(self.state) }
    }
}

/// A session that is still in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// How often the owner has changed.
    pub generation: Generation,
    /// Where the connection stands; tells its protocol.
    pub state: SessionState,
    /// What is left of its timeout, milliseconds. The wire rounds it up, see [`Remaining`](super::Remaining).
    pub remaining_ms: u32,
    /// The client's address and port.
    pub client: Endpoint,
    /// The service's virtual address and port.
    pub vip: Endpoint,
}

impl Refreshed {
    /// The key of packets from the client.
    pub fn client_key(&self) -> FlowKey {
        FlowKey { source: self.client, destination: self.vip, protocol: address::protocol_of(self.state) }
    }
}
