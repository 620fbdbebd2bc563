//! Bad datagrams of every kind change exactly one counter, and nothing else.

use super::*;

/// A byte string that stands where a good one stood.
type Damage<'a> = (&'a str, usize, &'a [u8], Reject);

/// One good datagram: a header and an IPv4 upsert of session 1.
fn good() -> Vec<u8> {
    datagrams_of(&[upsert(session_v4(1))]).remove(0)
}

fn damaged(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = good();
    datagram[offset..offset + bytes.len()].copy_from_slice(bytes);
    datagram
}

/// A node with a session in its table and 100 datagrams behind it.
fn node() -> Node {
    let mut node = Node::new();
    let mut first = datagrams_of(&[upsert(session_v6(9))]).remove(0);
    first[24..32].copy_from_slice(&100u64.to_le_bytes());
    node.receive(&first).unwrap();
    node.counters = Box::new(CounterBlock::new());
    node
}

/// Gives a good node a bad datagram, and checks that this reason was counted, and nothing else has changed.
#[track_caller]
fn assert_rejected(what: &str, source: IpAddr, datagram: &[u8], reason: Reject) {
    let mut node = node();
    let (table, heard) = (node.table.clone(), node.state.peers().next().unwrap());

    assert_eq!(node.receive_from(source, datagram), Err(reason), "{what}");

    assert_eq!(node.counted(), [(reason.counter(), 1)], "{what}");
    assert_eq!(node.table, table, "{what}");
    let now = node.state.peers().next().unwrap();
    assert_eq!(
        (now.boot_epoch, now.highest, now.datagrams),
        (heard.boot_epoch, heard.highest, heard.datagrams)
    );
    assert_eq!(node.state.peers().count(), 1, "{what}");
}

#[test]
fn a_datagram_cut_anywhere_in_its_header_is_truncated() {
    for length in 0..36 {
        assert_rejected("cut header", SENDER_ADDRESS, &good()[..length], Reject::Truncated);
    }
}

#[test]
fn each_wrong_header_field_has_its_own_reason() {
    let cases: &[Damage] = &[
        ("magic, first byte", 0, b"b", Reject::Magic),
        ("magic, last byte", 3, b"n", Reject::Magic),
        ("version 0", 4, &[0], Reject::Version),
        ("a future version", 4, &[2], Reject::Version),
        ("stream 4", 5, &[4], Reject::HeaderField),
        ("stream 255", 5, &[255], Reject::HeaderField),
        ("lowest flag", 6, &[1], Reject::Reserved),
        ("highest flag", 7, &[0x80], Reject::Reserved),
        ("another cluster", 8, &[8], Reject::Cluster),
        ("node 0", 12, &[0, 0], Reject::HeaderField),
        ("own node", 12, &[1, 0], Reject::OwnNode),
        ("a stranger", 12, &[77, 0], Reject::Member),
        ("another member's number", 12, &[3, 0], Reject::Member),
        ("a key's number", 15, &[1], Reject::Sealed),
        ("boot epoch 0", 16, &[0; 8], Reject::HeaderField),
        ("older boot epoch", 16, &999u64.to_le_bytes(), Reject::Epoch),
        ("sequence 0", 24, &[0; 8], Reject::HeaderField),
        ("sequence received before", 24, &100u64.to_le_bytes(), Reject::Duplicate),
        ("sequence below the window", 24, &36u64.to_le_bytes(), Reject::TooOld),
        ("membership epoch", 32, &[1], Reject::MembershipEpoch),
    ];
    for (what, offset, bytes, reason) in cases {
        assert_rejected(what, SENDER_ADDRESS, &damaged(*offset, bytes), *reason);
    }
}

#[test]
fn a_member_is_heard_only_from_its_own_address() {
    assert_rejected("a stranger's address", "10.2.0.9".parse().unwrap(), &good(), Reject::Member);
    assert_rejected("another member's address", OTHER_ADDRESS, &good(), Reject::Member);
}

#[test]
fn an_ipv4_source_may_come_mapped_to_ipv6() {
    let mut datagram = good();
    datagram[24..32].copy_from_slice(&101u64.to_le_bytes());
    assert!(node().receive_from("::ffff:10.2.0.102".parse().unwrap(), &datagram).is_ok());
}

/// Gives a fresh node a datagram with one bad record between two good ones.
#[track_caller]
fn assert_record_rejected(what: &str, bad: &[u8], reason: Reject) {
    let neighbours = datagrams_of(&[upsert(session_v4(5)), upsert(session_v6(6))]).remove(0);
    let (before, after) = neighbours.split_at(36 + 39);
    let mut node = Node::new();
    let mut only_good = Node::new();
    only_good.receive(&neighbours).unwrap();

    let received = node.receive(&[before, bad, after].concat()).unwrap();

    assert_eq!(received, Received { applied: 2, rejected: 1 }, "{what}");
    assert_eq!(node.table, only_good.table, "{what}");
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 2), (reason.counter(), 1)], "{what}");
}

#[test]
fn each_field_of_an_upsert_is_checked() {
    let cases: &[Damage] = &[
        ("reserved flag", 1, &[0x03], Reject::RecordField),
        ("owner 0", 12, &[0, 0], Reject::RecordField),
        ("another owner", 12, &[3, 0], Reject::NotOwner),
        ("the receiver as owner", 12, &[1, 0], Reject::NotOwner),
        ("state 0", 14, &[0], Reject::RecordField),
        ("state 3", 14, &[3], Reject::RecordField),
        ("state 23", 14, &[23], Reject::RecordField),
        ("client 0.0.0.0", 15, &[0; 4], Reject::RecordField),
        ("client multicast", 15, &[224, 0, 0, 1], Reject::RecordField),
        ("vip broadcast", 21, &[255; 4], Reject::RecordField),
        ("vip port 0", 25, &[0, 0], Reject::RecordField),
        ("local 0.1.2.3", 27, &[0, 1, 2, 3], Reject::RecordField),
        ("local port 0", 31, &[0, 0], Reject::RecordField),
        ("server multicast", 33, &[239; 4], Reject::RecordField),
        ("server port 0", 37, &[0, 0], Reject::RecordField),
    ];
    for (what, offset, bytes, reason) in cases {
        assert_record_rejected(what, &damaged(36 + offset, bytes)[36..], *reason);
    }
}

#[test]
fn an_ipv6_record_holds_ipv6_addresses_only() {
    let record = datagrams_of(&[upsert(session_v6(1))]).remove(0)[36..].to_vec();
    for endpoint in 0..4 {
        let at = 15 + 18 * endpoint;
        let mut mapped = record.clone();
        mapped[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        assert_record_rejected("IPv4-mapped", &mapped, Reject::RecordField);
        let mut unspecified = record.clone();
        unspecified[at..at + 16].fill(0);
        assert_record_rejected("unspecified", &unspecified, Reject::RecordField);
        let mut multicast = record.clone();
        multicast[at] = 0xff;
        assert_record_rejected("multicast", &multicast, Reject::RecordField);
    }
}

#[test]
fn each_field_of_a_delete_and_a_refresh_is_checked() {
    for (kind, owner) in [(EventKind::Delete, 8), (EventKind::Refresh, 12)] {
        let event = Event { kind, session: session_v4(1) };
        let record = datagrams_of(&[event]).remove(0)[36..].to_vec();
        let cases: &[(&str, usize, &[u8], Reject)] = &[
            ("owner 0", owner, &[0, 0], Reject::RecordField),
            ("another owner", owner, &[3, 0], Reject::NotOwner),
            ("state 0", owner + 2, &[0], Reject::RecordField),
            ("client 0.0.0.0", owner + 3, &[0; 4], Reject::RecordField),
            ("vip 0.0.0.0", owner + 9, &[0; 4], Reject::RecordField),
            ("vip port 0", owner + 13, &[0, 0], Reject::RecordField),
            ("an unknown session", 0, &[], Reject::UnknownSession),
        ];
        for (what, offset, bytes, reason) in cases {
            let mut bad = record.clone();
            bad[*offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_record_rejected(what, &bad, *reason);
        }
    }
}

#[test]
fn a_payload_shorter_than_its_type_is_rejected_at_every_length() {
    for kind in 1u8..=6 {
        let fixed = [35, 83, 19, 43, 23, 47][usize::from(kind) - 1];
        for length in 0..fixed {
            let bad = [&[kind, 1, length, 0][..], &vec![1; usize::from(length)]].concat();
            assert_record_rejected("short payload", &bad, Reject::RecordField);
        }
    }
}

#[test]
fn unknown_records_cost_only_themselves() {
    for kind in [0, 7, 255] {
        assert_record_rejected("optional", &[kind, 0, 3, 0, 9, 9, 9], Reject::SkippedRecord);
        assert_record_rejected("optional, later flags", &[kind, 0x80, 0, 0], Reject::SkippedRecord);
        assert_record_rejected("mandatory", &[kind, 1, 3, 0, 9, 9, 9], Reject::RecordType);
    }
}

fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    let mut record = [&good()[36..], extensions].concat();
    record[2] += extensions.len() as u8;
    record
}

#[test]
fn extensions_are_skipped_or_reject_their_record() {
    assert_record_rejected("mandatory", &with_extensions(&[0x81, 1, 5]), Reject::Extension);
    assert_record_rejected("past the record", &with_extensions(&[1, 2, 5]), Reject::RecordField);
    assert_record_rejected("half an extension", &with_extensions(&[1]), Reject::RecordField);

    let mut node = Node::new();
    let datagram = [&good()[..36], &with_extensions(&[1, 1, 5, 2, 0])].concat();
    assert_eq!(node.receive(&datagram), Ok(Received { applied: 1, rejected: 0 }));
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 1), (Counter::SyncSkippedExtensions, 2)]);
}

#[test]
fn a_length_past_the_end_ends_the_datagram() {
    let datagram = datagrams_of(&[upsert(session_v4(1)), upsert(session_v4(2))]).remove(0);
    for length in 36 + 39 + 1..datagram.len() {
        let mut node = Node::new();

        let received = node.receive(&datagram[..length]).unwrap();

        assert_eq!(received, Received { applied: 1, rejected: 1 }, "cut to {length}");
        assert_eq!(
            node.counted(),
            [(Counter::SyncRxUpserts, 1), (Counter::SyncRejectRecordLength, 1)],
            "cut to {length}"
        );
        assert_eq!(node.table.sessions.len(), 1);
    }
}

#[test]
fn a_datagram_without_records_is_a_sign_of_life() {
    let mut node = Node::new();
    assert_eq!(node.receive(&good()[..36]), Ok(Received::default()));
    assert_eq!(node.counted(), []);
    assert_eq!(node.state.peers().next().unwrap().datagrams, 1);
}

#[test]
fn late_datagrams_and_gaps_are_counted_and_applied() {
    let mut node = Node::new();
    for sequence in [10u64, 13, 11] {
        let mut datagram = datagrams_of(&[upsert(session_v4(sequence as u8))]).remove(0);
        datagram[24..32].copy_from_slice(&sequence.to_le_bytes());
        node.receive(&datagram).unwrap();
    }
    assert_eq!(
        node.counted(),
        [(Counter::SyncRxUpserts, 3), (Counter::SyncRxGaps, 2), (Counter::SyncRxLate, 1)]
    );
}

#[test]
fn streams_of_one_sender_are_numbered_apart() {
    let mut node = Node::new();
    for stream in 0..4 {
        assert!(node.receive(&damaged(5, &[stream])).is_ok());
    }
    assert_eq!(node.receive(&good()), Err(Reject::Duplicate));
}
