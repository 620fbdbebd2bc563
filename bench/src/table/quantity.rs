//! What is measured: names, units, and the order in which they are shown.

use serde::{Deserialize, Serialize};

use crate::report::Better;

/// A quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Quantity {
    /// Sessions added, both keys.
    Insert,
    /// Sessions found and touched, in batches.
    Refresh,
    /// Sessions found and touched, one after the other.
    RefreshEach,
    /// Sessions removed.
    Remove,
    /// Bulk lookups that hit.
    HitBulk,
    /// Single lookups that hit.
    HitSingle,
    /// Bulk lookups that miss.
    MissBulk,
    /// Single lookups that miss.
    MissSingle,
    /// A bulk reader alone.
    ReaderAlone,
    /// A bulk reader beside a writer at full speed.
    ReaderBeside,
    /// What the reader beside a writer keeps of its speed.
    ReaderKept,
    /// What it keeps beside a neighbour that works on other memory.
    ReaderKeptNeighbour,
    /// What it keeps after the writer was stopped in a change.
    ReaderKeptStopped,
    /// What it keeps after the writer was killed in a change.
    ReaderKeptKilled,
    /// The writer beside a reader: sessions inserted and removed.
    WriterBeside,
    /// A burst of a reader alone, median.
    AloneP50,
    /// Its 99th percentile.
    AloneP99,
    /// Its 99.9th percentile.
    AloneP999,
    /// A burst of a reader beside a writer, median.
    BesideP50,
    /// Its 99th percentile.
    BesideP99,
    /// Its 99.9th percentile.
    BesideP999,
    /// Memory in hugepages.
    SharedBytes,
    /// Memory in all.
    Bytes,
    /// Present keys that were found.
    Found,
    /// Absent keys that were found.
    FoundAbsent,
    /// Lookups beside a living writer that came to no result within the bound on retries.
    Contended,
    /// Lookups beside a stopped or killed writer that came to no result.
    ContendedAfterDeath,
    /// Random reads of 64 bytes with prefetch.
    RandomReads,
    /// The memory accesses of an insert.
    InsertAccesses,
    /// Keys made from numbers; not part of any other figure.
    MakeKeys,
    /// Sessions made from numbers; not part of any other figure.
    MakeSessions,
}

impl Quantity {
    /// Name, unit, and which direction is better.
    pub fn shown(self) -> (&'static str, &'static str, Better) {
        use Better::{Less, More, Neither};
        use Quantity::*;
        match self {
            Insert => ("insert sessions, both keys", "M/s", More),
            Refresh => ("refresh, in batches", "M/s", More),
            RefreshEach => ("refresh, one by one", "M/s", More),
            Remove => ("remove sessions", "M/s", More),
            HitBulk => ("look up, hit, bulk of 32", "M/s", More),
            HitSingle => ("look up, hit, single", "M/s", More),
            MissBulk => ("look up, miss, bulk of 32", "M/s", More),
            MissSingle => ("look up, miss, single", "M/s", More),
            ReaderAlone => ("reader alone", "M/s", More),
            ReaderBeside => ("reader beside a writer", "M/s", More),
            ReaderKept => ("reader beside a writer, to alone", "", More),
            ReaderKeptNeighbour => ("reader beside foreign memory traffic, to alone", "", More),
            ReaderKeptStopped => ("reader beside a stopped writer, to alone", "", More),
            ReaderKeptKilled => ("reader beside a killed writer, to alone", "", More),
            WriterBeside => ("writer beside the reader, changes", "M/s", More),
            AloneP50 => ("burst of 32 alone, p50", "ns", Less),
            AloneP99 => ("burst of 32 alone, p99", "ns", Less),
            AloneP999 => ("burst of 32 alone, p99.9", "ns", Less),
            BesideP50 => ("burst of 32 beside a writer, p50", "ns", Less),
            BesideP99 => ("burst of 32 beside a writer, p99", "ns", Less),
            BesideP999 => ("burst of 32 beside a writer, p99.9", "ns", Less),
            SharedBytes => ("memory a session, hugepages", "bytes", Less),
            Bytes => ("memory a session, all", "bytes", Less),
            Found => ("check: present keys found", "", Neither),
            FoundAbsent => ("check: absent keys found", "", Neither),
            Contended => ("check: no result beside a writer", "", Less),
            ContendedAfterDeath => ("check: no result beside a dead writer", "", Less),
            RandomReads => ("random 64-byte reads, prefetched", "M/s", Neither),
            InsertAccesses => ("an insert's memory accesses", "M/s", Neither),
            MakeKeys => ("make a key from its number", "M/s", Neither),
            MakeSessions => ("make a session from its number", "M/s", Neither),
        }
    }
}

/// A figure of one trial.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub quantity: Quantity,
    /// What it came to.
    pub value: f64,
}
