//! What every contender does: a table of sessions with one writer and readers in other threads.

use std::path::Path;

use anyhow::Result;
use baton_common::flow::FlowKey;
use baton_common::session::Session;
use baton_common::time::Millis;
use serde::{Deserialize, Serialize};

use super::population::{Population, Side};
use crate::host::memory::Footprint;

/// Keys of a bulk lookup: a burst of packets.
pub const BURST: usize = 32;

/// Sessions of a batch that a writer inserts, refreshes or removes: what a few datagrams of a peer carry.
pub const BATCH: usize = 256;

/// The contenders, and the machine itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Baton's session table.
    Baton,
    /// DPDK's `rte_hash`.
    RteHash,
    /// The crate `papaya`.
    Papaya,
    /// The crate `scc`, its `HashIndex`.
    Scc,
    /// The crate `dashmap`.
    DashMap,
    /// No table: memory accesses alone.
    Machine,
}

impl Kind {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Kind; 6] =
        [Kind::Baton, Kind::RteHash, Kind::Papaya, Kind::Scc, Kind::DashMap, Kind::Machine];

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Baton => "Baton",
            Kind::RteHash => "rte_hash",
            Kind::Papaya => "papaya",
            Kind::Scc => "scc",
            Kind::DashMap => "dashmap",
            Kind::Machine => "machine",
        }
    }

    /// Whether goals are about it. The others are measured once at the largest size.
    pub fn is_in_goals(self) -> bool {
        matches!(self, Kind::Baton | Kind::RteHash | Kind::Machine)
    }
}

/// What lookups came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys that were found.
    pub hits: u64,
    /// Keys of which the table could not say within its bound whether they are there.
    pub contended: u64,
    /// What the sessions' fields were folded into.
    pub fold: u64,
}

impl Tally {
    /// Counts a hit; `fields` was made of all fields of the session.
    #[inline]
    pub fn hit(&mut self, fields: u64) {
        self.hits += 1;
        self.fold = self.fold.rotate_left(1) ^ fields;
    }
}

/// A table of sessions as its one writer has it.
pub trait Contender: Send + Sized {
    /// The form in which it takes keys.
    type Key: Copy + Send + Sync;
    /// The form in which it takes sessions.
    type Entry: Copy + Send;
    /// Its reader in another thread.
    type Reader: Reader<Key = Self::Key>;

    /// An empty table with room for the population; what files it needs go into a hugetlbfs directory.
    ///
    /// # Errors
    /// Memory is missing.
    fn create(hugepages: &Path, population: &Population) -> Result<Self>;

    /// A reader. There is one at a time.
    ///
    /// # Errors
    /// The table cannot be attached.
    fn reader(&self) -> Result<Self::Reader>;

    /// A key in the table's form.
    fn key(key: &FlowKey) -> Self::Key;

    /// A session in the table's form.
    fn entry(session: &Session) -> Self::Entry;

    /// Adds sessions in the fastest way there is; how many were added.
    fn insert(&mut self, entries: &[Self::Entry]) -> u32;

    /// Finds sessions by their client-side keys and notes when they were last seen, in the fastest way; how many there were.
    fn refresh(&mut self, keys: &[Self::Key], now: Millis) -> u32;

    /// The same, one after the other.
    fn refresh_each(&mut self, keys: &[Self::Key], now: Millis) -> u32;

    /// Removes sessions by their client-side keys in the fastest way; how many there were.
    fn remove(&mut self, keys: &[Self::Key]) -> u32;

    /// Sessions in the table.
    fn len(&self) -> u32;

    /// Bytes of hugepages that the table takes.
    ///
    /// # Errors
    /// The kernel does not tell.
    fn hugepage_bytes(&self, before: Footprint) -> Result<u64> {
        Ok(Footprint::now()?.hugepages.saturating_sub(before.hugepages))
    }
}

/// A table of sessions as a reader has it.
pub trait Reader: Send {
    /// The form in which the table takes keys.
    type Key: Copy;

    /// Looks up to [`BURST`] keys up and reads the sessions that are there.
    fn bulk(&mut self, side: Side, keys: &[Self::Key], tally: &mut Tally);

    /// Looks one key up and reads the session, if it is there.
    fn single(&mut self, side: Side, key: &Self::Key, tally: &mut Tally);

    /// After a burst: holds nothing of the table any more.
    fn quiesce(&mut self);
}
