//! Baton's session table, in a hugetlbfs file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use baton_common::flow::{Endpoint, FlowKey, address_words};
use baton_common::session::Session;
use baton_common::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use baton_common::shm::header::{FileKind, HEADER_BYTES};
use baton_common::time::Millis;

use super::contender::{Contender, Reader, Tally};
use super::population::{Population, Side};
use crate::host::memory::Footprint;

/// What kind of table it is: the one with readers in other processes.
pub const KIND: FileKind = FileKind::RemoteTable;

/// The table as its writer has it.
pub struct Baton {
    path: PathBuf,
    /// Nothing while another process is the writer.
    writer: Option<TableWriter>,
}

impl Baton {
    /// The table's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The table in a file, as its new writer.
    ///
    /// # Errors
    /// There is none, or it has a writer.
    pub fn take_over(path: &Path) -> Result<Baton> {
        let writer = TableWriter::attach(path, KIND).context("cannot take the table over")?;
        Ok(Baton { path: path.to_owned(), writer: Some(writer) })
    }

    /// Lets another process be the writer.
    pub fn give_up(&mut self) {
        self.writer = None;
    }

    /// Is the writer again, after another one was killed inside a change.
    ///
    /// # Errors
    /// There is another writer still, or it was killed between changes.
    pub fn succeed_the_dead(&mut self) -> Result<()> {
        ensure!(self.writer.is_none(), "this process is the table's writer already");
        *self = Baton::take_over(&self.path)?;
        ensure!(self.writer().recovery().change_interrupted, "the writer was killed between two changes");
        Ok(())
    }

    /// Whether the writer is inside a change, as the table's file says: the first word of its control page.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_in_change(&self) -> Result<bool> {
        let mut intent = [0; 8];
        File::open(&self.path)?.read_exact_at(&mut intent, HEADER_BYTES)?;
        Ok(intent != [0; 8])
    }

    fn writer(&mut self) -> &mut TableWriter {
        self.writer.as_mut().expect("another process is the table's writer")
    }
}

impl Contender for Baton {
    type Key = FlowKey;
    type Entry = Session;
    type Reader = BatonReader;

    fn create(hugepages: &Path, population: &Population) -> Result<Self> {
        let path = hugepages.join("table");
        SessionTable::create(&path, KIND, population.sessions)?;
        Baton::take_over(&path)
    }

    fn reader(&self) -> Result<BatonReader> {
        Ok(BatonReader(TableReader::attach(&self.path, KIND, 0)?))
    }

    #[inline]
    fn key(key: &FlowKey) -> FlowKey {
        *key
    }

    #[inline]
    fn entry(session: &Session) -> Session {
        *session
    }

    fn insert(&mut self, sessions: &[Session]) -> u32 {
        let mut inserted = 0;
        self.writer().insert_batch(sessions, |_, result| inserted += u32::from(result.is_ok()));
        inserted
    }

    fn refresh(&mut self, keys: &[FlowKey], now: Millis) -> u32 {
        self.writer().refresh_batch(keys, now)
    }

    fn refresh_each(&mut self, keys: &[FlowKey], now: Millis) -> u32 {
        let writer = self.writer();
        let mut found = 0;
        for key in keys {
            if let Lookup::Hit { index, .. } = writer.lookup(key) {
                writer.touch(index, now);
                found += 1;
            }
        }
        found
    }

    fn remove(&mut self, keys: &[FlowKey]) -> u32 {
        self.writer().remove_batch(keys)
    }

    fn len(&self) -> u32 {
        self.writer.as_ref().map_or(0, |writer| writer.len())
    }

    fn hugepage_bytes(&self, _before: Footprint) -> Result<u64> {
        Ok(self.path.metadata().context("the table's file is gone")?.len())
    }
}

/// The table as a registered reader has it.
pub struct BatonReader(TableReader);

impl Reader for BatonReader {
    type Key = FlowKey;

    // Not inlined, so that it is the same code wherever it is measured.
    #[inline(never)]
    fn bulk(&mut self, _side: Side, keys: &[FlowKey], tally: &mut Tally) {
        self.0.lookup_batch(keys, |_, lookup| count(&lookup, tally));
    }

    #[inline(never)]
    fn single(&mut self, _side: Side, key: &FlowKey, tally: &mut Tally) {
        count(&self.0.lookup(key), tally);
    }

    #[inline]
    fn quiesce(&mut self) {
        self.0.quiesce();
    }
}

#[inline(always)]
fn count(lookup: &Lookup, tally: &mut Tally) {
    match lookup {
        Lookup::Hit { session, .. } => tally.hit(fold(session)),
        Lookup::Miss => {}
        Lookup::Contended => tally.contended += 1,
    }
}

/// All fields of a session in one word.
#[inline(always)]
fn fold(session: &Session) -> u64 {
    let endpoint = |endpoint: &Endpoint| {
        let [high, low] = address_words(endpoint.address);
        high ^ low ^ u64::from(endpoint.port)
    };
    endpoint(&session.client)
        ^ endpoint(&session.vip)
        ^ endpoint(&session.local)
        ^ endpoint(&session.server)
        ^ session.last_seen.0
        ^ session.last_sent.0
        ^ u64::from(session.owner.0)
        ^ u64::from(session.generation.0)
        ^ session.state as u64
        ^ session.protocol as u64
}
