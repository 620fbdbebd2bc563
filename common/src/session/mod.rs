//! Sessions: one balanced connection each, its state, its record in shared memory, and the tables of them.

pub mod addresses;
mod draft;
pub mod expiry;
pub mod local_ports;
pub mod record;
pub mod table;
pub mod tcp;
pub mod told;

pub use draft::Draft;

use crate::flow::{Endpoint, FlowKey, Protocol};
use crate::id::{Generation, NodeId};
use crate::time::Millis;

/// One balanced connection, as a plain value: what a table's record holds and what a sync record carries.
///
/// Inbound packets go `client → vip` and leave as `local → server`; outbound packets come as `server → local` and leave
/// as `vip → client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The transport protocol. With the four endpoints it never changes while the session lives.
    pub protocol: Protocol,
    /// The client's address and port.
    pub client: Endpoint,
    /// The service's virtual address and port.
    pub vip: Endpoint,
    /// The balancer's own address and port towards the real server.
    pub local: Endpoint,
    /// The real server's address and port.
    pub server: Endpoint,
    /// The node that reports this session and ages it.
    pub owner: NodeId,
    /// How often the owner has changed.
    pub generation: Generation,
    /// Where the connection stands.
    pub state: SessionState,
    /// When a packet of this session was last seen, on this machine's clock.
    pub last_seen: Millis,
    /// When the owner last told its peers of this session; zero if it never did. Meaningless in a remote table.
    pub last_sent: Millis,
}

impl Session {
    /// The key of packets from the client.
    #[inline]
    pub fn client_key(&self) -> FlowKey {
        FlowKey { source: self.client, destination: self.vip, protocol: self.protocol }
    }

    /// The key of packets from the real server.
    #[inline]
    pub fn server_key(&self) -> FlowKey {
        FlowKey { source: self.server, destination: self.local, protocol: self.protocol }
    }
}

/// Which way a packet goes through a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to real server.
    Inbound,
    /// Real server to client.
    Outbound,
}

/// Where a session stands. The numbers stand in shared memory and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum SessionState {
    /// UDP: packets from the client only.
    UdpOneWay = 1,
    /// UDP: packets both ways.
    UdpTwoWay = 2,
    /// TCP: the client's SYN was seen.
    TcpSynReceived = 16,
    /// TCP: the server's SYN+ACK was seen.
    TcpSynAcked = 17,
    /// TCP: the handshake is done.
    TcpEstablished = 18,
    /// TCP: the client has sent FIN.
    TcpFinFromClient = 19,
    /// TCP: the server has sent FIN.
    TcpFinFromServer = 20,
    /// TCP: both have sent FIN; kept so that the last packets pass and the ports rest.
    TcpTimeWait = 21,
    /// TCP: reset by either side.
    TcpReset = 22,
}

impl SessionState {
    /// The state with this number, if there is one.
    pub fn from_number(number: u8) -> Option<SessionState> {
        use SessionState::*;
        Some(match number {
            1 => UdpOneWay,
            2 => UdpTwoWay,
            16 => TcpSynReceived,
            17 => TcpSynAcked,
            18 => TcpEstablished,
            19 => TcpFinFromClient,
            20 => TcpFinFromServer,
            21 => TcpTimeWait,
            22 => TcpReset,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_by_its_number_and_nothing_else_does() {
        let known = (0..=u8::MAX).filter_map(|number| {
            let state = SessionState::from_number(number)?;
            assert_eq!(state as u8, number);
            Some(number)
        });
        assert_eq!(known.collect::<Vec<_>>(), [1, 2, 16, 17, 18, 19, 20, 21, 22]);
    }
}
