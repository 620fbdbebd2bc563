//! The fuzzer's corpus, replayed: every input that once led the fuzzer to code of its own.

#[path = "../../fuzz/wire.rs"]
mod wire;

use std::fs;
use std::path::Path;

/// Gives every file of a target's corpus to its function.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // So that a failure names the input.
        println!("{}", path.display());
        run(&bytes);
        inputs += 1;
    }
    assert!(inputs >= 10, "{} has only {inputs} inputs", corpus.display());
}

#[test]
fn every_datagram_of_the_corpus_is_read_to_its_end() {
    replay("wire_datagram", wire::datagram);
}

#[test]
fn all_records_of_the_corpus_are_read_to_their_end() {
    replay("wire_records", wire::records);
}
