//! The format as a whole: what goes in comes out, how much fits, and what damage does.

mod capacity;
mod damage;
pub(in crate::sync) mod roundtrip;

use std::net::IpAddr;

use super::*;
use crate::flow::{Address, Endpoint};
use crate::id::{Generation, KeyId, NodeId, NumaId};
use crate::session::{Direction, SessionState};

pub(super) fn header() -> Header {
    Header {
        cluster: 0x1122_3344,
        membership_epoch: 5,
        key: None,
        node: NodeId(2),
        numa: NumaId(1),
        to: Some((NodeId(3), NumaId(0))),
        stream: StreamId::CHANGES,
        boot_epoch: 0x0102_0304_0506_0708,
        sequence: 42,
    }
}

pub(super) fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint { address: Address::from(address.parse::<IpAddr>().unwrap()), port }
}

/// A session as its owner reports it.
fn reported([client, vip, local, server]: [Endpoint; 4], generation: u32) -> Reported {
    let (generation, state) = (Generation(generation), SessionState::TcpEstablished);
    Reported { generation, state, remaining_ms: 600_064, client, vip, local, server }
}

/// All that can be said of one session.
fn bodies_of(reported: Reported) -> [Body; 5] {
    let Reported { generation, state, client, vip, .. } = reported;
    let ended = Ended { generation, state: SessionState::TcpTimeWait, client, vip };
    let refreshed = Refreshed { generation, state, remaining_ms: 300_032, client, vip };
    [
        Body::Upsert(reported),
        Body::Delete(ended),
        Body::Refresh(refreshed),
        Body::Query(Sought { direction: Direction::Inbound, key: reported.client_key() }),
        Body::NotMine(Sought { direction: Direction::Outbound, key: reported.server_key() }),
    ]
}

/// A body of every kind, in both families where there are two, and two with the same header.
pub(super) fn body_of_every_kind() -> [Body; 21] {
    let v4 = [("10.1.1.7", 40_000), ("10.9.0.1", 443), ("10.4.2.1", 1031), ("10.3.0.10", 8443)];
    let v6 = [("fd00:1:1::7", 40_000), ("fd00:9::1", 443), ("fd00:4:2::1", 1031), ("fd00:3::10", 8443)];
    let v4 = reported(v4.map(|(address, port)| endpoint(address, port)), 3);
    let v6 = reported(v6.map(|(address, port)| endpoint(address, port)), 3);
    let mut second = Reported { generation: Generation(4), ..v4 };
    second.client = endpoint("10.1.1.8", 40_001);
    second.local.port = 1032;
    second.server = endpoint("10.3.0.11", 8443);
    let often_moved = Reported { generation: Generation(0x12_3457), ..v6 };
    let [upsert_v4, delete_v4, refresh_v4, query_v4, not_mine_v4] = bodies_of(v4);
    let [upsert_v6, delete_v6, refresh_v6, query_v6, not_mine_v6] = bodies_of(v6);
    [
        upsert_v4,
        Body::Upsert(second),
        upsert_v6,
        Body::Upsert(often_moved),
        delete_v4,
        delete_v6,
        refresh_v4,
        refresh_v6,
        Body::Hello(Hello {
            wants_answer: true,
            version: VERSION,
            state: NodeState::Syncing,
            datagram_bytes_max: 1432,
            config_digest: 0x1112_1314_1516_1718,
            sessions_owned: 20_000_000,
            sessions_held: 40_000_000,
        }),
        Body::RangeDigest(RangeDigest { range: RangeId(511), sessions: 4882, digest: 0x2122_2324_2526_2728 }),
        Body::RangeDigest(RangeDigest { range: RangeId(512), sessions: 4901, digest: 0x3132_3334_3536_3738 }),
        Body::RangeRequest(RangeRequest { first: RangeId(512), count: 3, nonce: 0x4142_4344 }),
        Body::Credit(Credit { stream: StreamId::RANGES, until: 1000 }),
        Body::RangeBegin(RangeBegin { range: RangeId(512), nonce: 0x4142_4344 }),
        Body::RangeEnd(RangeEnd { range: RangeId(512), nonce: 0x4142_4344, sessions: 4901 }),
        query_v4,
        query_v6,
        not_mine_v4,
        not_mine_v6,
        Body::Nack(Nack { stream: StreamId::CHANGES, first: 40, count: 2 }),
        Body::EpochHeard(EpochHeard { boot_epoch: 0x5152_5354_5556_5758 }),
    ]
}

/// What a reader makes of these records, which follow a header.
fn read(bytes: &[u8]) -> Vec<Result<Record, crate::sync::Reject>> {
    Reader::new().records(bytes).collect()
}

/// The datagram of these bodies, without its header.
fn written(bodies: &[Body]) -> Vec<u8> {
    let mut batch = BatchWriter::new(65_507);
    for body in bodies {
        batch.push(body).unwrap();
    }
    batch.datagram(&header())[HEADER_BYTES..].to_vec()
}
