//! What must be true of any bytes that are taken for a datagram. The fuzz targets call these, and so does the test that replays
//! the corpus (`common/tests/wire_corpus.rs`).

use baton_common::id::{NodeId, NumaId};
use baton_common::sync::wire::{
    BatchWriter, Body, DATAGRAM_BYTES_MIN, HEADER_BYTES, Header, PushError, Reader, StreamId,
};

/// Any bytes as a whole datagram: a header that is read is written the same, and the records hold what [`records`] says.
pub fn datagram(bytes: &[u8]) {
    let Ok((header, rest)) = Header::decode(bytes) else { return };
    assert_eq!(header.encode(), bytes[..HEADER_BYTES], "a header has one encoding");
    records(rest);
}

/// Any bytes as records: they are read to their end, twice the same, and what was read can be written and read again, in
/// datagrams of any size.
pub fn records(bytes: &[u8]) {
    let mut reader = Reader::new();
    let found: Vec<_> = reader.records(bytes).collect();
    assert!(found.len() <= bytes.len());
    assert!(reader.records(bytes).eq(found.iter().copied()), "a reader keeps nothing between datagrams");

    let bodies: Vec<Body> = found.iter().filter_map(|record| record.ok().map(|record| record.body)).collect();
    let datagram_bytes_max = DATAGRAM_BYTES_MIN + bytes.len();
    let again: Vec<Body> = written(&bodies, datagram_bytes_max)
        .iter()
        .flat_map(|datagram| {
            assert!(datagram.len() <= datagram_bytes_max);
            let (_, rest) = Header::decode(datagram).expect("a header that was just written");
            let records: Vec<_> = reader.records(rest).collect();
            records.into_iter().map(|record| record.expect("a record that was just written").body)
        })
        .collect();
    assert_eq!(again, bodies);
}

/// The datagrams that these bodies fill.
fn written(bodies: &[Body], datagram_bytes_max: usize) -> Vec<Vec<u8>> {
    let header = Header {
        cluster: 1,
        membership_epoch: 0,
        node: NodeId(1),
        numa: NumaId(0),
        key: None,
        to: None,
        stream: StreamId::CHANGES,
        boot_epoch: 1,
        sequence: 1,
    };
    let mut batch = BatchWriter::new(datagram_bytes_max);
    let mut datagrams = Vec::new();
    for body in bodies {
        if batch.push(body) == Err(PushError::Full) {
            datagrams.push(batch.datagram(&header).to_vec());
            batch.clear();
            batch.push(body).expect("one record always fits");
        }
    }
    datagrams.push(batch.datagram(&header).to_vec());
    datagrams
}
