//! The primary process: ports, workers, forwarding.

fn main() {}
