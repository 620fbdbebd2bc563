//! The predecessor, as its successor sees it: a process that is in charge and gives its part up when it is asked to.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use baton_common::control::{Callee, Client, Request};
use baton_common::id::NumaId;
use baton_common::runtime;

/// How long the predecessor may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(4);

/// A connection to the process that is in charge.
pub struct Predecessor {
    client: Client,
}

impl Predecessor {
    /// Connects to process `pid`, which has started this one and is in charge.
    ///
    /// # Errors
    /// It is not in charge, or does not answer.
    pub fn find(runtime_dir: &Path, numa: NumaId, pid: u32) -> anyhow::Result<Predecessor> {
        let path = runtime::sync_lock_path(runtime_dir, numa);
        let holder =
            runtime::holder(&path).with_context(|| format!("looking who holds {}", path.display()))?;
        if holder != Some(pid) {
            bail!(
                "process {pid} is not the secondary of NUMA node {numa}: a successor is started by `batonctl sync hand-over`"
            );
        }
        let client = Client::connect(runtime_dir, Callee::Secondary(numa), ANSWER_WAIT)?;
        Ok(Predecessor { client })
    }

    /// Asks it to give its part up, and waits until it has.
    ///
    /// # Errors
    /// It does not: then nothing may be taken.
    pub fn ask(&mut self) -> anyhow::Result<()> {
        self.client.have_done(&Request::SyncGiveUp).context("asking the predecessor for its part")
    }

    /// Tells it that this process has the part. It may leave then.
    ///
    /// # Errors
    /// It has ended by itself, which changes nothing.
    pub fn tell_taken(mut self, silence_us: u64) -> anyhow::Result<()> {
        self.client.have_done(&Request::SyncTaken { silence_us }).context("telling the predecessor")
    }
}
