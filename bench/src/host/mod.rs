//! The machine as benchmarks use it: hugepages borrowed and given back, CPUs, memory, interruption, child processes.

pub mod child;
pub mod cpus;
pub mod hugepages;
pub mod memory;
pub mod signals;
