//! Golden bytes: what version 1 looks like, and that `docs/wire-format.md` shows the same.

use super::*;
use crate::flow::{Address, Endpoint};
use crate::id::{Generation, NodeId, NumaId};
use crate::session::SessionState;

const HEADER: &str = "\
    4241544e01000000443322110200010008070605040302012a00000000000000\
    00000000";

const UPSERT_V4: &str = "\
    0101230003000000c02709000200120a010107409c0a090001bb010a04020107\
    040a03000afb20";

const UPSERT_V6: &str = "\
    0201530003000000c0270900020012fd00000100010000000000000000000740\
    9cfd000009000000000000000000000001bb01fd000004000200000000000000\
    0000010704fd000003000000000000000000000010fb20";

const DELETE_V4: &str = "03011300030000000200150a010107409c0a090001bb01";

const DELETE_V6: &str = "\
    04012b0003000000020015fd000001000100000000000000000007409cfd0000\
    09000000000000000000000001bb01";

const REFRESH_V4: &str = "0501170003000000e09304000200120a010107409c0a090001bb01";

const REFRESH_V6: &str = "\
    06012f0003000000e0930400020012fd00000100010000000000000000000740\
    9cfd000009000000000000000000000001bb01";

const DOCUMENT: &str = include_str!("../../../../docs/wire-format.md");

fn header() -> Header {
    Header {
        cluster: 0x1122_3344,
        node: NodeId(2),
        numa: NumaId(1),
        key: None,
        stream: StreamId::CHANGES,
        boot_epoch: 0x0102_0304_0506_0708,
        sequence: 42,
        membership_epoch: 0,
    }
}

fn endpoint(address: &str, port: u16) -> Endpoint {
    Endpoint { address: Address::from(address.parse::<std::net::IpAddr>().unwrap()), port }
}

/// The upsert, the delete and the refresh of one session.
fn bodies([client, vip, local, server]: [Endpoint; 4]) -> [Body; 3] {
    let (owner, generation, state) = (NodeId(2), Generation(3), SessionState::TcpEstablished);
    [
        Body::Upsert(Reported {
            owner,
            generation,
            state,
            remaining_ms: 600_000,
            client,
            vip,
            local,
            server,
        }),
        Body::Delete(Ended { owner, generation, state: SessionState::TcpTimeWait, client, vip }),
        Body::Refresh(Refreshed { owner, generation, state, remaining_ms: 300_000, client, vip }),
    ]
}

/// Every kind of record, in the order of [`GOLDEN`].
fn every_body() -> [Body; 6] {
    let [upsert_v4, delete_v4, refresh_v4] = bodies([
        endpoint("10.1.1.7", 40_000),
        endpoint("10.9.0.1", 443),
        endpoint("10.4.2.1", 1031),
        endpoint("10.3.0.10", 8443),
    ]);
    let [upsert_v6, delete_v6, refresh_v6] = bodies([
        endpoint("fd00:1:1::7", 40_000),
        endpoint("fd00:9::1", 443),
        endpoint("fd00:4:2::1", 1031),
        endpoint("fd00:3::10", 8443),
    ]);
    [upsert_v4, upsert_v6, delete_v4, delete_v6, refresh_v4, refresh_v6]
}

/// The header, then one record of every type.
const GOLDEN: [&str; 7] = [HEADER, UPSERT_V4, UPSERT_V6, DELETE_V4, DELETE_V6, REFRESH_V4, REFRESH_V6];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_datagram_with_every_record_is_the_golden_bytes() {
    let mut batch = BatchWriter::new(1472);
    for body in every_body() {
        batch.push(&body).unwrap();
    }

    assert_eq!(hex(batch.datagram(&header())), GOLDEN.concat());
}

#[test]
fn the_golden_bytes_decode_to_what_they_were_made_of() {
    let datagram = unhex(&GOLDEN.concat());

    let (decoded, rest) = Header::decode(&datagram).unwrap();

    assert_eq!(decoded, header());
    let expected = every_body().map(|body| Ok(Record { body, extensions_skipped: 0 }));
    assert_eq!(records(rest).collect::<Vec<_>>(), expected);
}

#[test]
fn the_document_shows_the_golden_bytes() {
    let document: String = DOCUMENT.split_whitespace().collect();
    for part in GOLDEN {
        assert!(document.contains(part), "docs/wire-format.md lacks {part}");
    }
}

#[test]
fn the_document_states_how_many_records_a_datagram_holds() {
    for (ipv6, name) in [(false, "IPv4"), (true, "IPv6")] {
        for mtu in [1500, 9000] {
            let capacity = every_body().map(|body| {
                let mut batch = BatchWriter::new(payload_bytes_max(mtu, ipv6));
                while batch.push(&body).is_ok() {}
                batch.records().to_string()
            });
            let row = format!("| {mtu} | {name} | {} |", capacity.join(" | "));
            assert!(DOCUMENT.contains(&row), "docs/wire-format.md lacks: {row}");
        }
    }
}

#[test]
fn a_datagram_of_maximum_size_fits_the_mtu() {
    for body in every_body() {
        let mut batch = BatchWriter::new(payload_bytes_max(1500, false));
        while batch.push(&body).is_ok() {}
        assert!(batch.datagram(&header()).len() <= 1472);
    }
}

#[test]
fn a_session_of_both_families_is_not_encoded() {
    let [Body::Upsert(mut upsert), ..] = every_body() else { unreachable!() };
    upsert.server = endpoint("fd00:3::10", 8443);
    let mut batch = BatchWriter::new(1472);

    assert_eq!(batch.push(&Body::Upsert(upsert)), Err(PushError::MixedFamilies));
    assert_eq!(batch.datagram(&header()).len(), HEADER_BYTES);
}
