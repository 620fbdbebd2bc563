//! A session in parts: what is its own, and references to what many share.

use super::{Session, SessionState};
use crate::flow::{Address, Endpoint, FlowKey, Protocol};
use crate::id::{Generation, NodeId};
use crate::time::Millis;

/// A session that is to be added to a table, told by what it is made of: a [`Session`] of 140 bytes need not be put together
/// only to be taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// As [`Session::protocol`], and so are the others.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: Endpoint,
    /// The service's virtual address and port.
    pub vip: &'a Endpoint,
    /// The balancer's own address.
    pub local: &'a Address,
    /// And its port.
    pub local_port: u16,
    /// The real server's address and port.
    pub server: &'a Endpoint,
    /// The node that reports this session.
    pub owner: NodeId,
    /// How often the owner has changed.
    pub generation: Generation,
    /// Where the connection stands.
    pub state: SessionState,
    /// When a packet was last seen.
    pub last_seen: Millis,
    /// When the owner last told its peers.
    pub last_sent: Millis,
}

impl Draft<'_> {
    /// The key of packets from the client.
    #[inline(always)]
    pub fn client_key(&self) -> FlowKey {
        FlowKey { source: self.client, destination: *self.vip, protocol: self.protocol }
    }

    /// The key of packets from the real server.
    #[inline(always)]
    pub fn server_key(&self) -> FlowKey {
        FlowKey { source: *self.server, destination: self.local(), protocol: self.protocol }
    }

    /// The balancer's own address and port.
    #[inline(always)]
    pub fn local(&self) -> Endpoint {
        Endpoint { address: *self.local, port: self.local_port }
    }

    /// The session that this is.
    pub fn session(&self) -> Session {
        Session {
            protocol: self.protocol,
            client: self.client,
            vip: *self.vip,
            local: self.local(),
            server: *self.server,
            owner: self.owner,
            generation: self.generation,
            state: self.state,
            last_seen: self.last_seen,
            last_sent: self.last_sent,
        }
    }
}

impl Session {
    /// This session in parts.
    #[inline(always)]
    pub fn draft(&self) -> Draft<'_> {
        Draft {
            protocol: self.protocol,
            client: self.client,
            vip: &self.vip,
            local: &self.local.address,
            local_port: self.local.port,
            server: &self.server,
            owner: self.owner,
            generation: self.generation,
            state: self.state,
            last_seen: self.last_seen,
            last_sent: self.last_sent,
        }
    }
}
