//! CPUs: one for the reader and all single measurements, another one for the writer beside it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two CPUs of a benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cpus {
    /// Where all but the writer beside a reader runs.
    pub reader: usize,
    /// Where the writer beside a reader runs.
    pub writer: usize,
}

impl Cpus {
    /// The last two CPUs that this thread may use: the first ones have most of the machine's interrupts.
    ///
    /// # Errors
    /// There is only one.
    pub fn choose() -> Result<Cpus> {
        let allowed = sched_getaffinity(None).context("cannot ask for the CPUs that may be used")?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        match usable[..] {
            [.., writer, reader] => Ok(Cpus { reader, writer }),
            _ => bail!("two CPUs are needed, a reader's and a writer's; this process may use {usable:?}"),
        }
    }
}

/// Keeps the calling thread on a CPU.
///
/// # Errors
/// The thread may not run there.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// How long the calling thread has waited for its CPU so far, while others had it; zero if the kernel does not tell.
pub fn waited() -> Duration {
    // proc_pid_schedstat: nanoseconds on the CPU, nanoseconds of waiting for it, number of slices.
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
