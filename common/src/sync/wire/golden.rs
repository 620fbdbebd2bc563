//! Golden bytes: what version 1 looks like, and that `docs/wire-format.md` shows the same.

use super::tests::{body_of_every_kind, header};
use super::*;

const HEADER: &str = "\
    4241544e010000004433221105000000020001000300000008070605040302012a00000000000000";
const DICTIONARIES: &str = "\
    010107003b0a0901bb0106030108001b0a030afb20080b050105000f0a04020102010900e1fd00000901bb0106040108\
    0061fd00000310fb200601080023fd000004000201";
const RECORDS: &str = "\
    10011a000a010107409c0704000035944c0a010108419c0804010045944c11011900fd00000100010000000000000000\
    0007409c0704000035944c11031d0045230100fd000001000100000000000000000007409c0704000075944c12010800\
    0a010107409c003813011400fd000001000100000000000000000007409c003814010a000a010107409c003594441501\
    1600fd000001000100000000000000000007409c00359444200116000101020098051817161514131211002d3101005a\
    620221011c00ff0112130000282726252423222100022513000038373635343332312201080000020300444342412301\
    090001e8030000000000002401060000024443424125010a000002444342412513000026010e000a0101070a09000140\
    9cbb01060127012600fd000001000100000000000000000007fd000009000000000000000000000001409cbb01060128\
    010e000a03000a0a040201fb200704060229012600fd000003000000000000000000000010fd00000400020000000000\
    0000000001fb20070406022a010b0000280000000000000002002b0108005857565554535251";

const DOCUMENT: &str = include_str!("../../../../docs/wire-format.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_datagram_with_every_record_is_the_golden_bytes() {
    let mut batch = BatchWriter::new(1472);
    for body in body_of_every_kind() {
        batch.push(&body).unwrap();
    }

    assert_eq!(hex(batch.datagram(&header())), [HEADER, DICTIONARIES, RECORDS].concat());
}

#[test]
fn the_golden_bytes_decode_to_what_they_were_made_of() {
    let datagram = unhex(&[HEADER, DICTIONARIES, RECORDS].concat());

    let (decoded, rest) = Header::decode(&datagram).unwrap();

    assert_eq!(decoded, header());
    let expected = body_of_every_kind().map(|body| Ok(Record { body, extensions_skipped: 0 }));
    assert_eq!(Reader::new().records(rest).collect::<Vec<_>>(), expected);
}

/// The records that these bytes consist of.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while let [_, _, low, high, ..] = bytes {
        let (record, rest) = bytes.split_at(4 + usize::from(u16::from_le_bytes([*low, *high])));
        records.push(record);
        bytes = rest;
    }
    records
}

#[test]
fn the_document_shows_the_golden_bytes() {
    let document: String = DOCUMENT.split_whitespace().collect();
    let (dictionaries, others) = (unhex(DICTIONARIES), unhex(RECORDS));
    let mut parts = [records(&dictionaries), records(&others)].concat();
    assert_eq!(parts.len(), RecordType::ALL.len() + 1, "one of every type, and upserts with a base");
    let header = unhex(HEADER);
    parts.push(&header);
    for part in parts.into_iter().map(hex) {
        assert!(document.contains(&part), "docs/wire-format.md lacks {part}");
    }
}
