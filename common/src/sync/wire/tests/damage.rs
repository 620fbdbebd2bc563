//! Damage of every kind: what it costs, and that it costs no more.

use proptest::prelude::*;

use super::roundtrip::any_body;
use super::*;
use crate::sync::Reject;

const MANDATORY: u8 = 1;
const GENERATION: u8 = 2;
const EXTENDED: u8 = 4;

fn record(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, flags][..], &(payload.len() as u16).to_le_bytes(), payload].concat()
}

/// The dictionary of the upserts below: a service of TCP and one of UDP, a real server of each, a local address.
fn dictionary() -> Vec<u8> {
    let services = [0x3f, 10, 9, 0, 1, 80, 0, 6, 0x20, 17];
    let servers = [0x3f, 10, 3, 0, 1, 80, 0, 0, 0x20, 1];
    [
        record(1, MANDATORY, &services),
        record(3, MANDATORY, &servers),
        record(5, MANDATORY, &[0x0f, 10, 4, 0, 1]),
    ]
    .concat()
}

/// An upsert of an established connection of client 10.1.0.7:40000.
const UPSERT: [u8; 13] = [10, 1, 0, 7, 0x40, 0x9c, 7, 4, 0, 0, 0x35, 10, 0];

fn upsert_with(at: usize, bytes: &[u8]) -> [u8; 13] {
    let mut item = UPSERT;
    item[at..at + bytes.len()].copy_from_slice(bytes);
    item
}

/// What becomes of items of a type behind the dictionary.
fn read_items(kind: u8, flags: u8, payload: &[u8]) -> Vec<Result<Record, Reject>> {
    read(&[dictionary(), record(kind, flags, payload)].concat())
}

/// What a good record reads as.
fn good(payload: &[u8]) -> Result<Record, Reject> {
    read_items(16, MANDATORY, payload)[0]
}

#[test]
fn each_field_of_an_upsert_is_checked() {
    let cases: &[(&str, usize, &[u8], Reject)] = &[
        ("client 0.1.2.3", 0, &[0, 1, 2, 3], Reject::RecordField),
        ("client multicast", 0, &[224, 0, 0, 1], Reject::RecordField),
        ("client broadcast", 0, &[255; 4], Reject::RecordField),
        ("local port 0", 6, &[0, 0], Reject::RecordField),
        ("a server that is not named", 8, &[2], Reject::Reference),
        ("the last server there can be", 8, &[255], Reject::Reference),
        ("a server of a service of UDP", 8, &[1], Reject::RecordField),
        ("a local address that is not named", 9, &[1], Reject::Reference),
        ("state 0", 10, &[0x30], Reject::RecordField),
        ("state 10", 10, &[0x3a], Reject::RecordField),
        ("a state of UDP", 10, &[0x32], Reject::RecordField),
    ];
    assert!(good(&UPSERT).is_ok());
    for (what, at, bytes, reject) in cases {
        let items = [UPSERT, upsert_with(*at, bytes), UPSERT].concat();
        assert_eq!(
            read_items(16, MANDATORY, &items),
            [good(&UPSERT), Err(*reject), good(&UPSERT)],
            "{what}: it costs its item only"
        );
    }
    assert!(good(&upsert_with(4, &[0, 0])).is_ok(), "a client may use port 0");
}

#[test]
fn each_field_of_a_delete_and_a_refresh_is_checked() {
    for (kind, item) in [(18, &[10, 1, 0, 7, 1, 0, 0, 0x35][..]), (20, &[10, 1, 0, 7, 1, 0, 0, 0x35, 10, 0])]
    {
        let cases: &[(usize, u8, Reject)] = &[
            (0, 0, Reject::RecordField),
            (0, 224, Reject::RecordField),
            (6, 1, Reject::RecordField),
            (6, 2, Reject::Reference),
            (7, 0, Reject::RecordField),
            (7, 0x0f, Reject::RecordField),
            (7, 0x01, Reject::RecordField),
        ];
        assert!(read_items(kind, MANDATORY, item)[0].is_ok());
        for (at, byte, reject) in cases {
            let mut bad = item.to_vec();
            bad[*at] = *byte;
            assert_eq!(read_items(kind, MANDATORY, &bad), [Err(*reject)], "type {kind}, byte {at}: {byte}");
        }
    }
}

#[test]
fn each_field_of_the_other_records_is_checked() {
    let hello = [1, 1, 2, 0, 0x98, 5, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let query = [10, 1, 0, 7, 10, 9, 0, 1, 1, 0, 80, 0, 6, 1];
    let request = [0xff, 0xff, 1, 0, 1, 2, 3, 4];
    let nack = [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let cases: &[(u8, &[u8], usize, &[u8])] = &[
        (32, &hello, 0, &[2]),
        (32, &hello, 1, &[0]),
        (32, &hello, 2, &[0]),
        (32, &hello, 2, &[5]),
        (32, &hello, 3, &[1]),
        (32, &hello, 4, &[141, 0]),
        (34, &request, 2, &[0, 0]),
        (34, &request, 2, &[2, 0]),
        (35, &[0; 9], 0, &[4]),
        (38, &query, 0, &[0]),
        (38, &query, 4, &[224]),
        (38, &query, 10, &[0, 0]),
        (38, &query, 12, &[7]),
        (38, &query, 13, &[0]),
        (38, &query, 13, &[3]),
        (40, &query, 12, &[0]),
        (42, &nack, 0, &[4]),
        (42, &nack, 1, &[0]),
        (42, &nack, 9, &[0, 0]),
        (42, &nack, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
    ];
    for (kind, item, at, bytes) in cases {
        assert!(read(&record(*kind, MANDATORY, item))[0].is_ok(), "type {kind}");
        let mut bad = item.to_vec();
        bad[*at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(read(&record(*kind, MANDATORY, &bad)), [Err(Reject::RecordField)], "type {kind} at {at}");
    }
    let mut inbound = query;
    inbound[8..10].fill(0);
    let mut outbound = inbound;
    outbound[13] = 2;
    assert!(read(&record(38, MANDATORY, &inbound))[0].is_ok(), "a client may use port 0");
    assert_eq!(read(&record(38, MANDATORY, &outbound)), [Err(Reject::RecordField)], "a real server may not");
}

#[test]
fn an_ipv6_item_holds_ipv6_addresses_only() {
    let [_, _, upsert, ..] = body_of_every_kind();
    let bytes = written(&[upsert]);
    let client = bytes.len() - 25;
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    for (what, head) in [("mapped", &mapped[..]), ("unspecified", &[0; 16]), ("multicast", &[0xff])] {
        let mut bad = bytes.clone();
        bad[client..client + head.len()].copy_from_slice(head);
        assert_eq!(read(&bad), [Err(Reject::RecordField)], "{what}");
    }
}

#[test]
fn an_entry_that_means_nothing_costs_itself_and_what_refers_to_it() {
    let server = |address: [u8; 4], port: u8, service: u8| {
        let [a, b, c, d] = address;
        [0x3f, a, b, c, d, port, 0, service]
    };
    let good_server = server([10, 3, 0, 1], 80, 0);
    let bad = [
        server([0, 3, 0, 1], 80, 0),
        server([224, 3, 0, 1], 80, 0),
        server([10, 3, 0, 1], 0, 0),
        server([10, 3, 0, 1], 80, 2),
    ];
    for bad in bad {
        let entries = [good_server, bad, good_server].concat();
        let items = [upsert_with(8, &[0]), upsert_with(8, &[1]), upsert_with(8, &[2])].concat();
        let services = record(1, MANDATORY, &[0x3f, 10, 9, 0, 1, 80, 0, 6]);
        let locals = record(5, MANDATORY, &[0x0f, 10, 4, 0, 1]);
        let bytes =
            [services, record(3, MANDATORY, &entries), locals, record(16, MANDATORY, &items)].concat();

        let found = read(&bytes);

        assert_eq!(
            found,
            [Err(Reject::DictionaryEntry), good(&UPSERT), Err(Reject::Reference), good(&UPSERT)],
            "{bad:?}"
        );
    }
    for services in
        [[0x3f, 10, 9, 0, 1, 80, 0, 7], [0x3f, 10, 9, 0, 1, 0, 0, 6], [0x3f, 0, 9, 0, 1, 80, 0, 6]]
    {
        assert_eq!(read(&record(1, MANDATORY, &services)), [Err(Reject::DictionaryEntry)]);
    }
    assert_eq!(read(&record(5, MANDATORY, &[0x0f, 224, 4, 0, 1])), [Err(Reject::DictionaryEntry)]);
}

#[test]
fn a_cut_entry_costs_the_rest_of_its_record() {
    let entry = [0x3f, 10, 9, 0, 1, 80, 0, 6];
    for length in 1..entry.len() {
        let entries = [&entry[..], &entry[..length]].concat();
        assert_eq!(read(&record(1, MANDATORY, &entries)), [Err(Reject::DictionaryEntry)]);
    }
    let unknown_group = [0x40, 1, 2, 3];
    assert_eq!(read(&record(1, MANDATORY, &unknown_group)), [Err(Reject::DictionaryEntry)]);
}

#[test]
fn a_dictionary_holds_256_entries() {
    let local = |given: u8| record(5, MANDATORY, &[0x0f, 10, 4, 0, given]);
    let mut bytes: Vec<u8> = (0..=255).flat_map(local).collect();
    assert_eq!(read(&bytes), []);
    bytes.extend(local(1));
    assert_eq!(read(&bytes), [Err(Reject::DictionaryEntry)]);
}

#[test]
fn a_reader_keeps_nothing_from_one_datagram_to_the_next() {
    let mut reader = Reader::new();
    let whole = [dictionary(), record(16, MANDATORY, &UPSERT)].concat();
    assert!(reader.records(&whole).last().unwrap().is_ok());

    let found: Vec<_> = reader.records(&record(16, MANDATORY, &UPSERT)).collect();

    assert_eq!(found, [Err(Reject::Reference)]);
    let same_as_before = record(5, MANDATORY, &[0]);
    let found: Vec<_> = reader.records(&same_as_before).collect();
    assert_eq!(found, [Err(Reject::DictionaryEntry)], "the first entry differs from zeros");
}

#[test]
fn a_length_that_does_not_suit_the_type_costs_the_record() {
    for kind in RecordType::ALL {
        let bytes = kind.item_bytes();
        if bytes == 0 {
            assert_eq!(read(&record(*kind as u8, MANDATORY, &[])), [Err(Reject::RecordSize)]);
            continue;
        }
        for length in (0..bytes).chain(bytes + 1..2 * bytes) {
            let found = read_items(*kind as u8, MANDATORY, &vec![1; length]);
            assert_eq!(found, [Err(Reject::RecordSize)], "{kind:?} of {length} bytes");
        }
    }
}

#[test]
fn unknown_records_cost_only_themselves() {
    for kind in [0, 7, 15, 22, 31, 44, 255] {
        for (flags, reject) in [
            (0, Reject::SkippedRecord),
            (0xfe, Reject::SkippedRecord),
            (MANDATORY, Reject::RecordType),
            (0xff, Reject::RecordType),
        ] {
            let unknown = record(kind, flags, &[9, 9, 9]);
            let found = read(&[dictionary(), unknown, record(16, MANDATORY, &UPSERT)].concat());
            assert_eq!(found, [Err(reject), good(&UPSERT)], "type {kind}, flags {flags}");
        }
    }
}

#[test]
fn flags_that_a_type_does_not_have_are_zero() {
    for flag in 1..8 {
        let flags = MANDATORY | 1 << flag;
        let may_be_extended = 1 << flag == EXTENDED;
        let may_have_generation = 1 << flag == GENERATION;
        if !may_be_extended && !may_have_generation {
            assert_eq!(read_items(16, flags, &UPSERT), [Err(Reject::RecordField)]);
        }
        if !may_be_extended {
            assert_eq!(read(&record(36, flags, &[0; 6])), [Err(Reject::RecordField)]);
        }
        assert_eq!(read(&record(5, flags, &[0x0f, 10, 4, 0, 1])), [Err(Reject::RecordField)]);
    }
}

#[test]
fn a_known_record_needs_no_mandatory_flag() {
    assert_eq!(read_items(16, 0, &UPSERT), [good(&UPSERT)]);
}

#[test]
fn the_upper_bits_of_generations_stand_before_the_items() {
    let generation_of = |base: [u8; 4]| {
        let items = [&base[..], &UPSERT, &UPSERT].concat();
        let found = read_items(16, MANDATORY | GENERATION, &items);
        let generations = found.iter().map(|record| match record.map(|record| record.body) {
            Ok(Body::Upsert(reported)) => Ok(reported.generation.0),
            other => Err(other.expect_err("an upsert or a reject")),
        });
        generations.collect::<Vec<_>>()
    };
    assert_eq!(generation_of([0x45, 0x23, 1, 0]), [Ok(0x12_3453); 2]);
    assert_eq!(generation_of([0; 4]), [Ok(3); 2]);
    assert_eq!(generation_of([0, 0, 0, 0x10]), [Err(Reject::RecordField)]);
    assert_eq!(read_items(16, MANDATORY | GENERATION, &[1, 0, 0]), [Err(Reject::RecordSize)]);
}

#[test]
fn extensions_are_skipped_or_reject_their_record() {
    let extended = |extensions: &[u8]| {
        let found = read_items(16, MANDATORY | EXTENDED, &[&UPSERT[..], extensions].concat());
        assert_eq!(found.len(), 1);
        found[0].map(|record| (Ok(Record { extensions_skipped: 0, ..record }), record.extensions_skipped))
    };
    assert_eq!(extended(&[]), Ok((good(&UPSERT), 0)));
    assert_eq!(extended(&[1, 1, 5, 2, 0]), Ok((good(&UPSERT), 2)));
    assert_eq!(extended(&[1, 0, 0x81, 1, 5]), Err(Reject::Extension));
    assert_eq!(extended(&[1, 2, 5]), Err(Reject::RecordField));
    assert_eq!(extended(&[1]), Err(Reject::RecordField));
    let both = [&[0x45, 0x23, 1, 0][..], &UPSERT, &[1, 0]].concat();
    let found = read_items(16, MANDATORY | GENERATION | EXTENDED, &both)[0].unwrap();
    assert!(matches!(found.body, Body::Upsert(Reported { generation: Generation(0x12_3453), .. })));
    assert_eq!(found.extensions_skipped, 1);
    let begin = record(36, MANDATORY | EXTENDED, &[0, 2, 1, 2, 3, 4, 9, 0]);
    assert_eq!(read(&begin)[0].unwrap().extensions_skipped, 1, "every record can be extended");
}

#[test]
fn a_length_past_the_end_ends_the_datagram() {
    let whole = [dictionary(), record(16, MANDATORY, &UPSERT), record(16, MANDATORY, &UPSERT)].concat();
    let second = whole.len() - 17;
    for length in second + 1..whole.len() {
        assert_eq!(read(&whole[..length]), [good(&UPSERT), Err(Reject::RecordLength)], "cut to {length}");
    }
}

#[test]
fn a_header_is_checked_field_by_field() {
    let cases: &[(usize, &[u8], Reject)] = &[
        (0, b"b", Reject::Magic),
        (3, b"n", Reject::Magic),
        (4, &[0], Reject::Version),
        (4, &[2], Reject::Version),
        (5, &[4], Reject::HeaderField),
        (6, &[1], Reject::Reserved),
        (7, &[0x80], Reject::Reserved),
        (16, &[0, 0], Reject::HeaderField),
        (20, &[0, 0, 1], Reject::HeaderField),
        (23, &[1], Reject::Reserved),
        (24, &[0; 8], Reject::HeaderField),
        (32, &[0; 8], Reject::HeaderField),
    ];
    for (at, bytes, reject) in cases {
        let mut bad = header().encode();
        bad[*at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(Header::decode(&bad), Err(*reject), "byte {at}: {bytes:?}");
    }
    for length in 0..HEADER_BYTES {
        assert_eq!(Header::decode(&header().encode()[..length]), Err(Reject::Truncated));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(read(&bytes).len() <= bytes.len());
    }

    #[test]
    fn any_payload_of_a_known_type_is_read_to_its_end(
        records in prop::collection::vec((0..RecordType::ALL.len(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..30),
    ) {
        let bytes: Vec<u8> = records
            .iter()
            .flat_map(|(kind, flags, payload)| record(RecordType::ALL[*kind] as u8, flags & 7, payload))
            .collect();
        prop_assert!(read(&bytes).len() <= bytes.len());
    }

    #[test]
    fn a_cut_datagram_loses_only_its_end(bodies in prop::collection::vec(any_body(), 1..40), cut: prop::sample::Index) {
        let bytes = written(&bodies);
        let found = read(&bytes[..cut.index(bytes.len())]);
        let whole = found.iter().take_while(|record| record.is_ok()).count();
        prop_assert!(found.len() <= whole + 1, "what was cut is one reject at most");
        prop_assert!(found[..whole].iter().zip(&bodies).all(|(record, body)| record.unwrap().body == *body));
    }

    #[test]
    fn a_flipped_bit_never_panics_and_adds_nothing_but_rejects(
        bodies in prop::collection::vec(any_body(), 1..40), at: prop::sample::Index, bit in 0u8..8,
    ) {
        let mut bytes = written(&bodies);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes).len() <= bytes.len());
    }
}
