//! Concurrent maps of Rust: `papaya`, `scc` and `dashmap`, each with a fast keyed hash.

use std::sync::Arc;

use anyhow::Result;
use foldhash::fast::RandomState;

use super::compact::CompactKey;
use super::contender::BURST;
use super::two_indexes::{Finder, Index};

/// `papaya`: reads take no lock, entries are allocated one by one.
#[derive(Clone)]
pub struct Papaya<const WORDS: usize>(Arc<papaya::HashMap<CompactKey<WORDS>, u32, RandomState>>);

/// `scc::HashIndex`: reads take no lock, entries lie in buckets.
#[derive(Clone)]
pub struct Scc<const WORDS: usize>(Arc<scc::HashIndex<CompactKey<WORDS>, u32, RandomState>>);

/// `dashmap`: shards behind read-write locks.
#[derive(Clone)]
pub struct DashMap<const WORDS: usize>(Arc<dashmap::DashMap<CompactKey<WORDS>, u32, RandomState>>);

impl<const WORDS: usize> Index<WORDS> for Papaya<WORDS> {
    type Finder = Self;
    type Remains = ();

    fn create(_name: &str, entries: u32) -> Result<Self> {
        let hasher = RandomState::default();
        Ok(Papaya(Arc::new(papaya::HashMap::with_capacity_and_hasher(entries as usize, hasher))))
    }

    fn finder(&self) -> Self {
        self.clone()
    }

    fn add(&mut self, key: &CompactKey<WORDS>, record: u32) -> bool {
        self.0.pin().insert(*key, record);
        true
    }

    fn take(&mut self, key: &CompactKey<WORDS>) -> Option<()> {
        self.0.pin().remove(key).map(drop)
    }

    unsafe fn clear(&mut self, (): ()) {}
}

impl<const WORDS: usize> Finder<WORDS> for Papaya<WORDS> {
    fn find(&self, key: &CompactKey<WORDS>) -> Option<u32> {
        self.0.pin().get(key).copied()
    }

    fn find_all(&self, keys: &[CompactKey<WORDS>], records: &mut [Option<u32>; BURST]) {
        let map = self.0.pin();
        for (record, key) in records.iter_mut().zip(keys) {
            *record = map.get(key).copied();
        }
    }
}

impl<const WORDS: usize> Index<WORDS> for Scc<WORDS> {
    type Finder = Self;
    type Remains = ();

    fn create(_name: &str, entries: u32) -> Result<Self> {
        let hasher = RandomState::default();
        Ok(Scc(Arc::new(scc::HashIndex::with_capacity_and_hasher(entries as usize, hasher))))
    }

    fn finder(&self) -> Self {
        self.clone()
    }

    fn add(&mut self, key: &CompactKey<WORDS>, record: u32) -> bool {
        self.0.insert_sync(*key, record).is_ok()
    }

    fn take(&mut self, key: &CompactKey<WORDS>) -> Option<()> {
        self.0.remove_sync(key).then_some(())
    }

    unsafe fn clear(&mut self, (): ()) {}
}

impl<const WORDS: usize> Finder<WORDS> for Scc<WORDS> {
    fn find(&self, key: &CompactKey<WORDS>) -> Option<u32> {
        self.0.peek_with(key, |_, record| *record)
    }

    fn find_all(&self, keys: &[CompactKey<WORDS>], records: &mut [Option<u32>; BURST]) {
        for (record, key) in records.iter_mut().zip(keys) {
            *record = self.find(key);
        }
    }
}

impl<const WORDS: usize> Index<WORDS> for DashMap<WORDS> {
    type Finder = Self;
    type Remains = ();

    fn create(_name: &str, entries: u32) -> Result<Self> {
        let hasher = RandomState::default();
        Ok(DashMap(Arc::new(dashmap::DashMap::with_capacity_and_hasher(entries as usize, hasher))))
    }

    fn finder(&self) -> Self {
        self.clone()
    }

    fn add(&mut self, key: &CompactKey<WORDS>, record: u32) -> bool {
        self.0.insert(*key, record).is_none()
    }

    fn take(&mut self, key: &CompactKey<WORDS>) -> Option<()> {
        self.0.remove(key).map(drop)
    }

    unsafe fn clear(&mut self, (): ()) {}
}

impl<const WORDS: usize> Finder<WORDS> for DashMap<WORDS> {
    fn find(&self, key: &CompactKey<WORDS>) -> Option<u32> {
        self.0.get(key).map(|record| *record)
    }

    fn find_all(&self, keys: &[CompactKey<WORDS>], records: &mut [Option<u32>; BURST]) {
        for (record, key) in records.iter_mut().zip(keys) {
            *record = self.find(key);
        }
    }
}
