//! Any bytes as the records of a sync datagram.

#![no_main]

#[path = "../wire.rs"]
#[allow(dead_code)]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::records(bytes));
