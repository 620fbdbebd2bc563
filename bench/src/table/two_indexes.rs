//! Two indexes from key to record number, one a key of the session, over an array of records: how one builds a session table
//! from a hash table.

use std::marker::PhantomData;
use std::path::Path;

use anyhow::Result;
use baton_common::flow::FlowKey;
use baton_common::session::Session;
use baton_common::time::Millis;

use super::compact::{CompactKey, CompactSession, Records};
use super::contender::{BURST, Contender, Reader, Tally};
use super::grace::{Presence, Removed};
use super::population::{Population, Side};

/// A hash table from key to record number as its one writer has it.
pub trait Index<const WORDS: usize>: Send + Sized {
    /// The same for a reader.
    type Finder: Finder<WORDS>;
    /// What stays of a removed entry until no reader can be looking at it.
    type Remains: Send;

    /// An empty one with room for `entries`; `name` tells it from others.
    ///
    /// # Errors
    /// Memory is missing.
    fn create(name: &str, entries: u32) -> Result<Self>;

    /// A reader's end.
    fn finder(&self) -> Self::Finder;

    /// Adds a key that is not there; `false` if there is no room.
    fn add(&mut self, key: &CompactKey<WORDS>, record: u32) -> bool;

    /// Takes a key out.
    fn take(&mut self, key: &CompactKey<WORDS>) -> Option<Self::Remains>;

    /// Clears up after [`Index::take`].
    ///
    /// # Safety
    /// No finder is still in a lookup that began before the entry was taken.
    unsafe fn clear(&mut self, remains: Self::Remains);
}

/// A hash table from key to record number as a reader has it.
pub trait Finder<const WORDS: usize>: Send {
    /// The record of one key.
    fn find(&self, key: &CompactKey<WORDS>) -> Option<u32>;

    /// The records of up to [`BURST`] keys, in the fastest way there is.
    fn find_all(&self, keys: &[CompactKey<WORDS>], records: &mut [Option<u32>; BURST]);
}

/// The table.
pub struct TwoIndexes<I: Index<WORDS>, const WORDS: usize> {
    client: I,
    server: I,
    client_finder: I::Finder,
    records: Records<WORDS>,
    free: Vec<u32>,
    removed: Removed<(u32, [I::Remains; 2])>,
    sessions: u32,
}

impl<I: Index<WORDS>, const WORDS: usize> TwoIndexes<I, WORDS> {
    fn insert_one(&mut self, session: &CompactSession<WORDS>) -> bool {
        if self.free.is_empty() {
            self.advance();
        }
        let Some(record) = self.free.pop() else { return false };
        self.records.write(record, session);
        let added = self.client.add(&session.client, record) && self.server.add(&session.server, record);
        self.sessions += u32::from(added);
        added
    }

    fn remove_one(&mut self, key: &CompactKey<WORDS>) -> bool {
        let Some(record) = self.client_finder.find(key) else { return false };
        let server_key = self.records.server_key(record);
        let (Some(client), Some(server)) = (self.client.take(key), self.server.take(&server_key)) else {
            return false;
        };
        self.sessions -= 1;
        let release = release(&mut self.client, &mut self.server, &mut self.free);
        self.removed.push((record, [client, server]), release);
        true
    }

    fn advance(&mut self) {
        let release = release(&mut self.client, &mut self.server, &mut self.free);
        self.removed.advance(release);
    }
}

/// Uses again what readers are through with.
fn release<I: Index<WORDS>, const WORDS: usize>(
    client: &mut I,
    server: &mut I,
    free: &mut Vec<u32>,
) -> impl FnMut((u32, [I::Remains; 2])) {
    |(record, [client_remains, server_remains])| {
        // SAFETY: `Removed` hands it on once the one reader has quiesced after the removal, or is gone.
        unsafe { client.clear(client_remains) };
        // SAFETY: as above.
        unsafe { server.clear(server_remains) };
        free.push(record);
    }
}

impl<I: Index<WORDS>, const WORDS: usize> Contender for TwoIndexes<I, WORDS> {
    type Key = CompactKey<WORDS>;
    type Entry = CompactSession<WORDS>;
    type Reader = TwoFinders<I, WORDS>;

    fn create(_hugepages: &Path, population: &Population) -> Result<Self> {
        let client = I::create("client", population.sessions)?;
        Ok(TwoIndexes {
            client_finder: client.finder(),
            client,
            server: I::create("server", population.sessions)?,
            records: Records::new(population.sessions)?,
            free: (0..population.sessions).rev().collect(),
            removed: Removed::nothing(),
            sessions: 0,
        })
    }

    fn reader(&self) -> Result<Self::Reader> {
        Ok(TwoFinders {
            client: self.client.finder(),
            server: self.server.finder(),
            records: self.records,
            presence: self.removed.presence(),
            index: PhantomData,
        })
    }

    #[inline]
    fn key(key: &FlowKey) -> Self::Key {
        CompactKey::of(key)
    }

    #[inline]
    fn entry(session: &Session) -> Self::Entry {
        CompactSession::of(session)
    }

    fn insert(&mut self, entries: &[Self::Entry]) -> u32 {
        entries.iter().map(|session| u32::from(self.insert_one(session))).sum()
    }

    fn refresh(&mut self, keys: &[Self::Key], now: Millis) -> u32 {
        let mut found = 0;
        let mut records = [None; BURST];
        for burst in keys.chunks(BURST) {
            self.client_finder.find_all(burst, &mut records);
            let records = || records[..burst.len()].iter().flatten();
            records().for_each(|record| self.records.prefetch(*record));
            for record in records() {
                self.records.touch(*record, now);
                found += 1;
            }
        }
        found
    }

    fn refresh_each(&mut self, keys: &[Self::Key], now: Millis) -> u32 {
        let mut found = 0;
        for key in keys {
            if let Some(record) = self.client_finder.find(key) {
                self.records.touch(record, now);
                found += 1;
            }
        }
        found
    }

    fn remove(&mut self, keys: &[Self::Key]) -> u32 {
        keys.iter().map(|key| u32::from(self.remove_one(key))).sum()
    }

    fn len(&self) -> u32 {
        self.sessions
    }
}

/// The table as a reader has it.
pub struct TwoFinders<I: Index<WORDS>, const WORDS: usize> {
    client: I::Finder,
    server: I::Finder,
    records: Records<WORDS>,
    presence: Presence,
    index: PhantomData<fn() -> I>,
}

impl<I: Index<WORDS>, const WORDS: usize> TwoFinders<I, WORDS> {
    #[inline]
    fn finder(&self, side: Side) -> &I::Finder {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }
}

impl<I: Index<WORDS>, const WORDS: usize> Reader for TwoFinders<I, WORDS> {
    type Key = CompactKey<WORDS>;

    // Not inlined, so that it is the same code wherever it is measured.
    #[inline(never)]
    fn bulk(&mut self, side: Side, keys: &[Self::Key], tally: &mut Tally) {
        let mut records = [None; BURST];
        self.finder(side).find_all(keys, &mut records);
        let records = || records[..keys.len()].iter().flatten();
        records().for_each(|record| self.records.prefetch(*record));
        records().for_each(|record| tally.hit(self.records.fold(*record)));
    }

    #[inline(never)]
    fn single(&mut self, side: Side, key: &Self::Key, tally: &mut Tally) {
        if let Some(record) = self.finder(side).find(key) {
            tally.hit(self.records.fold(record));
        }
    }

    fn quiesce(&mut self) {
        self.presence.quiesce();
    }
}
