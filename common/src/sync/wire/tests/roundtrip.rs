//! Whatever can be written is read back as it was, whatever stands beside it.

use proptest::prelude::*;

use super::*;
use crate::flow::FlowKey;
use crate::session::Session;
use crate::sync::fixture::any_session;

fn any_stream() -> impl Strategy<Value = StreamId> {
    (0..STREAMS_MAX).prop_map(|index| StreamId::ALL[index])
}

/// A session, with what is left of its timeout as the wire can say it.
fn any_reported() -> impl Strategy<Value = Reported> {
    (any_session(), any::<u32>(), any::<bool>()).prop_map(|(session, remaining, young)| {
        let Session { mut generation, state, client, vip, local, server, .. } = session;
        if young {
            generation.0 %= 20;
        }
        let remaining_ms = Remaining::round_up(remaining).milliseconds();
        Reported { generation, state, remaining_ms, client, vip, local, server }
    })
}

fn any_sought() -> impl Strategy<Value = Sought> {
    (any_session(), any::<bool>()).prop_map(|(session, inbound)| match inbound {
        true => Sought { direction: Direction::Inbound, key: session.client_key() },
        false => Sought { direction: Direction::Outbound, key: session.server_key() },
    })
}

fn any_news() -> impl Strategy<Value = Body> {
    (any_reported(), 0u8..3).prop_map(|(reported, kind)| {
        let Reported { generation, state, remaining_ms, client, vip, .. } = reported;
        match kind {
            0 => Body::Upsert(reported),
            1 => Body::Delete(Ended { generation, state, client, vip }),
            _ => Body::Refresh(Refreshed { generation, state, remaining_ms, client, vip }),
        }
    })
}

fn any_hello() -> impl Strategy<Value = Body> {
    let sizes = (DATAGRAM_BYTES_MIN as u16.., any::<u64>(), any::<u32>(), any::<u32>());
    (any::<bool>(), 1u8.., 0usize..4, sizes).prop_map(|(wants_answer, version, state, sizes)| {
        Body::Hello(Hello {
            wants_answer,
            version,
            state: NodeState::ALL[state],
            datagram_bytes_max: sizes.0,
            config_digest: sizes.1,
            sessions_owned: sizes.2,
            sessions_held: sizes.3,
        })
    })
}

fn any_range() -> impl Strategy<Value = Body> {
    (any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u16>(), 0u8..4).prop_map(
        |(range, sessions, nonce, digest, count, kind)| {
            let id = RangeId(range);
            match kind {
                0 => Body::RangeDigest(RangeDigest { range: id, sessions, digest }),
                1 => Body::RangeBegin(RangeBegin { range: id, nonce }),
                2 => Body::RangeEnd(RangeEnd { range: id, nonce, sessions }),
                _ => {
                    let count = count.min(u16::MAX - range).max(1);
                    Body::RangeRequest(RangeRequest { first: id, count, nonce })
                }
            }
        },
    )
}

pub(in crate::sync) fn any_body() -> impl Strategy<Value = Body> {
    let credit = (any_stream(), any::<u64>()).prop_map(|(stream, until)| Credit { stream, until });
    let nack = (any_stream(), 1u64..u64::MAX - 70_000, 1u16..);
    let nack = nack.prop_map(|(stream, first, count)| Nack { stream, first, count });
    prop_oneof![
        6 => any_news(),
        1 => any_hello(),
        2 => any_range(),
        1 => credit.prop_map(Body::Credit),
        1 => nack.prop_map(Body::Nack),
        1 => (1u64..).prop_map(|boot_epoch| Body::EpochHeard(EpochHeard { boot_epoch })),
        1 => any_sought().prop_map(Body::Query),
        1 => any_sought().prop_map(Body::NotMine),
    ]
}

/// The bodies in as many datagrams as they take, each with as many as fit.
fn datagrams_of(bodies: &[Body], batch: &mut BatchWriter) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    for body in bodies {
        if batch.push(body) == Err(PushError::Full) {
            datagrams.push(batch.datagram(&header()).to_vec());
            batch.clear();
            batch.push(body).unwrap();
        }
    }
    datagrams.push(batch.datagram(&header()).to_vec());
    batch.clear();
    datagrams
}

fn bodies_in(datagrams: &[Vec<u8>], reader: &mut Reader) -> Vec<Body> {
    let mut bodies = Vec::new();
    for datagram in datagrams {
        let (decoded, rest) = Header::decode(datagram).unwrap();
        assert_eq!(decoded, header());
        for record in reader.records(rest) {
            let Record { body, extensions_skipped } = record.unwrap();
            assert_eq!(extensions_skipped, 0);
            bodies.push(body);
        }
    }
    bodies
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_written(
        bodies in prop::collection::vec(any_body(), 0..200),
        bytes_max in DATAGRAM_BYTES_MIN..4000,
    ) {
        let (mut batch, mut reader) = (BatchWriter::new(bytes_max), Reader::new());
        // Twice, so that what is left of the datagrams before would show.
        for _ in 0..2 {
            let datagrams = datagrams_of(&bodies, &mut batch);
            prop_assert!(datagrams.iter().all(|datagram| datagram.len() <= bytes_max));
            prop_assert_eq!(&bodies_in(&datagrams, &mut reader), &bodies);
        }
    }

    #[test]
    fn a_batch_refuses_what_does_not_fit_and_only_that(
        bodies in prop::collection::vec(any_body(), 1..60),
        last in any_body(),
    ) {
        let mut measure = BatchWriter::new(usize::MAX);
        for body in bodies.iter().chain([&last]) {
            measure.push(body).unwrap();
        }
        let bytes = measure.datagram(&header()).to_vec();
        for bytes_max in [bytes.len() - 1, bytes.len()].map(|limit| limit.max(DATAGRAM_BYTES_MIN)) {
            let mut batch = BatchWriter::new(bytes_max);
            for body in &bodies {
                batch.push(body).unwrap();
            }
            let before = batch.datagram(&header()).to_vec();
            if bytes.len() <= bytes_max {
                prop_assert_eq!(batch.push(&last), Ok(()));
            } else {
                prop_assert_eq!(batch.push(&last), Err(PushError::Full));
                prop_assert_eq!(batch.records() as usize, bodies.len());
                prop_assert_eq!(&*batch.datagram(&header()), &before, "nothing was added");
            }
        }
    }

    #[test]
    fn a_session_of_both_families_is_refused_and_leaves_nothing(
        reported in any_reported(), which in 0usize..4,
    ) {
        let mut mixed = reported;
        let other = if reported.vip.address.is_v4() { "fd00:3::10" } else { "10.3.0.10" };
        let endpoints = [&mut mixed.client, &mut mixed.vip, &mut mixed.local, &mut mixed.server];
        endpoints.into_iter().nth(which).unwrap().address = endpoint(other, 1).address;
        let key = FlowKey { source: mixed.client, ..reported.client_key() };
        let mut batch = BatchWriter::new(1472);

        prop_assert_eq!(batch.push(&Body::Upsert(mixed)), Err(PushError::MixedFamilies));
        if which == 0 {
            let query = Body::Query(Sought { direction: Direction::Inbound, key });
            prop_assert_eq!(batch.push(&query), Err(PushError::MixedFamilies));
        }
        prop_assert_eq!(batch.datagram(&header()).len(), HEADER_BYTES);
    }

    #[test]
    fn a_header_is_read_as_it_was_written(
        cluster: u32, membership_epoch: u32, node in 1u16.., numa: u8, to in prop::option::of((1u16.., any::<u8>())),
        key in prop::option::of(1u8..),
        stream in any_stream(), boot_epoch in 1u64.., sequence in 1u64..,
    ) {
        let header = Header {
            cluster,
            membership_epoch,
            node: NodeId(node),
            numa: NumaId(numa),
            to: to.map(|(node, numa)| (NodeId(node), NumaId(numa))),
            key: key.map(KeyId),
            stream,
            boot_epoch,
            sequence,
        };
        let encoded = header.encode();
        prop_assert_eq!(Header::decode(&encoded), Ok((header, &[][..])));
    }
}

#[test]
fn every_record_fits_the_smallest_datagram_alone() {
    let mut worst = reported(
        [
            ("fdff::f", 1),
            ("fdff:1:2:3:4:5:6:7", 257),
            ("fdfe:1:2:3:4:5:6:7", 258),
            ("fdfd:1:2:3:4:5:6:7", 259),
        ]
        .map(|(address, port)| endpoint(address, port)),
        u32::MAX,
    );
    for address in [&mut worst.vip, &mut worst.local, &mut worst.server].map(|endpoint| &mut endpoint.address)
    {
        address.0 = address.0.map(|byte| byte.max(1));
    }
    for body in body_of_every_kind().into_iter().chain([Body::Upsert(worst)]) {
        let mut batch = BatchWriter::new(0);
        assert_eq!(batch.push(&body), Ok(()));
        assert!(batch.datagram(&header()).len() <= DATAGRAM_BYTES_MIN);
    }
    let mut batch = BatchWriter::new(0);
    batch.push(&Body::Upsert(worst)).unwrap();
    // The service's number, which is zero, is the one byte that the longest entry could have more.
    assert_eq!(batch.datagram(&header()).len() + 1, DATAGRAM_BYTES_MIN);
}

#[test]
fn a_batch_goes_on_after_its_datagram_was_taken() {
    let bodies = body_of_every_kind();
    let mut batch = BatchWriter::new(1472);
    for body in &bodies[..10] {
        batch.push(body).unwrap();
    }
    batch.datagram(&header());
    for body in &bodies[10..] {
        batch.push(body).unwrap();
    }

    let datagram = batch.datagram(&header()).to_vec();

    assert_eq!(bodies_in(&[datagram], &mut Reader::new()), bodies);
}

#[test]
fn more_entries_than_numbers_end_the_datagram() {
    let mut batch = BatchWriter::new(65_507);
    let upsert = |number: u16| {
        let [client, vip, local, mut server] =
            ["10.1.1.7", "10.9.0.1", "10.4.2.1", "10.3.0.10"].map(|address| endpoint(address, 80));
        server.port = 1000 + number;
        Body::Upsert(reported([client, vip, local, server], 0))
    };
    for number in 0..256 {
        batch.push(&upsert(number)).unwrap();
    }

    assert_eq!(batch.push(&upsert(256)), Err(PushError::Full));

    assert_eq!(batch.push(&upsert(0)), Ok(()), "what is named already can still be said");
    assert_eq!(bodies_in(&[batch.datagram(&header()).to_vec()], &mut Reader::new()).len(), 257);
}
