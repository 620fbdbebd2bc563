//! Making the kernel's pools of hugepages larger, and smaller again by exactly as much.

use std::path::Path;

use anyhow::{Result, bail};

use crate::machine::{Machine, PAGE_BYTES};
use crate::record::{Pending, Record};

/// The kernel's pools of hugepages.
pub trait Pool {
    /// Persistent pages in a NUMA node's pool.
    fn total(&self, numa: u8) -> Result<u64>;
    /// Asks for so many persistent pages; there may be fewer after it.
    fn set_total(&self, numa: u8, pages: u64) -> Result<()>;
    /// Has the kernel put free memory together, so that it can give more pages than before.
    fn make_room(&self, effort: Effort) -> Result<()>;
}

/// How hard the kernel is asked to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Move what lies between free pages.
    Compact,
    /// Forget the page cache's clean pages first: they are read again from disk when they are needed.
    DropCache,
}

/// What is tried, one after the other, while the kernel gives too few pages. A page cache that fills all memory, as it is
/// after a build, leaves few free pages in a row.
const EFFORTS: [Effort; 4] = [Effort::Compact, Effort::Compact, Effort::DropCache, Effort::Compact];

impl Pool for Machine {
    fn total(&self, numa: u8) -> Result<u64> {
        Machine::total(self, numa)
    }

    fn set_total(&self, numa: u8, pages: u64) -> Result<()> {
        Machine::set_total(self, numa, pages)
    }

    fn make_room(&self, effort: Effort) -> Result<()> {
        if effort == Effort::DropCache {
            self.drop_clean_cache()?;
        }
        self.compact_memory()
    }
}

/// Adds pages to the pools of NUMA nodes, and notes it in the record. All or nothing.
pub fn add(pool: &impl Pool, record: &mut Record, runtime: &Path, wanted: &[(u8, u64)]) -> Result<()> {
    for (index, (numa, pages)) in wanted.iter().copied().enumerate() {
        let before = pool.total(numa)?;
        change(pool, record, runtime, numa, before + pages)?;
        for effort in EFFORTS {
            if pool.total(numa)? >= before + pages {
                break;
            }
            // A kernel that cannot do it gives no more pages, and the error below says how many it gave.
            let _ = pool.make_room(effort);
            change(pool, record, runtime, numa, before + pages)?;
        }
        let given = pool.total(numa)?.saturating_sub(before).min(pages);
        if given < pages {
            give_back(pool, record, runtime, &[(numa, given)])?;
            give_back(pool, record, runtime, &wanted[..index])?;
            bail!(
                "NUMA node {numa}: the kernel gave {given} of {pages} hugepages ({} of {} MiB), and they were given back: \
                 memory is too small or too fragmented; free some, lower `tables` or eal.memory_mib, or reserve \
                 at boot with hugepages={pages} on the kernel's command line",
                (given * PAGE_BYTES) >> 20,
                (pages * PAGE_BYTES) >> 20,
            );
        }
    }
    Ok(())
}

/// Takes pages that were added out of the pools again. Pages that others use by now stay until they are done with them;
/// the kernel sees to that.
pub fn give_back(pool: &impl Pool, record: &mut Record, runtime: &Path, pages: &[(u8, u64)]) -> Result<()> {
    for (numa, pages) in pages.iter().copied() {
        let after = pool.total(numa)?.saturating_sub(pages);
        change(pool, record, runtime, numa, after)?;
    }
    Ok(())
}

/// Gives a pool another size, and notes before what is going to be done and after what was.
fn change(pool: &impl Pool, record: &mut Record, runtime: &Path, numa: u8, after: u64) -> Result<()> {
    let before = pool.total(numa)?;
    if after == before {
        return Ok(());
    }
    record.pending.insert(numa, Pending { before, after });
    record.save(runtime)?;
    pool.set_total(numa, after)?;
    record.settle(pool)?;
    record.save(runtime)
}

#[cfg(test)]
pub mod fake {
    //! A pool that gives no more than there is.

    use std::cell::Cell;

    use super::{Effort, Pool, Result};

    /// One pool, whatever the NUMA node.
    pub struct FakePool {
        total: Cell<u64>,
        limit: Cell<u64>,
        cached: Cell<u64>,
    }

    impl FakePool {
        /// A pool with `total` pages that grows to `limit`.
        pub fn new(total: u64, limit: u64) -> FakePool {
            FakePool::with_cache(total, limit, 0)
        }

        /// A pool that grows to `limit`, and by `cached` pages more once the page cache was dropped.
        pub fn with_cache(total: u64, limit: u64, cached: u64) -> FakePool {
            FakePool { total: Cell::new(total), limit: Cell::new(limit), cached: Cell::new(cached) }
        }
    }

    impl Pool for FakePool {
        fn total(&self, _numa: u8) -> Result<u64> {
            Ok(self.total.get())
        }

        fn set_total(&self, _numa: u8, pages: u64) -> Result<()> {
            self.total.set(pages.min(self.limit.get()));
            Ok(())
        }

        fn make_room(&self, effort: Effort) -> Result<()> {
            if effort == Effort::DropCache {
                self.limit.set(self.limit.get() + self.cached.take());
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakePool;
    use super::*;

    #[test]
    fn added_pages_are_recorded_and_given_back() {
        let runtime = tempfile::tempdir().unwrap();
        let (pool, mut record) = (FakePool::new(7, 100), Record::default());
        add(&pool, &mut record, runtime.path(), &[(0, 5)]).unwrap();
        assert_eq!((pool.total(0).unwrap(), record.added[&0]), (12, 5));
        assert_eq!(Record::load(runtime.path()).unwrap(), record);
        give_back(&pool, &mut record, runtime.path(), &[(0, 5)]).unwrap();
        assert_eq!((pool.total(0).unwrap(), &record), (7, &Record::default()));
    }

    #[test]
    fn memory_full_of_page_cache_is_made_room_in() {
        let runtime = tempfile::tempdir().unwrap();
        let (pool, mut record) = (FakePool::with_cache(7, 10, 100), Record::default());
        add(&pool, &mut record, runtime.path(), &[(0, 5)]).unwrap();
        assert_eq!((pool.total(0).unwrap(), record.added[&0]), (12, 5));
    }

    #[test]
    fn too_few_pages_are_given_back_and_told_with_numbers() {
        let runtime = tempfile::tempdir().unwrap();
        let (pool, mut record) = (FakePool::new(7, 10), Record::default());
        let error = add(&pool, &mut record, runtime.path(), &[(0, 5)]).unwrap_err().to_string();
        assert!(error.contains("gave 3 of 5 hugepages (6 of 10 MiB)"), "{error}");
        assert_eq!((pool.total(0).unwrap(), &record), (7, &Record::default()));
        assert!(!Record::path(runtime.path()).exists());
    }
}
