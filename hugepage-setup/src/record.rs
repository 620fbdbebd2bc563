//! The record: what `apply` did, so that `remove` takes back exactly that. `hugepages.json` in `paths.runtime`.
//!
//! It is written before each step, so that after a kill it says at least what was done; what it says too much is found
//! out from the machine ([`Record::settle`]).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::reserve::Pool;

/// What `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Pages added to the pool of each NUMA node.
    pub added: BTreeMap<u8, u64>,
    /// Pools that are just being made larger or smaller.
    pub pending: BTreeMap<u8, Pending>,
    /// The mount that was made, or is just being made.
    pub mounted: Option<PathBuf>,
    /// The directory that was made for it.
    pub created_directory: bool,
}

/// A pool that is just being made larger or smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// Pages in the pool before.
    pub before: u64,
    /// Pages in the pool when it is done.
    pub after: u64,
}

impl Record {
    /// Where the record of a node lies.
    pub fn path(runtime: &Path) -> PathBuf {
        runtime.join("hugepages.json")
    }

    /// Reads the record; an empty one if there is none.
    pub fn load(runtime: &Path) -> Result<Record> {
        let path = Record::path(runtime);
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| {
                format!(
                    "{} is damaged: set /proc/sys/vm/nr_hugepages by hand, then delete it",
                    path.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes the record, whole or not at all. An empty one is deleted.
    pub fn save(&self, runtime: &Path) -> Result<()> {
        let path = Record::path(runtime);
        let context = || format!("cannot write {}", path.display());
        if *self == Record::default() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(context),
                _ => Ok(()),
            };
        }
        let temporary = path.with_extension("json.new");
        let mut file = File::create(&temporary).with_context(context)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes()).with_context(context)?;
        file.sync_all().with_context(context)?;
        fs::rename(&temporary, &path).with_context(context)
    }

    /// Finds out how far the pending changes got.
    pub fn settle(&mut self, pool: &impl Pool) -> Result<()> {
        for (numa, Pending { before, after }) in std::mem::take(&mut self.pending) {
            let now = pool.total(numa)?.clamp(before.min(after), before.max(after));
            let added = self.added.remove(&numa).unwrap_or(0) + now.saturating_sub(before);
            let added = added.saturating_sub(before.saturating_sub(now));
            if added > 0 {
                self.added.insert(numa, added);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reserve::fake::FakePool;

    #[test]
    fn a_record_survives_and_an_empty_one_leaves_no_file() {
        let runtime = tempfile::tempdir().unwrap();
        assert_eq!(Record::load(runtime.path()).unwrap(), Record::default());
        let record = Record { mounted: Some("/mnt/x".into()), added: [(1, 5)].into(), ..Record::default() };
        record.save(runtime.path()).unwrap();
        assert_eq!(Record::load(runtime.path()).unwrap(), record);
        Record::default().save(runtime.path()).unwrap();
        assert_eq!(fs::read_dir(runtime.path()).unwrap().count(), 0);
    }

    /// The pages recorded as added after a change from `before` to `after` that began with 5 added was cut off at `now`.
    fn settled(before: u64, after: u64, now: u64) -> Option<u64> {
        let mut record = Record { added: [(0, 5)].into(), ..Record::default() };
        record.pending.insert(0, Pending { before, after });
        record.settle(&FakePool::new(now, 1000)).unwrap();
        assert!(record.pending.is_empty());
        record.added.get(&0).copied()
    }

    #[test]
    fn what_a_killed_apply_added_is_found_out() {
        assert_eq!([10, 13, 15, 99, 4].map(|now| settled(10, 15, now)), [5, 8, 10, 10, 5].map(Some));
    }

    #[test]
    fn what_a_killed_remove_gave_back_is_found_out() {
        assert_eq!([10, 8, 5, 0, 12].map(|now| settled(10, 5, now)), [Some(5), Some(3), None, None, Some(5)]);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let runtime = tempfile::tempdir().unwrap();
        fs::write(Record::path(runtime.path()), "{").unwrap();
        let error = Record::load(runtime.path()).unwrap_err();
        assert!(format!("{error:#}").contains("hugepages.json is damaged"), "{error:#}");
    }
}
