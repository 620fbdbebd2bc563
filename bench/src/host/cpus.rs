//! CPUs: one for the reader and all single measurements, another one for the writer beside it.

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
