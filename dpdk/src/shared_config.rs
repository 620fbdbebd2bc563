//! The lock words of DPDK's shared configuration, for clearing what a dead process left held.
//!
//! All processes of a file prefix map the file `<runtime dir>/dpdk/<prefix>/config`. A process that was killed while it
//! held one of the locks in it leaves the lock held, and whoever starts next hangs for ever; forwarding is not touched.
//! The supervisor of a secondary clears such words after its death and before it starts the next one. It needs no EAL.
//!
//! The offsets are those of DPDK 22.11's `struct rte_mem_config` (lib/eal/common/eal_memcfg.h, x86-64), found by
//! experiment; a file of another release is refused.

use std::fs::OpenOptions;
use std::io;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use crate::eal::shared_files_dir;

/// `RTE_MAGIC`, at offset 0 once the primary has set the configuration up.
const MAGIC: u32 = 19_820_526;
/// Where DPDK's release stands: year, month, minor, state, one byte each, from the highest on.
const RELEASE_OFFSET: usize = 4;
/// Year and month of the release whose offsets these are.
const RELEASE: u32 = 22 << 8 | 11;
/// Single lock words.
const LOCKS: [(&str, usize); 6] = [
    ("memory zones", 16),
    ("tail queues", 20),
    ("mempools", 24),
    ("timers", 28),
    ("memory hotplug", 32),
    ("array of memory zones", 128),
];
/// The lock of the first heap.
const HEAP_LOCK_OFFSET: usize = 19_136;
/// From one heap's lock to the next.
const HEAP_STRIDE: usize = 192;
/// `RTE_MAX_HEAPS`.
pub(crate) const HEAPS: usize = 32;
/// What is mapped: up to behind the last heap.
const MAPPED_LEN: usize = HEAP_LOCK_OFFSET + HEAPS * HEAP_STRIDE;

const _: () = assert!(MAPPED_LEN.is_multiple_of(8) && HEAP_LOCK_OFFSET.is_multiple_of(8));

/// Why the shared configuration cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SharedConfigError {
    /// The file is not there, or too small, or not ours to write.
    #[error("cannot map DPDK's shared configuration {path}; is the primary running?")]
    Map {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The primary has not set it up, or it is another file.
    #[error("{path} has magic {found}, expected {MAGIC}: the primary has not set it up yet")]
    Magic {
        /// The file.
        path: PathBuf,
        /// The number in its place.
        found: u32,
    },
    /// The offsets are not known for that release.
    #[error(
        "{path} is of DPDK {year}.{month:02}, lock offsets are known for 22.11 only: restart the primary instead"
    )]
    Release {
        /// The file.
        path: PathBuf,
        /// Its year.
        year: u32,
        /// Its month.
        month: u32,
    },
}

/// A lock word that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// What it protects.
    pub name: &'static str,
    /// Where it stands in the file, bytes.
    pub offset: usize,
    /// Its value.
    pub word: u32,
}

impl HeldLock {
    /// Whether it is a heap's lock. Its holder may have left the heap itself broken: it has to be made what it was before
    /// ([`SharedHeap::restore`](crate::SharedHeap::restore)).
    pub fn makes_heap_suspect(&self) -> bool {
        self.offset >= HEAP_LOCK_OFFSET
    }
}

/// The mapped shared configuration of a file prefix.
#[derive(Debug)]
pub struct SharedConfig {
    map: MmapRaw,
}

impl SharedConfig {
    /// Maps the configuration of the primary with that file prefix. `runtime_dir` is what it was started with.
    ///
    /// # Errors
    /// [`SharedConfigError`].
    pub fn open(runtime_dir: &Path, file_prefix: &str) -> Result<Self, SharedConfigError> {
        let path = shared_files_dir(runtime_dir, file_prefix).join("config");
        let map = map_file(&path).map_err(|source| SharedConfigError::Map { path: path.clone(), source })?;
        let config = Self { map };
        let found = config.word(0).load(Ordering::Acquire);
        if found != MAGIC {
            return Err(SharedConfigError::Magic { path, found });
        }
        let release = config.word(RELEASE_OFFSET).load(Ordering::Relaxed) >> 16;
        if release != RELEASE {
            return Err(SharedConfigError::Release { path, year: release >> 8, month: release & 0xff });
        }
        Ok(config)
    }

    /// The locks that are held now, by the living or the dead.
    pub fn held(&self) -> Vec<HeldLock> {
        let heaps = (0..HEAPS).map(|heap| ("heap", HEAP_LOCK_OFFSET + heap * HEAP_STRIDE));
        LOCKS
            .into_iter()
            .chain(heaps)
            .map(|(name, offset)| HeldLock { name, offset, word: self.word(offset).load(Ordering::Acquire) })
            .filter(|lock| lock.word != 0)
            .collect()
    }

    /// Clears the locks that a dead process left held, and says which: those that are held now and have the same value
    /// after `settle`. Some tens of milliseconds are plenty.
    ///
    /// Only while no process of the prefix starts and none allocates: a lock that a living process holds for the whole
    /// of `settle` cannot be told from a dead one's. Baton's running processes hold none.
    pub fn clear(&self, settle: Duration) -> Vec<HeldLock> {
        let held = self.held();
        if held.is_empty() {
            return held;
        }
        sleep(settle);
        let clear = |lock: &HeldLock| {
            self.word(lock.offset).compare_exchange(lock.word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        held.into_iter().filter(clear).collect()
    }

    /// A 64-bit word of a heap's structure; the first one begins with the lock.
    pub(crate) fn heap_word(&self, heap: usize, word: usize) -> &AtomicU64 {
        assert!(heap < HEAPS && word < HEAP_STRIDE / 8);
        let offset = HEAP_LOCK_OFFSET + heap * HEAP_STRIDE + word * 8;
        // SAFETY: the offset lies inside the mapping: heap and word are in bounds, checked above.
        let word = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: the mapping starts at a page and the offset is a multiple of 8, so the word is aligned; it is valid as
        // long as `self`. DPDK's processes change it under the lock, which nobody holds when this is called.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// A word of the file.
    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= MAPPED_LEN);
        // SAFETY: the offset lies inside the mapping, checked above.
        let word = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: the mapping starts at a page and the offset is a multiple of 4, so the word is aligned; it is valid
        // as long as `self`, and all processes use it atomically only.
        unsafe { AtomicU32::from_ptr(word.cast()) }
    }
}

/// Maps the start of the file for reading and writing.
///
/// The file is never closed: EAL keeps a record lock on it in the primary, by which a secondary sees that its primary
/// lives, and a process loses all its record locks of a file when it closes any descriptor of it (fcntl(2)).
fn map_file(path: &Path) -> io::Result<MmapRaw> {
    let file = ManuallyDrop::new(OpenOptions::new().read(true).write(true).open(path)?);
    let length = file.metadata()?.len();
    if length < MAPPED_LEN as u64 {
        return Err(io::Error::other(format!("it has {length} bytes, at least {MAPPED_LEN} are expected")));
    }
    MmapOptions::new().len(MAPPED_LEN).map_raw(&*file)
}

/// Configuration files for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A configuration file as a primary of the known release leaves it, with some words set.
    pub(crate) fn config_file(words: &[(usize, u32)]) -> tempfile::TempDir {
        config_file_of(RELEASE, words)
    }

    /// A configuration file as a primary of that release leaves it, with some words set.
    pub(crate) fn config_file_of(release: u32, words: &[(usize, u32)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let path = shared_files_dir(dir.path(), "p");
        std::fs::create_dir_all(&path).unwrap();
        let mut bytes = vec![0_u8; MAPPED_LEN];
        let words = [(0, MAGIC), (RELEASE_OFFSET, release << 16)].into_iter().chain(words.iter().copied());
        for (offset, word) in words {
            bytes[offset..offset + 4].copy_from_slice(&word.to_ne_bytes());
        }
        std::fs::write(path.join("config"), bytes).unwrap();
        dir
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::testing::{config_file, config_file_of};
    use super::*;

    #[test]
    fn locks_left_held_are_named_and_cleared_once() {
        let dir = config_file(&[(20, 2), (HEAP_LOCK_OFFSET + HEAP_STRIDE, 1)]);
        let config = SharedConfig::open(dir.path(), "p").unwrap();
        let cleared = config.clear(Duration::ZERO);
        let names: Vec<_> = cleared.iter().map(|lock| (lock.name, lock.makes_heap_suspect())).collect();
        assert_eq!(names, [("tail queues", false), ("heap", true)]);
        assert_eq!(config.clear(Duration::ZERO), []);
    }

    #[test]
    fn opening_leaves_this_process_the_record_locks_it_has() {
        use nix::fcntl::{FcntlArg, fcntl};
        let dir = config_file(&[]);
        let file =
            File::options().write(true).open(shared_files_dir(dir.path(), "p").join("config")).unwrap();
        let whole = libc::flock {
            l_type: libc::F_WRLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        fcntl(&file, FcntlArg::F_SETLK(&whole)).unwrap();

        drop(SharedConfig::open(dir.path(), "p").unwrap());

        // A lock of the open file description conflicts with the process's own record lock, if that is still there.
        let mut found = whole;
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
        assert_eq!(found.l_type, libc::F_WRLCK as i16);
    }

    #[test]
    fn another_release_is_refused() {
        let dir = config_file_of(23 << 8 | 11, &[]);
        let error = SharedConfig::open(dir.path(), "p").unwrap_err();
        assert!(matches!(error, SharedConfigError::Release { year: 23, month: 11, .. }));
    }

    #[test]
    fn a_file_that_is_not_set_up_is_refused() {
        let dir = config_file(&[(0, 0)]);
        let error = SharedConfig::open(dir.path(), "p").unwrap_err();
        assert!(matches!(error, SharedConfigError::Magic { found: 0, .. }));
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = SharedConfig::open(dir.path(), "p").unwrap_err().to_string();
        assert!(error.contains("dpdk/p/config"), "{error}");
    }
}
