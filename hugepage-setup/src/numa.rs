//! Doing something from a CPU of a chosen NUMA node, so that the memory it takes is that node's.

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::machine::Machine;

/// Runs `work` on a thread of its own on a CPU of `numa`. Under the default policy the kernel takes a page from the node
/// of the CPU that first asks for it, as long as that has one.
///
/// It is a preference: where the node has no CPUs, or this process may not use them, the work is done anyway.
pub fn run_on<T: Send>(machine: &Machine, numa: u8, work: impl FnOnce() -> T + Send) -> Result<T> {
    let mut set = CpuSet::new();
    for cpu in machine.cpus(numa)?.into_iter().filter(|cpu| *cpu < CpuSet::MAX_CPU) {
        set.set(cpu);
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _ = sched_setaffinity(None, &set);
            work()
        });
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
