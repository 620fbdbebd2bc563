//! A peer of node 1's that the test speaks for: node 2, whose datagrams are made here.

use std::net::SocketAddr;

use baton_common::flow::Endpoint;
use baton_common::id::{Generation, NodeId, NumaId};
use baton_common::session::SessionState;
use baton_common::sync::roster::Identity;
use baton_common::sync::seal::{Keyring, Sealer};
use baton_common::sync::wire::{BatchWriter, Body, Header, Reported, StreamId};

use crate::harness::Lab;

/// Where node 2 begins to count. High enough that there are numbers long passed.
const FIRST: u64 = 10_000;
/// Later than any that the real node 2 has had.
const BOOT_EPOCH: u64 = 1 << 62;

/// The peer: where it stands in its stream.
pub struct Peer {
    /// The number sent last.
    sequence: u64,
    /// What it seals with, if it does.
    keys: Option<Keyring>,
}

impl Peer {
    /// A peer that has sent nothing yet, and seals with the lab's key if the lab is sealed.
    pub fn new(lab: &Lab, sealed: bool) -> Peer {
        Peer { sequence: FIRST, keys: sealed.then(|| Keyring::new(&lab.keys())) }
    }

    /// The next datagram of the stream, with these records.
    pub fn next(&mut self, records: &[Vec<u8>]) -> Vec<u8> {
        self.sequence += 1;
        self.numbered(0, records)
    }

    /// What the next datagram would be; it stays the next one.
    pub fn peek(&self, records: &[Vec<u8>]) -> Vec<u8> {
        self.peek_with(self.keys.as_ref(), records)
    }

    /// What the next datagram would be, with other keys, or none.
    pub fn peek_with(&self, keys: Option<&Keyring>, records: &[Vec<u8>]) -> Vec<u8> {
        datagram(keys, BOOT_EPOCH, self.sequence + 1, records)
    }

    /// Leaves numbers out.
    pub fn skip(&mut self, count: u64) {
        self.sequence += count;
    }

    /// A datagram with the number that is so far behind the last one.
    pub fn numbered(&self, behind: u64, records: &[Vec<u8>]) -> Vec<u8> {
        datagram(self.keys.as_ref(), BOOT_EPOCH, self.sequence - behind, records)
    }

    /// The next datagram of a life before this one.
    pub fn of_earlier_life(&self, records: &[Vec<u8>]) -> Vec<u8> {
        datagram(self.keys.as_ref(), BOOT_EPOCH - 1, self.sequence + 1, records)
    }
}

fn datagram(keys: Option<&Keyring>, boot_epoch: u64, sequence: u64, records: &[Vec<u8>]) -> Vec<u8> {
    let sender = Identity { cluster: 1, node: NodeId(2), numa: NumaId(0) };
    // A sealer for each datagram: it would refuse to go back.
    let mut sealer = keys.map_or_else(Sealer::off, |keys| Sealer::new(keys, sender, boot_epoch));
    let header = Header {
        cluster: sender.cluster,
        node: sender.node,
        numa: sender.numa,
        key: sealer.key(),
        to: None,
        stream: StreamId::CHANGES,
        boot_epoch,
        sequence,
        membership_epoch: 0,
    };
    let mut datagram = [header.encode().to_vec(), records.concat()].concat();
    sealer.seal(&header, &mut datagram).expect("a datagram that can be sealed");
    datagram
}

/// A session's endpoints.
#[derive(Clone, Copy)]
pub struct Flow {
    client: Endpoint,
    vip: Endpoint,
    local: Endpoint,
    server: Endpoint,
    state: SessionState,
}

/// An HTTP connection of a client that has this port, as is its local port.
pub fn flow(port: u16) -> Flow {
    let endpoint = |text: &str| text.parse::<SocketAddr>().expect("an endpoint").into();
    Flow {
        client: endpoint(&format!("10.1.1.9:{port}")),
        vip: endpoint("10.9.0.1:80"),
        local: endpoint(&format!("10.4.2.1:{port}")),
        server: endpoint("10.3.0.11:80"),
        state: SessionState::TcpEstablished,
    }
}

impl Flow {
    /// A flow whose client-side key is this one's server-side key.
    pub fn reversed(self, port: u16) -> Flow {
        Flow { client: self.server, vip: self.local, ..flow(port) }
    }

    /// The flow of a client of the UDP echo service.
    pub fn of_udp_client(self, client: SocketAddr) -> Flow {
        let echo = Endpoint { port: 7, ..self.vip };
        Flow { client: client.into(), vip: echo, state: SessionState::UdpTwoWay, ..self }
    }
}

/// A record that tells of a session of node 2's.
pub fn upsert(flow: Flow, generation: u32) -> Vec<u8> {
    record::encoded(Body::Upsert(Reported {
        generation: Generation(generation),
        state: flow.state,
        remaining_ms: 600_000,
        client: flow.client,
        vip: flow.vip,
        local: flow.local,
        server: flow.server,
    }))
}

/// Other records.
pub mod record {
    use baton_common::sync::wire::{Ended, HEADER_BYTES, Refreshed};

    use super::*;

    /// A record that tells the end of a session of node 2's: both sides have closed it.
    pub fn delete(flow: Flow, generation: u32) -> Vec<u8> {
        let Flow { client, vip, .. } = flow;
        let state = SessionState::TcpTimeWait;
        encoded(Body::Delete(Ended { generation: Generation(generation), state, client, vip }))
    }

    /// A record that tells that a session of node 2's lives on.
    pub fn refresh(flow: Flow, generation: u32) -> Vec<u8> {
        let Flow { client, vip, state, .. } = flow;
        encoded(Body::Refresh(Refreshed {
            generation: Generation(generation),
            state,
            remaining_ms: 600_000,
            client,
            vip,
        }))
    }

    /// A record of any type and content.
    pub fn raw(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_le_bytes();
        [&[kind, flags], length.as_slice(), payload].concat()
    }

    /// A record as the wire module writes it, behind the dictionary that it refers to.
    pub(super) fn encoded(body: Body) -> Vec<u8> {
        let mut batch = BatchWriter::new(1400);
        batch.push(&body).expect("a record that fits");
        let header = Header::decode(&datagram(None, 1, 1, &[])).expect("a header").0;
        batch.datagram(&header)[HEADER_BYTES..].to_vec()
    }
}
