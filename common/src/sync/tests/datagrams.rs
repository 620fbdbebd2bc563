//! Bad datagrams of every kind change exactly one counter, and nothing else.

use super::*;
use crate::sync::WINDOW;
use crate::sync::state::PEERS_MAX;

/// Where the sequence number stands.
const SEQUENCE: usize = 32;

/// A byte string that stands where a good one stood.
type Damage<'a> = (&'a str, usize, &'a [u8], Reject);

/// One good datagram: a header, what the upsert refers to, and an IPv4 upsert of session 1.
fn good() -> Vec<u8> {
    datagrams_of(&[upsert(session_v4(1))]).remove(0)
}

fn damaged(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = good();
    datagram[offset..offset + bytes.len()].copy_from_slice(bytes);
    datagram
}

/// A node with a session in its table and 2000 datagrams behind it.
fn node() -> Node {
    let mut node = Node::new();
    let mut first = datagrams_of(&[upsert(session_v6(9))]).remove(0);
    first[SEQUENCE..SEQUENCE + 8].copy_from_slice(&2000u64.to_le_bytes());
    node.receive(&first).unwrap();
    node.counters = Box::new(CounterBlock::new());
    node
}

/// Gives a good node a bad datagram, and checks that this reason was counted, and nothing else has changed.
#[track_caller]
fn assert_rejected(what: &str, source: IpAddr, datagram: &[u8], reason: Reject) {
    let mut node = node();
    let (places, heard) = (node.places(), node.heard());

    assert_eq!(node.receive_from(source, datagram), Err(reason), "{what}");

    assert_eq!(node.counted(), [(reason.counter(), 1)], "{what}");
    assert_eq!(node.places(), places, "{what}");
    assert_eq!(but_for_rejects(node.heard()), but_for_rejects(heard), "{what}");
}

/// What is remembered of peers, except how much of theirs was rejected.
pub(super) fn but_for_rejects(peers: Vec<PeerSnapshot>) -> Vec<PeerSnapshot> {
    peers.into_iter().map(|peer| PeerSnapshot { rejects: 0, ..peer }).collect()
}

#[test]
fn a_datagram_cut_anywhere_in_its_header_is_truncated() {
    for length in 0..HEADER_BYTES {
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
        ("membership epoch", 12, &[1], Reject::MembershipEpoch),
        ("node 0", 16, &[0, 0], Reject::HeaderField),
        ("own node", 16, &[1, 0], Reject::OwnNode),
        ("a stranger", 16, &[77, 0], Reject::Member),
        ("another member's number", 16, &[3, 0], Reject::Member),
        ("a key's number", 19, &[1], Reject::Sealed),
        ("for another node", 20, &[3], Reject::Addressee),
        ("for another NUMA node", 20, &[1, 0, 1], Reject::Addressee),
        ("for nobody's NUMA node", 20, &[0, 0, 1], Reject::HeaderField),
        ("other reserved byte", 23, &[1], Reject::Reserved),
        ("boot epoch 0", 24, &[0; 8], Reject::HeaderField),
        ("older boot epoch", 24, &999u64.to_le_bytes(), Reject::Epoch),
        ("sequence 0", SEQUENCE, &[0; 8], Reject::HeaderField),
        ("sequence received before", SEQUENCE, &2000u64.to_le_bytes(), Reject::Duplicate),
        ("sequence below the window", SEQUENCE, &(2000 - WINDOW).to_le_bytes(), Reject::TooOld),
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
    datagram[SEQUENCE..SEQUENCE + 8].copy_from_slice(&2001u64.to_le_bytes());
    assert!(node().receive_from("::ffff:10.2.0.102".parse().unwrap(), &datagram).is_ok());
}

#[test]
fn a_datagram_for_this_secondary_alone_is_taken() {
    let mut datagram = damaged(20, &[1, 0, 0]);
    datagram[SEQUENCE..SEQUENCE + 8].copy_from_slice(&2001u64.to_le_bytes());
    assert!(node().receive(&datagram).is_ok());
}

#[test]
fn a_sender_whose_position_there_is_no_room_for_is_not_heard() {
    let mut node = node();
    while node.state.peers().count() < PEERS_MAX {
        let taken = node.state.peers().count() as u16;
        node.state.peer(NodeId(1000 + taken), NumaId(0), NOW).unwrap();
    }
    let places = node.places();
    let another_numa_node = damaged(18, &[1]);

    assert_eq!(node.receive(&another_numa_node), Err(Reject::PeersFull));

    assert_eq!(node.counted(), [(Counter::SyncRejectPeersFull, 1)]);
    assert_eq!(node.places(), places);
}

/// Gives a fresh node a datagram with one bad record between good ones.
#[track_caller]
fn assert_record_rejected(what: &str, bad: &[u8], reason: Reject) {
    let good = datagrams_of(&[upsert(session_v4(5)), upsert(session_v6(6))]).remove(0);
    // The IPv6 upsert is the last record: its header and its item.
    let (before, after) = good.split_at(good.len() - 4 - 25);
    let mut node = Node::new();
    let mut only_good = Node::new();
    only_good.receive(&good).unwrap();

    let received = node.receive(&[before, bad, after].concat()).unwrap();

    assert_eq!(received, Received { applied: 2, rejected: 1 }, "{what}");
    assert_eq!(node.places(), only_good.places(), "{what}");
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 2), (reason.counter(), 1)], "{what}");
}

#[test]
fn each_way_to_be_a_bad_record_has_its_own_counter() {
    // The datagram names a service, a real server and a local address: each has the number 0.
    let upsert = [10, 1, 0, 7, 1, 0, 1, 4, 0, 0, 0x15, 0, 0];
    let with = |at: usize, byte: u8| {
        let mut item = upsert;
        item[at] = byte;
        [&[16, 1, 13, 0][..], &item].concat()
    };
    let extended = [&[16, 5, 16, 0][..], &upsert, &[0x81, 1, 5]].concat();
    let cases: &[(&str, &[u8], Reject)] = &[
        ("client multicast", &with(0, 224), Reject::RecordField),
        ("an unknown state", &with(10, 0x1f), Reject::RecordField),
        ("an unknown real server", &with(8, 1), Reject::Reference),
        ("an unknown local address", &with(9, 200), Reject::Reference),
        ("a flag that is none", &[16, 0x81, 0, 0], Reject::RecordField),
        ("half an upsert", &[16, 1, 3, 0, 10, 1, 0], Reject::RecordSize),
        ("an unknown optional record", &[200, 0, 3, 0, 9, 9, 9], Reject::SkippedRecord),
        ("an unknown mandatory record", &[200, 1, 3, 0, 9, 9, 9], Reject::RecordType),
        ("an extension that must be known", &extended, Reject::Extension),
        ("a local address 0.0.0.0", &[5, 1, 5, 0, 0x0f, 0, 0, 0, 0], Reject::DictionaryEntry),
        ("the end of an unknown session", &[18, 1, 8, 0, 10, 1, 0, 7, 1, 0, 0, 0x15], Reject::UnknownSession),
    ];
    for (what, bad, reason) in cases {
        assert_record_rejected(what, bad, *reason);
    }
}

#[test]
fn optional_extensions_are_skipped_and_counted() {
    let mut datagram = good();
    let record = datagram.len() - 4 - 13;
    (datagram[record + 1], datagram[record + 2]) = (5, 13 + 5);
    datagram.extend([1, 1, 5, 2, 0]);
    let mut node = Node::new();

    assert_eq!(node.receive(&datagram), Ok(Received { applied: 1, rejected: 0 }));

    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 1), (Counter::SyncSkippedExtensions, 2)]);
}

#[test]
fn a_length_past_the_end_ends_the_datagram() {
    let upserts = [upsert(session_v4(1)), upsert(session_v6(2))];
    let datagram = datagrams_of(&upserts).remove(0);
    for length in datagram.len() - 4 - 25 + 1..datagram.len() {
        let mut node = Node::new();

        let received = node.receive(&datagram[..length]).unwrap();

        assert_eq!(received, Received { applied: 1, rejected: 1 }, "cut to {length}");
        assert_eq!(
            node.counted(),
            [(Counter::SyncRxUpserts, 1), (Counter::SyncRejectRecordLength, 1)],
            "cut to {length}"
        );
        assert_eq!(node.sessions().len(), 1);
    }
}

#[test]
fn a_datagram_without_records_is_a_sign_of_life() {
    let mut node = Node::new();
    assert_eq!(node.receive(&good()[..HEADER_BYTES]), Ok(Received::default()));
    assert_eq!(node.counted(), []);
    assert_eq!(node.heard()[0].datagrams, 1);
}

#[test]
fn late_datagrams_and_gaps_are_counted_and_applied() {
    let mut node = Node::new();
    for sequence in [10u64, 13, 11] {
        let mut datagram = datagrams_of(&[upsert(session_v4(sequence as u8))]).remove(0);
        datagram[SEQUENCE..SEQUENCE + 8].copy_from_slice(&sequence.to_le_bytes());
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
