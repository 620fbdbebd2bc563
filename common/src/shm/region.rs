//! A region: one shared file, mapped whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, RenameFlags, fallocate, flock, fstatfs, renameat_with,
};
use rustix::io::Errno;
use thiserror::Error;

use crate::flow::HashKey;

use super::header::{FileKind, FileSpec, HEADER_BYTES, Header, HeaderError};
use super::process::ProcessName;
use super::shared::Shared;

/// Type of a hugetlbfs in `statfs(2)`.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Page size assumed where the filesystem does not set one.
const PAGE_BYTES: u64 = 4096;

/// Tries to get hold of the temporary name while other creators come and go.
const CREATE_ATTEMPTS: u32 = 16;

/// Why a shared file could not be made, mapped, locked or read.
#[derive(Debug, Error)]
pub enum RegionError {
    /// A step of making it failed; nothing is left behind.
    #[error("cannot create {path}: {step}")]
    Create {
        /// The file.
        path: PathBuf,
        /// Which step, with what to do about it where that is known.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is a file of that name.
    #[error(
        "{path} exists already: nothing was changed; to make it anew, stop both services and remove it first"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process is making it.
    #[error("{path} is being created by another process: try again when that is done")]
    BeingCreated {
        /// The file.
        path: PathBuf,
    },
    /// It could not be opened.
    #[error("cannot open {path}: run `baton-hugepages status` to see what is missing")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be mapped.
    #[error("cannot map {path} ({bytes} bytes): run `baton-hugepages status` to see what is missing")]
    Map {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Its header is wrong.
    #[error("{path}: {mismatch}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        mismatch: HeaderError,
    },
    /// Another process holds the lock.
    #[error("{path} is held by process {holder_pid}: stop that process first, only one may write this file")]
    Locked {
        /// The file.
        path: PathBuf,
        /// Who held it last; zero if unknown.
        holder_pid: u32,
    },
    /// The lock could not be taken for another reason.
    #[error("cannot lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A value would lie outside the file, or not aligned.
    #[error(
        "{path}: {bytes} bytes at offset {offset} do not lie in the file's {total} bytes, aligned to {align}: the header's \
         geometry is wrong; stop both services, then run `baton-hugepages apply`"
    )]
    Bounds {
        /// The file.
        path: PathBuf,
        /// Where the value would begin.
        offset: u64,
        /// How long it is.
        bytes: u64,
        /// How it must be aligned.
        align: usize,
        /// Size of the file.
        total: u64,
    },
}

/// One shared file, mapped whole, for as long as this lives. The memory is only ever seen as atomics.
///
/// Nobody truncates a file that is in use: that would end every process that has it mapped.
pub struct Region {
    // Unmapped before the file is closed: the mapping holds the file's lock too.
    map: MmapRaw,
    file: File,
    path: PathBuf,
}

impl Region {
    /// Makes the file, all memory behind it reserved, and maps it read-write. What follows the header is zero.
    ///
    /// The file is made under a temporary name beside `path` and gets its own when it is whole; what a creator that was
    /// killed left there, the next one uses again.
    ///
    /// # Errors
    /// The file exists, or a step failed; then nothing is left behind.
    pub fn create(path: &Path, spec: &FileSpec) -> Result<Arc<Region>, RegionError> {
        if fs::exists(path).unwrap_or(false) {
            return Err(RegionError::Exists { path: path.to_owned() });
        }
        let temporary = temporary_path(path);
        let file = lock_temporary(path, &temporary)?;
        let made = fill(path, file, spec).and_then(|region| {
            match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(region),
                Err(Errno::EXIST) => Err(RegionError::Exists { path: path.to_owned() }),
                Err(error) => Err(create_error(path, "rename", error)),
            }
        });
        match made {
            Ok(region) => {
                // The lock was the creator's; a writer takes its own.
                flock(&region.file, FlockOperation::Unlock)
                    .map_err(|error| create_error(path, "unlock", error))?;
                Ok(Arc::new(region))
            }
            Err(error) => {
                // If this fails too, the next creator uses the file again.
                let _ = fs::remove_file(&temporary);
                Err(error)
            }
        }
    }

    /// Maps an existing file read-write, after checking its header.
    ///
    /// # Errors
    /// There is no such file, or it is not a whole file of `kind` and of this build's layout.
    pub fn open(path: &Path, kind: FileKind) -> Result<Arc<Region>, RegionError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| RegionError::Open { path: path.to_owned(), source })?;
        Region::attach(path, file, kind, |bytes, file| MmapOptions::new().len(bytes).map_raw(file))
    }

    /// Maps an existing file read-only, after checking its header. A store into it ends the process, and of loads only
    /// `Relaxed` ones are defined on such memory: what wants more puts a fence beside them.
    ///
    /// # Errors
    /// There is no such file, or it is not a whole file of `kind` and of this build's layout.
    pub fn open_read_only(path: &Path, kind: FileKind) -> Result<Arc<Region>, RegionError> {
        let file = File::open(path).map_err(|source| RegionError::Open { path: path.to_owned(), source })?;
        Region::attach(path, file, kind, |bytes, file| MmapOptions::new().len(bytes).map_raw_read_only(file))
    }

    fn attach(
        path: &Path,
        file: File,
        kind: FileKind,
        map: impl Fn(usize, &File) -> io::Result<MmapRaw>,
    ) -> Result<Arc<Region>, RegionError> {
        let metadata =
            file.metadata().map_err(|source| RegionError::Open { path: path.to_owned(), source })?;
        let bytes = metadata.len();
        let header_error = |mismatch| RegionError::Header { path: path.to_owned(), mismatch };
        if bytes < HEADER_BYTES {
            return Err(header_error(HeaderError::TooShort { found: bytes }));
        }
        let map = map(bytes as usize, &file).map_err(|source| RegionError::Map {
            path: path.to_owned(),
            bytes,
            source,
        })?;
        #[cfg(loom)]
        super::atomic::model::mapped(map.as_ptr().addr(), map.len(), metadata.ino());
        let region = Region { map, file, path: path.to_owned() };
        region.header().check(kind, bytes).map_err(header_error)?;
        Ok(Arc::new(region))
    }

    /// Takes the file's exclusive lock until this region is dropped or the process dies, whichever way.
    ///
    /// # Errors
    /// Another process holds it, or another region of this process.
    pub fn lock_exclusive(&self) -> Result<(), RegionError> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                self.header().set_holder_pid(ProcessName::own().pid);
                Ok(())
            }
            Err(Errno::WOULDBLOCK) => {
                Err(RegionError::Locked { path: self.path.clone(), holder_pid: self.header().holder_pid() })
            }
            Err(error) => Err(RegionError::Lock { path: self.path.clone(), source: error.into() }),
        }
    }

    /// The file's header.
    pub fn header(&self) -> &Header {
        self.at(0).expect("`fill` and `attach` map no file that is shorter than its header")
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// The file's path when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value at `offset`.
    ///
    /// # Errors
    /// It does not lie in the file, or not aligned.
    pub fn at<T: Shared>(&self, offset: u64) -> Result<&T, RegionError> {
        let pointer = self.checked(offset, size_of::<T>() as u64, align_of::<T>())?.cast::<T>();
        // SAFETY: `checked` saw that the value lies in the mapping and is aligned; the mapping lives as long as `self`; as
        // `Shared`, any bytes are a value and only atomics can be reached through the reference.
        Ok(unsafe { &*pointer })
    }

    /// The `count` values from `offset` on.
    ///
    /// # Errors
    /// They do not all lie in the file, or not aligned.
    pub fn slice<T: Shared>(&self, offset: u64, count: u64) -> Result<&[T], RegionError> {
        let bytes = count.saturating_mul(size_of::<T>() as u64);
        let pointer = self.checked(offset, bytes, align_of::<T>())?.cast::<T>();
        // SAFETY: as in `at`, for all values; `bytes` did not saturate, or `checked` would have refused it.
        Ok(unsafe { std::slice::from_raw_parts(pointer, count as usize) })
    }

    /// The address of `bytes` bytes at `offset`, which lie in the mapping, aligned.
    fn checked(&self, offset: u64, bytes: u64, align: usize) -> Result<*const u8, RegionError> {
        let in_file = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes());
        let pointer = self.map.as_ptr().wrapping_add(offset as usize);
        if in_file && pointer.addr().is_multiple_of(align) {
            return Ok(pointer);
        }
        Err(RegionError::Bounds { path: self.path.clone(), offset, bytes, align, total: self.bytes() })
    }
}

fn create_error(path: &Path, step: &'static str, error: Errno) -> RegionError {
    RegionError::Create { path: path.to_owned(), step, source: error.into() }
}

/// `.<name>.new` beside the file.
fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Opens the temporary file and locks it, so that of several creators one works and the others know.
fn lock_temporary(path: &Path, temporary: &Path) -> Result<File, RegionError> {
    let create = |step| move |source| RegionError::Create { path: path.to_owned(), step, source };
    for _ in 0..CREATE_ATTEMPTS {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(temporary).map_err(create("open; is the directory there and writable?"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(RegionError::BeingCreated { path: path.to_owned() }),
            Err(error) => return Err(create_error(path, "lock", error)),
        }
        // Between open and lock, another creator may have finished: then this file has its own name by now, and is not
        // to be touched.
        let opened = file.metadata().map_err(create("stat"))?;
        let named = fs::symlink_metadata(temporary);
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino())) {
            return Ok(file);
        }
    }
    Err(RegionError::BeingCreated { path: path.to_owned() })
}

/// Gives the file its size and memory, maps it and writes its header.
fn fill(path: &Path, file: File, spec: &FileSpec) -> Result<Region, RegionError> {
    let create = |step| move |source| RegionError::Create { path: path.to_owned(), step, source };
    let filesystem = fstatfs(&file).map_err(|error| create_error(path, "statfs", error))?;
    let on_hugetlbfs = filesystem.f_type as u64 == HUGETLBFS_MAGIC;
    let page_bytes = if on_hugetlbfs { filesystem.f_bsize as u64 } else { PAGE_BYTES };
    let bytes = spec.bytes.max(HEADER_BYTES).next_multiple_of(page_bytes);

    // What a killed creator left is cut off first: the new file must be zeros.
    file.set_len(0).map_err(create("truncate"))?;
    file.set_len(bytes).map_err(create("set the size"))?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(error) => return Err(create_error(path, "reserve memory; are there enough free pages?", error)),
    }
    let map = MmapOptions::new().len(bytes as usize).map_raw(&file);
    let map = map.map_err(create("map; are there enough free pages?"))?;
    let region = Region { map, file, path: path.to_owned() };
    region.header().write(spec, bytes).map_err(|error| create_error(path, "draw a hash key", error))?;
    if let Some(key) = key_of_sibling(path, spec.kind) {
        region.header().use_hash_key(key);
    }
    Ok(region)
}

/// The hash key of the tables that stand beside a table's file: with the same one, a key that is looked for in all of them is
/// hashed once.
fn key_of_sibling(path: &Path, kind: FileKind) -> Option<HashKey> {
    const TABLES: [FileKind; 2] = [FileKind::RemoteTable, FileKind::LocalTable];
    let directory = path.parent().filter(|_| TABLES.contains(&kind))?;
    TABLES.iter().find_map(|kind| {
        let sibling = Region::open_read_only(&kind.path(directory, 0), *kind).ok()?;
        Some(sibling.header().hash_key())
    })
}
