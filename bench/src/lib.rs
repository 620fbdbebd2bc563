//! Baton's benchmarks: each measures Baton beside what others would have used, and beside what the machine can do at all.
//!
//! A benchmark is run by hand (`make bench-table`, `make bench-sync`), never by the test suite, which only checks that it works. What it finds
//! goes to the screen and, as JSON, Markdown and SVG, to `bench/results/`.

pub mod host;
pub mod report;
pub mod sync;
pub mod table;
