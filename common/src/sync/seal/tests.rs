//! Sealer and opener without a network: what one seals the other opens, and nothing else.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Keyring, Opener, SealError, Sealer, TAG_BYTES};
use crate::config::KeyFile;
use crate::id::{KeyId, NodeId, NumaId};
use crate::sync::Reject;
use crate::sync::roster::Identity;
use crate::sync::state::PEERS_MAX;
use crate::sync::wire::{HEADER_BYTES, Header, StreamId};

const SENDER: Identity = Identity { cluster: 7, node: NodeId(2), numa: NumaId(0) };
const EPOCH: u64 = 1000;

/// A key file of keys with these numbers; the first seals. A key's bits follow from its number.
fn keyring(ids: &[u8]) -> Keyring {
    let line = |(at, id): (usize, &u8)| {
        let usage = if at == 0 { "seal" } else { "open" };
        format!("{id} {usage} {id:02x}{}\n", "00".repeat(31))
    };
    let text: String = ids.iter().enumerate().map(line).collect();
    Keyring::new(&KeyFile::parse(&text, "test").unwrap())
}

fn opener(ids: &[u8]) -> Opener {
    Opener::new(Arc::new(keyring(ids)))
}

fn header(key: u8, stream: usize, sequence: u64) -> Header {
    Header {
        cluster: SENDER.cluster,
        node: SENDER.node,
        numa: SENDER.numa,
        key: Some(KeyId(key)),
        to: None,
        stream: StreamId::ALL[stream],
        boot_epoch: EPOCH,
        sequence,
        membership_epoch: 0,
    }
}

fn datagram(header: &Header, records: &[u8]) -> Vec<u8> {
    [&header.encode(), records].concat()
}

/// A datagram that was sealed by a sealer of its own.
fn sealed(header: &Header, records: &[u8]) -> Vec<u8> {
    let Header { cluster, node, numa, .. } = *header;
    let keys = keyring(&[header.key.unwrap().0]);
    let mut sealer = Sealer::new(&keys, Identity { cluster, node, numa }, header.boot_epoch);
    let mut datagram = datagram(header, records);
    sealer.seal(header, &mut datagram).unwrap();
    datagram
}

/// What is opened of a datagram, going by what its header says.
fn opened(opener: &mut Opener, datagram: &[u8]) -> Result<Vec<u8>, Reject> {
    let (header, _) = Header::decode(datagram)?;
    opener.open(&header, datagram, &mut Vec::new()).map(<[u8]>::to_vec)
}

#[test]
fn no_changed_bit_and_no_changed_length_is_believed() {
    let good = sealed(&header(1, 0, 5), b"records of some length");
    let mut opener = opener(&[1]);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let refused = opened(&mut opener, &bad).expect_err("a changed datagram");
            if at >= HEADER_BYTES {
                assert_eq!(refused, Reject::Tag, "byte {at}, bit {bit}");
            }
        }
    }
    for length in 0..good.len() {
        assert!(opened(&mut opener, &good[..length]).is_err(), "cut to {length}");
    }
    for length in HEADER_BYTES..HEADER_BYTES + TAG_BYTES {
        assert_eq!(opened(&mut opener, &good[..length]), Err(Reject::Truncated));
    }
    assert_eq!(opened(&mut opener, &[&good[..], &[0]].concat()), Err(Reject::Tag));
    assert_eq!(opened(&mut opener, &good), Ok(b"records of some length".to_vec()));
}

#[test]
fn each_header_field_is_part_of_what_is_sealed() {
    let good = header(1, 0, 5);
    let others = [
        Header { cluster: 8, ..good },
        Header { node: NodeId(3), ..good },
        Header { numa: NumaId(1), ..good },
        Header { to: Some((NodeId(1), NumaId(0))), ..good },
        Header { stream: StreamId::RANGES, ..good },
        Header { boot_epoch: EPOCH + 1, ..good },
        Header { sequence: 6, ..good },
        Header { membership_epoch: 1, ..good },
    ];
    let sealed = sealed(&good, b"records");
    for other in others {
        let relabelled = [&other.encode(), &sealed[HEADER_BYTES..]].concat();
        assert_eq!(opened(&mut opener(&[1]), &relabelled), Err(Reject::Tag), "{other:?}");
    }
}

#[test]
fn a_key_opens_only_what_it_sealed() {
    let datagram = sealed(&header(1, 0, 5), b"records");
    assert_eq!(opened(&mut opener(&[2]), &datagram), Err(Reject::KeyUnknown));
    assert_eq!(opened(&mut opener(&[2, 1]), &datagram), Ok(b"records".to_vec()));

    let other = Keyring::new(&KeyFile::parse(&format!("1 seal 77{}", "00".repeat(31)), "other").unwrap());
    assert_eq!(opened(&mut Opener::new(Arc::new(other)), &datagram), Err(Reject::Tag));

    let renamed = Header { key: Some(KeyId(2)), ..header(1, 0, 5) };
    let renamed = [&renamed.encode(), &datagram[HEADER_BYTES..]].concat();
    assert_eq!(opened(&mut opener(&[1, 2]), &renamed), Err(Reject::Tag));
}

#[test]
fn sealed_and_unsealed_do_not_mix() {
    let sealed = sealed(&header(1, 0, 5), b"records");
    let clear = Header { key: None, ..header(1, 0, 5) };
    let clear = datagram(&clear, b"records");

    assert_eq!(opened(&mut opener(&[1]), &clear), Err(Reject::Unsealed));
    assert_eq!(opened(&mut Opener::off(), &sealed), Err(Reject::Sealed));
    assert_eq!(opened(&mut Opener::off(), &clear), Ok(b"records".to_vec()));
}

#[test]
fn security_off_changes_no_byte() {
    let clear = Header { key: None, ..header(1, 0, 5) };
    let mut sealer = Sealer::off();
    assert_eq!((sealer.key(), sealer.overhead_bytes()), (None, 0));
    for _ in 0..2 {
        let mut bytes = datagram(&clear, b"records");
        sealer.seal(&clear, &mut bytes).unwrap();
        assert_eq!(bytes, datagram(&clear, b"records"));
    }
}

#[test]
fn no_place_is_sealed_twice() {
    let mut sealer = Sealer::new(&keyring(&[1]), SENDER, EPOCH);
    let mut seal = |stream, sequence| {
        let header = header(1, stream, sequence);
        let mut bytes = datagram(&header, b"records");
        sealer.seal(&header, &mut bytes).inspect_err(|_| assert_eq!(bytes, datagram(&header, b"records")))
    };
    assert_eq!(seal(0, 5), Ok(()));
    assert_eq!(seal(0, 5), Err(SealError::Place { sequence: 5, last: 5 }));
    assert_eq!(seal(0, 4), Err(SealError::Place { sequence: 4, last: 5 }));
    assert_eq!(seal(1, 5), Ok(()), "streams are numbered apart");
    assert_eq!(seal(0, 9), Ok(()), "a number may be skipped");
    assert_eq!(seal(0, 8), Err(SealError::Place { sequence: 8, last: 9 }));

    // The keys change; what was used stays used, and goes on.
    sealer.use_keyring(&keyring(&[2, 1]));
    let seal = |sealer: &mut Sealer, key, sequence| {
        let header = header(key, 0, sequence);
        sealer.seal(&header, &mut datagram(&header, b"records"))
    };
    assert_eq!(seal(&mut sealer, 2, 9), Err(SealError::Place { sequence: 9, last: 9 }));
    assert_eq!(seal(&mut sealer, 1, 10), Err(SealError::Header), "another key than the header's");
    assert_eq!(seal(&mut sealer, 2, 10), Ok(()));
}

#[test]
fn a_sealer_seals_for_its_own_sender_only() {
    let mut sealer = Sealer::new(&keyring(&[1]), SENDER, EPOCH);
    let good = header(1, 0, 5);
    let others = [
        Header { cluster: 8, ..good },
        Header { node: NodeId(3), ..good },
        Header { numa: NumaId(1), ..good },
        Header { boot_epoch: EPOCH + 1, ..good },
        Header { key: None, ..good },
    ];
    for other in others {
        assert_eq!(sealer.seal(&other, &mut datagram(&other, b"")), Err(SealError::Header), "{other:?}");
    }
    assert_eq!(sealer.seal(&good, &mut vec![0; HEADER_BYTES - 1]), Err(SealError::Header));
}

#[test]
fn the_same_records_never_look_the_same() {
    let records = [0; 64];
    let origins = [(2, 0, EPOCH), (3, 0, EPOCH), (2, 1, EPOCH), (2, 0, EPOCH + 1)];
    let mut seen = Vec::new();
    for (node, numa, boot_epoch) in origins {
        for (stream, sequence, key) in [(0, 1, 1), (1, 1, 1), (0, 2, 1), (0, 1, 2)] {
            let header = Header {
                node: NodeId(node),
                numa: NumaId(numa),
                boot_epoch,
                ..header(key, stream, sequence)
            };
            let bytes = sealed(&header, &records)[HEADER_BYTES..].to_vec();
            assert!(!seen.contains(&bytes), "{header:?}");
            seen.push(bytes);
        }
    }
}

#[test]
fn forged_headers_fill_no_memory_and_push_nothing_out() {
    let mut opener = opener(&[1]);
    let good = sealed(&header(1, 0, 5), b"records");
    opened(&mut opener, &good).unwrap();
    for node in 1..=3 * PEERS_MAX as u16 {
        let forged = Header { node: NodeId(node), boot_epoch: u64::from(node), ..header(1, 0, 5) };
        let forged = [&forged.encode(), &good[HEADER_BYTES..]].concat();
        assert_eq!(opened(&mut opener, &forged), Err(Reject::Tag));
    }
    assert_eq!(opener.senders_known(), 1);

    for node in 1..=3 * PEERS_MAX as u16 {
        let member = Header { node: NodeId(node), ..header(1, 0, 5) };
        opened(&mut opener, &sealed(&member, b"records")).unwrap();
        assert!(opener.senders_known() <= PEERS_MAX);
    }
    assert_eq!(opened(&mut opener, &good), Ok(b"records".to_vec()));
}

#[test]
fn another_keyring_takes_effect_at_the_next_datagram() {
    let mut opener = opener(&[1]);
    let [old, new] = [1, 2].map(|key| sealed(&header(key, 0, 5), b"records"));
    assert!(opened(&mut opener, &old).is_ok());
    assert_eq!(opened(&mut opener, &new), Err(Reject::KeyUnknown));

    opener.use_keyring(Arc::new(keyring(&[2, 1])));
    assert!(opened(&mut opener, &old).is_ok());
    assert!(opened(&mut opener, &new).is_ok());

    opener.use_keyring(Arc::new(keyring(&[2])));
    assert_eq!(opened(&mut opener, &old), Err(Reject::KeyUnknown), "a key that was taken away opens nothing");
    assert!(opened(&mut opener, &new).is_ok());
}

#[test]
fn room_is_used_again() {
    let mut opener = opener(&[1]);
    let mut room = Vec::new();
    let open = |opener: &mut Opener, room: &mut Vec<u8>, records: &[u8]| {
        let header = header(1, 0, 5);
        assert_eq!(opener.open(&header, &sealed(&header, records), room), Ok(records));
        (room.as_ptr(), room.len())
    };
    let longest = open(&mut opener, &mut room, &[7; 9000]);
    for length in [0, 1, 8999, 9000] {
        assert_eq!(open(&mut opener, &mut room, &vec![8; length]), longest);
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened(
        records in proptest::collection::vec(any::<u8>(), 0..2000),
        stream in 0usize..4,
        sequence in 1u64..,
        boot_epoch in 1u64..,
        (cluster, node, numa) in (any::<u32>(), 1u16.., any::<u8>()),
    ) {
        let header = Header { cluster, node: NodeId(node), numa: NumaId(numa), boot_epoch, ..header(1, stream, sequence) };
        let bytes = sealed(&header, &records);
        prop_assert_eq!(bytes.len(), HEADER_BYTES + records.len() + TAG_BYTES);
        prop_assert_eq!(opened(&mut opener(&[9, 1]), &bytes), Ok(records));
    }

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), key in 1u8..4) {
        let mut forged = datagram(&header(key, 0, 5), &bytes);
        let refused = opened(&mut opener(&[1, 2]), &forged).unwrap_err();
        let expected = match (key, bytes.len()) {
            (3, _) => Reject::KeyUnknown,
            (_, ..TAG_BYTES) => Reject::Truncated,
            _ => Reject::Tag,
        };
        prop_assert_eq!(refused, expected);
        // Its own header, but of another place.
        forged[..bytes.len().min(HEADER_BYTES)].copy_from_slice(&bytes[..bytes.len().min(HEADER_BYTES)]);
        prop_assert!(bytes.is_empty() || opened(&mut opener(&[1, 2]), &forged).is_err());
    }
}
