//! Golden bytes: a sealed datagram that another implementation made, and that `docs/sealing.md` shows.

use std::sync::Arc;

use super::{Keyring, Opener, Sealer, fingerprint};
use crate::config::KeyFile;
use crate::id::{KeyId, NodeId, NumaId};
use crate::sync::roster::Identity;
use crate::sync::wire::{HEADER_BYTES, Header, StreamId};

const DOCUMENT: &str = include_str!("../../../../docs/sealing.md");

/// The key file's one line.
const KEY: &str = "7 seal 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const FINGERPRINT: &str = "15db8197a1e4ec57";

const HEADER: &str = "\
    42 41 54 4e 01 01 00 00 44 33 22 11 00 00 00 00
    02 00 01 07 03 00 01 00 08 07 06 05 04 03 02 01
    2a 00 00 00 00 00 00 00";

const CLEAR: &str = "\
    01 01 23 00 03 00 00 00 c0 27 09 00 02 00 12 0a
    01 01 07 40 9c 0a 09 00 01 bb 01 0a 04 02 01 07
    04 0a 03 00 0a fb 20";

const SEALED: &str = "\
    d1 0f d5 05 0d 72 aa 67 78 7f 13 63 b6 75 5e 61
    7e b8 8b 43 c3 86 7b af d9 20 5b 4e 12 f7 a8 16
    dc fb 01 3f 65 59 28 2c 46 ad 7f 99 56 51 47 d5
    9b 91 53 0d f0 51 f9";

fn bytes(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn keyring() -> Keyring {
    Keyring::new(&KeyFile::parse(KEY, "golden").unwrap())
}

fn header() -> Header {
    Header::decode(&bytes(HEADER)).unwrap().0
}

#[test]
fn a_datagram_is_sealed_as_the_document_shows() {
    let header = header();
    assert_eq!((header.key, header.stream, header.sequence), (Some(KeyId(7)), StreamId::RANGES, 42));
    let sender = Identity { cluster: 0x1122_3344, node: NodeId(2), numa: NumaId(1) };
    let mut datagram = [bytes(HEADER), bytes(CLEAR)].concat();

    Sealer::new(&keyring(), sender, 0x0102_0304_0506_0708).seal(&header, &mut datagram).unwrap();

    assert_eq!(datagram[..HEADER_BYTES], bytes(HEADER));
    assert_eq!(datagram[HEADER_BYTES..], bytes(SEALED));
}

#[test]
fn the_documents_datagram_is_opened() {
    let datagram = [bytes(HEADER), bytes(SEALED)].concat();
    let mut opener = Opener::new(Arc::new(keyring()));
    assert_eq!(opener.open(&header(), &datagram, &mut Vec::new()), Ok(bytes(CLEAR).as_slice()));
}

#[test]
fn a_fingerprint_is_that_of_the_document() {
    let file = KeyFile::parse(KEY, "golden").unwrap();
    let shown: String =
        fingerprint(&file.sealing().secret).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(shown, FINGERPRINT);
    assert!(DOCUMENT.contains(FINGERPRINT), "docs/sealing.md lacks {FINGERPRINT}");
}

#[test]
fn the_document_shows_these_bytes() {
    let document: String = DOCUMENT.split_whitespace().collect();
    for part in [KEY, HEADER, CLEAR, SEALED] {
        let part: String = part.split_whitespace().collect();
        assert!(document.contains(&part), "docs/sealing.md lacks {part}");
    }
}
