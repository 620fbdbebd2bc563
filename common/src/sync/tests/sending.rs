//! What a node's workers report leaves it at the right time, once, and for everyone.

use super::*;

/// Node 2.
fn sender() -> Node {
    Node::of(SENDER)
}

/// What has left a node.
type Letters = Vec<(IpAddr, Vec<u8>)>;

/// Has the worker of a secondary's node do what these events say, and tells it of them.
fn report(
    protocol: &mut Protocol<'_>,
    tables: &mut ModelTables,
    events: &[Event],
    now: Micros,
    letters: &mut Letters,
) {
    let mut out = |peer: IpAddr, payload: &[u8]| {
        letters.push((peer, payload.to_vec()));
        Transmission::Sent
    };
    for event in events {
        let held = tables.find_local(&event.session.client_key());
        let place =
            held.map(|held| held.place).or_else(|| tables.insert_local(&event.session)).expect("room");
        if event.kind == EventKind::Delete {
            tables.take_out(place);
        }
        protocol.on_event(event, place, now, tables, &mut out);
    }
}

/// Everything that a node sends of these events before it rests, to its first peer.
fn told(node: &mut Node, events: &[Event]) -> Vec<Vec<u8>> {
    let mut letters = Letters::new();
    node.act(|protocol, tables| {
        report(protocol, tables, events, now(), &mut letters);
        protocol.flush(&mut |peer: IpAddr, payload: &[u8]| {
            letters.push((peer, payload.to_vec()));
            Transmission::Sent
        });
    });
    let first = letters.into_iter().filter(|(peer, _)| *peer == RECEIVER_ADDRESS);
    first.map(|(_, datagram)| datagram).collect()
}

#[test]
fn every_peer_gets_the_same_datagram() {
    let mut node = sender();
    let mut letters = Letters::new();
    let mut out = |peer: IpAddr, payload: &[u8]| {
        letters.push((peer, payload.to_vec()));
        if peer == OTHER_ADDRESS { Transmission::QueueFull } else { Transmission::Sent }
    };

    let congested = node.act(|protocol, tables| {
        report(protocol, tables, &[upsert(session_v4(1))], now(), &mut Letters::new());
        protocol.flush(&mut out);
        [protocol.take_congested(), protocol.take_congested()]
    });

    let peers: Vec<IpAddr> = letters.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [RECEIVER_ADDRESS, OTHER_ADDRESS, address_of(NodeId(4))]);
    assert!(letters.iter().all(|(_, datagram)| *datagram == letters[0].1));
    let counted = |counter| node.counters.value(counter);
    assert_eq!(counted(Counter::SyncTxDatagrams), 2);
    assert_eq!(counted(Counter::SyncTxBytes), 2 * letters[0].1.len() as u64);
    assert_eq!(counted(Counter::SyncTxFull), 1);
    assert_eq!(counted(Counter::SyncTxUpserts), 1, "once, however many peers");
    assert_eq!(congested, [true, false]);
}

#[test]
fn a_datagram_waits_for_flush_us_after_its_first_record_and_no_longer() {
    let mut node = sender();
    let mut changes = 0;
    let mut out = |_: IpAddr, payload: &[u8]| {
        changes += u32::from(Header::decode(payload).unwrap().0.stream == StreamId::CHANGES);
        Transmission::Sent
    };
    let at = |us: u64| Micros(now().0 + us);

    let waiting = node.act(|protocol, tables| {
        // What it says of itself, which it does once a second.
        protocol.poll(at(0), tables, &mut out);
        protocol.poll(at(1000), tables, &mut out);
        let mut waiting = vec![protocol.next_flush()];
        let mut none = Letters::new();
        report(protocol, tables, &[upsert(session_v4(1))], at(10_000), &mut none);
        report(protocol, tables, &[upsert(session_v4(2))], at(10_400), &mut none);
        assert_eq!(none, []);
        waiting.push(protocol.next_flush());
        protocol.poll(at(10_499), tables, &mut out);
        waiting.push(protocol.next_flush());
        protocol.poll(at(10_500), tables, &mut out);
        waiting.push(protocol.next_flush());
        protocol.poll(at(99_999), tables, &mut out);
        waiting
    });

    assert_eq!(waiting, [None, Some(at(10_500)), Some(at(10_500)), None]);
    assert_eq!(
        changes,
        2 * 3,
        "to each peer what it says of itself and this; nothing when there is nothing to say"
    );
    assert_eq!(node.counters.value(Counter::SyncTxUpserts), 2);
}

/// Bytes of a datagram that are no upserts: header, service, real server, local address, header of the upserts.
const OVERHEAD_V4: usize = 40 + 11 + 10 + 8 + 4;

#[test]
fn a_full_datagram_is_sent_at_once() {
    let events: Vec<Event> = (0..108).map(|number| upsert(session_v4(number))).collect();
    let mut node = sender();
    let mut at_once = Letters::new();

    node.act(|protocol, tables| report(protocol, tables, &events[..106], now(), &mut at_once));
    assert_eq!(at_once, []);
    let mut node = sender();
    node.act(|protocol, tables| report(protocol, tables, &events[..107], now(), &mut at_once));
    assert_eq!(at_once.len(), 3, "one to each peer");
    let mut node = sender();
    let datagrams = told(&mut node, &events);

    assert_eq!(
        datagrams.iter().map(Vec::len).collect::<Vec<_>>(),
        [OVERHEAD_V4 + 107 * 13, OVERHEAD_V4 + 13]
    );
    assert_eq!(datagrams.iter().map(|datagram| sequence_of(datagram)).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(datagrams[0], at_once[0].1);
}

#[test]
fn sessions_of_another_owner_are_not_reported() {
    let mut node = sender();
    let foreign = Session { owner: OTHER, ..session_v4(1) };

    assert!(told(&mut node, &[upsert(foreign)]).is_empty());
    // The event is older than the claim of another node that has been applied since.
    let claimed = Session { owner: OTHER, ..session_v4(2) };
    node.tables.insert_local(&claimed).unwrap();
    assert!(told(&mut node, &[upsert(session_v4(2))]).is_empty());

    assert_eq!(node.counted(), [(Counter::EventsForeign, 2)]);
}

#[test]
fn an_end_does_not_overtake_older_news_of_its_session() {
    let kinds = [EventKind::Upsert, EventKind::Refresh, EventKind::Delete];
    let events = kinds.map(|kind| {
        let state = match kind {
            EventKind::Delete => crate::session::SessionState::TcpReset,
            _ => session_v4(1).state,
        };
        Event { kind, session: Session { state, ..session_v4(1) } }
    });
    let mut receiver = Node::new();

    for datagram in told(&mut sender(), &events) {
        assert_eq!(receiver.receive(&datagram).unwrap().rejected, 0);
    }

    let expected = [Counter::SyncRxUpserts, Counter::SyncRxDeletes, Counter::SyncRxRefreshes];
    assert_eq!(receiver.counted(), expected.map(|counter| (counter, 1)));
    assert!(receiver.sessions().is_empty());
}

#[test]
fn a_restarted_sender_goes_on_without_a_gap() {
    let (mut sender, mut receiver) = (sender(), Node::new());
    for number in 1..=2 {
        // The state was kept, so the clock does not matter.
        sender.state.begin(EPOCH + u64::from(number));
        for datagram in told(&mut sender, &[upsert(session_v4(number))]) {
            receiver.receive(&datagram).unwrap();
        }
    }

    assert_eq!(receiver.sessions().len(), 2);
    assert_eq!(receiver.counted(), [(Counter::SyncRxUpserts, 2)]);
}

#[test]
fn a_sender_whose_state_went_back_sends_nothing_until_it_has_caught_up() {
    let mut node = Node { keyring: Some(sealed::keyring(&[1])), ..sender() };
    let mut numbers = Vec::new();
    let mut out = |peer: IpAddr, payload: &[u8]| {
        if peer == RECEIVER_ADDRESS {
            numbers.push(sequence_of(payload));
        }
        Transmission::Sent
    };
    node.act_with_state(|protocol, tables, state| {
        for number in 1..=6 {
            if number == 4 {
                state.set_last_sequence(StreamId::CHANGES, 1);
            }
            report(protocol, tables, &[upsert(session_v4(number))], now(), &mut Letters::new());
            protocol.flush(&mut out);
        }
    });

    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(node.counters.value(Counter::SyncTxUnsealed), 2);
}
