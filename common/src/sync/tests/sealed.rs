//! With security on the same happens as without, and what others send changes one counter and nothing else.

use proptest::sample::Index;

use super::datagrams::but_for_rejects;
use super::*;
use crate::config::KeyFile;
use crate::id::KeyId;
use crate::sync::seal::TAG_BYTES;

/// A key file of keys with these numbers; the first seals. A key's bits follow from its number.
pub(super) fn keyring(ids: &[u8]) -> Arc<Keyring> {
    let line = |(at, id): (usize, &u8)| {
        let usage = if at == 0 { "seal" } else { "open" };
        format!("{id} {usage} {id:02x}{}\n", "00".repeat(31))
    };
    let text: String = ids.iter().enumerate().map(line).collect();
    Arc::new(Keyring::new(&KeyFile::parse(&text, "test").unwrap()))
}

fn node(ids: &[u8]) -> Node {
    Node { keyring: Some(keyring(ids)), ..Node::new() }
}

fn sealer(ids: &[u8], state: &SyncState) -> Sealer {
    Sealer::new(&keyring(ids), SENDER_IDENTITY, state.boot_epoch())
}

fn begun(epoch: u64) -> SyncState {
    let state = SyncState::new();
    state.begin(epoch);
    state
}

/// One datagram for each of so many sessions, sealed by a sender that has these keys.
fn sealed_with(ids: &[u8], count: u8) -> Vec<Vec<u8>> {
    let state = begun(EPOCH);
    let mut datagrams = Vec::new();
    for number in 1..=count {
        datagrams.extend(sent(&[upsert(session_v4(number))], sealer(ids, &state), &state));
    }
    datagrams
}

/// Checks that a good node refuses a datagram for this reason, and that nothing but its counter has changed: what is true is
/// still taken afterwards.
#[track_caller]
fn assert_rejected(what: &str, mut node: Node, source: IpAddr, datagram: &[u8], reason: Reject) {
    let [first, second] = sealed_with(&[1], 2).try_into().unwrap();
    node.receive(&first).unwrap();
    *node.counters = CounterBlock::new();
    let (places, heard) = (node.places(), node.heard());

    assert_eq!(node.receive_from(source, datagram), Err(reason), "{what}");

    assert_eq!(node.counted(), [(reason.counter(), 1)], "{what}");
    assert_eq!(node.places(), places, "{what}");
    assert_eq!(but_for_rejects(node.heard()), heard, "{what}");
    node.receive(&second).unwrap_or_else(|reject| panic!("{what}: then {reject:?}"));
}

fn relabelled(datagram: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut forged = datagram.to_vec();
    forged[offset..offset + bytes.len()].copy_from_slice(bytes);
    forged
}

/// Where a header has the field that differs between these two.
fn offset_of(change: impl Fn(&mut Header)) -> usize {
    let header = Header::decode(&sealed_with(&[1], 1)[0]).unwrap().0;
    let mut changed = header;
    change(&mut changed);
    let (before, after) = (header.encode(), changed.encode());
    (0..HEADER_BYTES).find(|at| before[*at] != after[*at]).expect("a field")
}

#[test]
fn each_way_to_forge_has_its_own_reason() {
    let good = sealed_with(&[1], 3).pop().unwrap();
    let bytes = |value: u64| value.to_le_bytes();
    let node_at = offset_of(|header| header.node = NodeId(3));
    let cluster_at = offset_of(|header| header.cluster += 1);
    let epoch_at = offset_of(|header| header.boot_epoch = EPOCH + 1);
    let sequence_at = offset_of(|header| header.sequence = 4);
    let key_at = offset_of(|header| header.key = Some(KeyId(2)));
    let last = good.len() - 1;
    let clear = datagrams_of(&[upsert(session_v4(3))]).remove(0);
    let other_keys = {
        let state = begun(EPOCH);
        let text = format!("1 seal ff{}", "00".repeat(31));
        let keyring = Keyring::new(&KeyFile::parse(&text, "other").unwrap());
        sent(&[upsert(session_v4(3))], Sealer::new(&keyring, SENDER_IDENTITY, EPOCH), &state).remove(0)
    };
    let cases: &[(&str, Vec<u8>, Reject)] = &[
        ("another key of this number", other_keys, Reject::Tag),
        ("a key that is not there", relabelled(&good, key_at, &[9]), Reject::KeyUnknown),
        ("another key's number", relabelled(&good, key_at, &[2]), Reject::Tag),
        ("in the clear", clear, Reject::Unsealed),
        ("the seal taken off", relabelled(&good, key_at, &[0]), Reject::Unsealed),
        ("the first record's byte", relabelled(&good, HEADER_BYTES, &[!good[HEADER_BYTES]]), Reject::Tag),
        ("the tag's last byte", relabelled(&good, last, &[!good[last]]), Reject::Tag),
        ("nothing behind the header", good[..HEADER_BYTES].to_vec(), Reject::Truncated),
        ("half a tag", good[..HEADER_BYTES + TAG_BYTES - 1].to_vec(), Reject::Truncated),
        ("a byte cut off", good[..last].to_vec(), Reject::Tag),
        ("a later number", relabelled(&good, sequence_at, &bytes(1_000_000)), Reject::Tag),
        ("a later life", relabelled(&good, epoch_at, &bytes(EPOCH + 1)), Reject::Tag),
        ("an earlier life", relabelled(&good, epoch_at, &bytes(EPOCH - 1)), Reject::Epoch),
        ("another cluster", relabelled(&good, cluster_at, &[8]), Reject::Cluster),
        ("a future version", relabelled(&good, 4, &[2]), Reject::Version),
        ("another member's number", relabelled(&good, node_at, &[3, 0]), Reject::Member),
    ];
    for (what, datagram, reason) in cases {
        assert_rejected(what, node(&[1, 2]), SENDER_ADDRESS, datagram, *reason);
    }
    let as_node_3 = relabelled(&good, node_at, &[3, 0]);
    assert_rejected("in another member's name", node(&[1, 2]), OTHER_ADDRESS, &as_node_3, Reject::Tag);
    let stranger = "10.2.0.9".parse().unwrap();
    assert_rejected("from a stranger's address", node(&[1, 2]), stranger, &good, Reject::Member);
    let replayed = sealed_with(&[1], 1).remove(0);
    assert_rejected("sent again by somebody", node(&[1, 2]), SENDER_ADDRESS, &replayed, Reject::Duplicate);
}

#[test]
fn datagrams_of_another_cluster_with_the_same_keys_are_not_taken() {
    let state = begun(EPOCH);
    let other = Identity { cluster: CLUSTER + 1, ..SENDER_IDENTITY };
    let sealer = Sealer::new(&keyring(&[1]), other, EPOCH);
    let bodies = [body_of(&upsert(session_v4(3)))];
    let datagrams = sent_by(other, StreamId::CHANGES, &bodies, sealer, &state);

    assert_rejected("as it is", node(&[1]), SENDER_ADDRESS, &datagrams[0], Reject::Cluster);
    let cluster_at = offset_of(|header| header.cluster += 1);
    let renamed = relabelled(&datagrams[0], cluster_at, &CLUSTER.to_le_bytes());
    assert_rejected("renamed", node(&[1]), SENDER_ADDRESS, &renamed, Reject::Tag);
}

#[test]
fn a_node_without_keys_takes_nothing_that_is_sealed() {
    let mut node = Node::new();
    assert_eq!(node.receive(&sealed_with(&[1], 1)[0]), Err(Reject::Sealed));
    assert_eq!(node.counted(), [(Counter::SyncRejectSealed, 1)]);
    assert!(node.sessions().is_empty() && node.heard().is_empty());
}

#[test]
fn nothing_is_remembered_of_a_sender_that_sealed_nothing() {
    let mut node = node(&[1]);
    let mut forged = sealed_with(&[1], 1).remove(0);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(node.receive(&forged), Err(Reject::Tag));
    assert_eq!(node.heard(), []);
}

#[test]
fn no_record_is_in_the_clear_and_no_datagram_too_long() {
    let state = begun(EPOCH);
    let events: Vec<Event> = (0..200).map(|number| upsert(session_v4(number))).collect();
    let datagrams = sent(&events, sealer(&[1], &state), &state);

    assert!(datagrams.len() > 1);
    let clear = datagrams_of(&[upsert(session_v4(1))]).remove(0);
    let [net @ .., _] = session_v4(1).client.address.to_v4().unwrap();
    assert!(clear.windows(3).any(|window| window == net), "in the clear it is there");
    for datagram in &datagrams {
        assert!(datagram.len() <= payload_bytes_max(1500, false, 0));
        assert!(!datagram[HEADER_BYTES..].windows(3).any(|window| window == net));
    }
    let mut node = node(&[1]);
    datagrams.iter().for_each(|datagram| assert_eq!(node.receive(datagram).unwrap().rejected, 0));
    assert_eq!(node.sessions().len(), 200);
}

#[test]
fn a_restarted_sender_goes_on_and_never_seals_a_number_twice() {
    let state = SyncState::new();
    let mut node = node(&[1]);
    let mut numbers = Vec::new();
    for number in 1..=4 {
        // The clock does not matter: the state was kept.
        state.begin(EPOCH + 5 - u64::from(number));
        // Every second life ends between taking a number and sending: nobody ever gets it.
        if number % 2 == 0 {
            state.take_sequence(StreamId::CHANGES);
        }
        for datagram in sent(&[upsert(session_v4(number))], sealer(&[1], &state), &state) {
            node.receive(&datagram).unwrap();
            numbers.push(sequence_of(&datagram));
        }
    }
    assert_eq!(numbers, [1, 3, 4, 6]);
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 4), (Counter::SyncRxGaps, 2)]);
}

#[test]
fn a_sender_whose_state_was_lost_begins_a_new_life_under_another_key() {
    let mut node = node(&[1]);
    let first = sealed_with(&[1], 2);
    node.receive(&first[0]).unwrap();

    let state = begun(EPOCH + 1);
    let second = sent(&[upsert(session_v4(7))], sealer(&[1], &state), &state).remove(0);
    assert_eq!(sequence_of(&second), sequence_of(&first[0]));
    node.receive(&second).unwrap();

    // What was recorded in the life before opens, but is too late: also after a restart of the receiver.
    for datagram in &first {
        assert_eq!(node.receive(datagram), Err(Reject::Epoch));
    }
    assert_eq!(node.receive(&second), Err(Reject::Duplicate));
    assert_eq!(node.sessions().len(), 2);
}

/// The key files of the steps of changing keys 1 and 2, in order.
const STEPS: [&[u8]; 4] = [&[1], &[1, 2], &[2, 1], &[2]];

#[test]
fn keys_are_changed_without_a_gap_in_any_order_of_the_nodes() {
    for (sends, sender) in STEPS.iter().enumerate() {
        for (receives, receiver) in STEPS.iter().enumerate() {
            let taken = node(receiver).receive(&sealed_with(sender, 1)[0]);
            match sends.abs_diff(receives) {
                0 | 1 => assert_eq!(taken.unwrap().applied, 1, "steps {sends} and {receives}"),
                _ if receiver.contains(&sender[0]) => assert_eq!(taken.unwrap().applied, 1),
                _ => assert_eq!(taken, Err(Reject::KeyUnknown), "steps {sends} and {receives}"),
            }
        }
    }
}

#[test]
fn a_stream_goes_on_while_keys_change() {
    let state = begun(EPOCH);
    let mut node = Node::new();
    for (number, (sender, receiver)) in
        (1..).zip([(0, 0), (0, 1), (1, 1), (2, 1), (1, 2), (2, 2), (2, 3), (3, 3)])
    {
        node.keyring = Some(keyring(STEPS[receiver]));
        for datagram in sent(&[upsert(session_v4(number))], sealer(STEPS[sender], &state), &state) {
            node.receive(&datagram).unwrap();
        }
    }
    assert_eq!(node.counted(), [(Counter::SyncRxUpserts, 8)]);
}

proptest! {
    #[test]
    fn any_order_with_forgeries_between_ends_in_the_same_table(
        order in proptest::collection::vec((any::<Index>(), any::<Index>(), 1u8..), 1..100),
    ) {
        let datagrams = sealed_with(&[1], 60);
        let mut node = node(&[1]);

        for (index, byte, flip) in order {
            let mut forged = index.get(&datagrams).clone();
            let byte = byte.index(forged.len());
            forged[byte] ^= flip;
            prop_assert!(node.receive(&forged).is_err());
            let _ = node.receive(&datagrams[index.index(datagrams.len())]);
        }
        for datagram in &datagrams {
            let _ = node.receive(datagram);
        }

        prop_assert_eq!(node.sessions().len(), datagrams.len());
        prop_assert_eq!(node.counters.value(Counter::SyncRxUpserts), datagrams.len() as u64);
        for datagram in &datagrams {
            prop_assert_eq!(node.receive(datagram), Err(Reject::Duplicate));
        }
    }

    #[test]
    fn random_bytes_behind_a_good_header_change_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let header = sealed_with(&[1], 1)[0][..HEADER_BYTES].to_vec();
        let mut node = node(&[1]);
        prop_assert!(node.receive(&[header, bytes].concat()).is_err());
        prop_assert!(node.sessions().is_empty());
        prop_assert_eq!(node.heard(), []);
    }
}
