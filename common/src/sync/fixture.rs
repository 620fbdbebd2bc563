//! What the tests of this module share: sessions and timeouts.

use proptest::prelude::*;

use crate::config::Timeouts;
use crate::flow::{Address, Endpoint, Protocol};
use crate::id::{Generation, NodeId};
use crate::session::{Session, SessionState};
use crate::time::Millis;

pub(super) const TIMEOUTS: Timeouts = Timeouts {
    tcp_handshake_ms: 10_000,
    tcp_established_ms: 600_000,
    tcp_closing_ms: 60_000,
    tcp_closed_ms: 5_000,
    udp_ms: 30_000,
    remote_margin_ms: 15_000,
};

fn session(number: u8, address: impl Fn(u8, u8) -> Address) -> Session {
    let endpoint = |net, host, port| Endpoint { address: address(net, host), port };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1, number, 40_000),
        vip: endpoint(9, 1, 443),
        local: endpoint(4, 1, 1024 + u16::from(number)),
        server: endpoint(3, 10, 8443),
        owner: NodeId(2),
        generation: Generation(1),
        state: SessionState::TcpEstablished,
        last_seen: Millis(1_000_000),
        last_sent: Millis(0),
    }
}

/// An IPv4 session of node 2, another one for every number.
pub(super) fn session_v4(number: u8) -> Session {
    session(number, |net, host| Address::v4([10, net, 0, host]))
}

/// An IPv6 session of node 2, another one for every number.
pub(super) fn session_v6(number: u8) -> Session {
    session(number, |net, host| Address::v6([0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]))
}

fn any_state(tcp: bool) -> impl Strategy<Value = SessionState> {
    let numbers = if tcp { 16u8..=22 } else { 1u8..=2 };
    numbers.prop_map(|number| SessionState::from_number(number).unwrap())
}

fn any_address(v4: bool) -> impl Strategy<Value = Address> {
    any::<[u8; 16]>().prop_map(move |mut octets| {
        octets[0] = octets[0] % 223 + 1;
        if v4 { Address::v4([octets[0], octets[1], octets[2], octets[3]]) } else { Address::v6(octets) }
    })
}

fn any_endpoint(v4: bool, port_min: u16) -> impl Strategy<Value = Endpoint> {
    (any_address(v4), port_min..).prop_map(|(address, port)| Endpoint { address, port })
}

/// Any session that can exist, of any owner.
pub(super) fn any_session() -> impl Strategy<Value = Session> {
    any::<(bool, bool)>().prop_flat_map(|(v4, tcp)| {
        let endpoints = (any_endpoint(v4, 0), any_endpoint(v4, 1), any_endpoint(v4, 1), any_endpoint(v4, 1));
        (endpoints, any_state(tcp), 1u16.., any::<u32>(), any::<(u64, u64)>()).prop_map(
            move |((client, vip, local, server), state, owner, generation, (seen, sent))| Session {
                protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
                client,
                vip,
                local,
                server,
                owner: NodeId(owner),
                generation: Generation(generation),
                state,
                last_seen: Millis(seen),
                last_sent: Millis(sent),
            },
        )
    })
}
