//! The sync secondary: one process per NUMA node.

fn main() {}
