//! Reserves hugepages and creates the table files.

fn main() {}
