//! Any bytes as a sync datagram.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| baton_fuzz::datagram(bytes));
