//! The counters file: all blocks of a node, one for each thread that counts.

use std::path::Path;

use thiserror::Error;

use super::CounterBlock;
use crate::shm::header::{FileKind, FileSpec, HEADER_BYTES, HeaderError};
use crate::shm::region::{Region, RegionError};
use crate::shm::shared::Mapped;

/// Why the counters file could not be made or attached.
#[derive(Debug, Error)]
pub enum CounterFileError {
    /// The file itself.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// More workers or sync domains than can be numbered.
    #[error(
        "counters for {workers} workers and {sync_domains} sync domains: at most 256 of each are possible"
    )]
    Shape {
        /// Workers.
        workers: u64,
        /// Sync domains.
        sync_domains: u64,
    },
}

/// The mapped counters of a node: the workers' blocks, then the primary's control thread's, then the sync domains'.
pub struct CounterFile {
    blocks: Mapped<[CounterBlock]>,
    workers: usize,
}

impl CounterFile {
    /// Makes the file, all counters zero.
    ///
    /// # Errors
    /// There are too many, or the file cannot be made.
    pub fn create(path: &Path, workers: usize, sync_domains: usize) -> Result<(), CounterFileError> {
        Region::create(path, &CounterFile::spec(workers as u64, sync_domains as u64)?)?;
        Ok(())
    }

    /// Maps the file read-write, for those who count.
    ///
    /// # Errors
    /// The file is missing or no counters file.
    pub fn open(path: &Path) -> Result<CounterFile, CounterFileError> {
        CounterFile::attach(&Region::open(path, FileKind::Counters)?)
    }

    /// Maps the file read-only, for those who look. [`CounterBlock::add`] ends such a process.
    ///
    /// # Errors
    /// The file is missing or no counters file.
    pub fn open_read_only(path: &Path) -> Result<CounterFile, CounterFileError> {
        CounterFile::attach(&Region::open_read_only(path, FileKind::Counters)?)
    }

    /// What the file is to be.
    ///
    /// # Errors
    /// There are too many workers or sync domains.
    pub fn spec(workers: u64, sync_domains: u64) -> Result<FileSpec, CounterFileError> {
        if workers > 256 || sync_domains > 256 {
            return Err(CounterFileError::Shape { workers, sync_domains });
        }
        let bytes = HEADER_BYTES + (workers + 1 + sync_domains) * size_of::<CounterBlock>() as u64;
        Ok(FileSpec { kind: FileKind::Counters, geometry: [workers, sync_domains, 0, 0], bytes })
    }

    fn attach(region: &std::sync::Arc<Region>) -> Result<CounterFile, CounterFileError> {
        let [workers, sync_domains, ..] = region.header().geometry();
        let spec = CounterFile::spec(workers, sync_domains)?;
        if region.bytes() < spec.bytes {
            let mismatch =
                HeaderError::Geometry { word: "file size", found: region.bytes(), expected: spec.bytes };
            return Err(RegionError::Header { path: region.path().to_owned(), mismatch }.into());
        }
        let blocks = Mapped::slice(region, HEADER_BYTES, workers + 1 + sync_domains)?;
        Ok(CounterFile { blocks, workers: workers as usize })
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Number of sync domains.
    pub fn sync_domains(&self) -> usize {
        self.blocks.len() - self.workers - 1
    }

    /// The counters of a worker; `None` if the node has no such worker.
    pub fn worker(&self, worker: usize) -> Option<&CounterBlock> {
        self.blocks[..self.workers].get(worker)
    }

    /// The counters of the primary's control thread.
    pub fn control(&self) -> &CounterBlock {
        &self.blocks[self.workers]
    }

    /// The counters of a sync domain, by its position in the config; `None` if the node has no such domain.
    pub fn sync(&self, domain: usize) -> Option<&CounterBlock> {
        self.blocks[self.workers + 1..].get(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Counter;

    #[test]
    fn each_counter_is_where_another_process_looks_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::Counters.path(directory.path(), 0);
        CounterFile::create(&path, 2, 1).unwrap();
        let writer = CounterFile::open(&path).unwrap();
        writer.worker(1).unwrap().add(Counter::RxPackets, 5);
        writer.control().add(Counter::PuntTx, 7);
        writer.sync(0).unwrap().add(Counter::SyncRxGaps, 9);
        let reader = CounterFile::open_read_only(&path).unwrap();
        assert_eq!((reader.workers(), reader.sync_domains()), (2, 1));
        assert_eq!(reader.worker(0).unwrap().value(Counter::RxPackets), 0);
        assert_eq!(reader.worker(1).unwrap().value(Counter::RxPackets), 5);
        assert_eq!(reader.control().value(Counter::PuntTx), 7);
        assert_eq!(reader.sync(0).unwrap().value(Counter::SyncRxGaps), 9);
        assert!(reader.worker(2).is_none() && reader.sync(1).is_none());
    }

    #[test]
    fn a_file_too_short_for_its_blocks_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("counters");
        let spec = FileSpec { bytes: HEADER_BYTES, ..CounterFile::spec(3, 1).unwrap() };
        Region::create(&path, &spec).unwrap();
        let error = CounterFile::open(&path).err().unwrap().to_string();
        assert!(error.contains("file size is 4096, expected 14336"), "{error}");
    }
}
