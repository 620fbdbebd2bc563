//! The first page of every shared file: what it is, how big, and whether it is whole.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::rand::{GetRandomFlags, getrandom};
use thiserror::Error;

use super::shared::shared_struct;
use crate::flow::HashKey;

/// Bytes of the header; what the file holds begins here.
pub const HEADER_BYTES: u64 = 4096;

/// The first eight bytes of every file, "BATONSHM" when read on a little-endian machine. A file of a machine of another
/// byte order fails this check.
pub const MAGIC: u64 = u64::from_le_bytes(*b"BATONSHM");

/// Version of all layouts in `docs/shm-layout.md` together. Any change of any of them raises it.
pub const LAYOUT_VERSION: u32 = 2;

/// Words that describe what the file holds; their meaning depends on the kind.
pub const GEOMETRY_WORDS: usize = 4;

const GEOMETRY_NAMES: [&str; GEOMETRY_WORDS] =
    ["geometry word 0", "geometry word 1", "geometry word 2", "geometry word 3"];

/// What a shared file holds. The numbers stand in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FileKind {
    /// A worker's own session table: `local-<worker>`.
    LocalTable = 1,
    /// A NUMA node's table of the peers' sessions: `remote-<numa>`.
    RemoteTable = 2,
    /// A worker's events for its secondary: `events-<worker>`.
    EventRing = 3,
    /// Sync datagrams that reached a worker, for its secondary: `sync-rx-<worker>`.
    SyncRxRing = 4,
    /// Frames that a worker sends for the secondary: `sync-tx-<numa>`.
    SyncTxRing = 5,
    /// All counters of the node: `counters`.
    Counters = 6,
    /// What a secondary remembers of its streams and peers: `sync-state-<numa>`.
    SyncState = 7,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [FileKind; 7] = [
        FileKind::LocalTable,
        FileKind::RemoteTable,
        FileKind::EventRing,
        FileKind::SyncRxRing,
        FileKind::SyncTxRing,
        FileKind::Counters,
        FileKind::SyncState,
    ];

    /// The kind with this number, if there is one.
    pub fn from_number(number: u32) -> Option<FileKind> {
        FileKind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// The path of the file of this kind that belongs to worker or NUMA node `number`, in `directory`. There is one
    /// `counters` only, whatever the number.
    pub fn path(self, directory: &Path, number: u8) -> PathBuf {
        match self {
            FileKind::Counters => directory.join("counters"),
            kind => directory.join(format!("{}-{number}", kind.stem())),
        }
    }

    fn stem(self) -> &'static str {
        match self {
            FileKind::LocalTable => "local",
            FileKind::RemoteTable => "remote",
            FileKind::EventRing => "events",
            FileKind::SyncRxRing => "sync-rx",
            FileKind::SyncTxRing => "sync-tx",
            FileKind::Counters => "counters",
            FileKind::SyncState => "sync-state",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stem())
    }
}

/// What a file is to be: its kind, what its geometry words say, and how many bytes that takes, header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpec {
    /// What the file holds.
    pub kind: FileKind,
    /// The geometry words.
    pub geometry: [u64; GEOMETRY_WORDS],
    /// Bytes needed. The file is this, rounded up to pages.
    pub bytes: u64,
}

/// Why a file's header was refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Too short to hold a header.
    #[error(
        "the file has {found} bytes, a header alone has {HEADER_BYTES}: remove it and run `baton-hugepages apply`"
    )]
    TooShort {
        /// Bytes of the file.
        found: u64,
    },
    /// Not one of Baton's files, or of a machine of another byte order.
    #[error(
        "magic number {found:#018x}, expected {MAGIC:#018x}: this is not a file of Baton's; check `paths.hugepages`"
    )]
    Magic {
        /// What stands there.
        found: u64,
    },
    /// Made by another build.
    #[error(
        "layout version {found}, this build needs {LAYOUT_VERSION}: stop both services, then run `baton-hugepages apply`"
    )]
    LayoutVersion {
        /// What stands there.
        found: u32,
    },
    /// A file of another kind.
    #[error(
        "file kind {found} ({}), expected {} ({expected}): the file was moved or renamed; stop both services, then run \
         `baton-hugepages apply`", kind_name(*.found), *.expected as u32
    )]
    Kind {
        /// What stands there.
        found: u32,
        /// What was asked for.
        expected: FileKind,
    },
    /// Never finished.
    #[error(
        "ready flag {found}, expected 1: the file was not finished; remove it and run `baton-hugepages apply`"
    )]
    NotReady {
        /// What stands there.
        found: u32,
    },
    /// Cut off or grown since.
    #[error(
        "header says {header} bytes, the file has {file}: it was truncated or copied; stop both services, then run \
         `baton-hugepages apply`"
    )]
    Size {
        /// What stands there.
        header: u64,
        /// Bytes of the file.
        file: u64,
    },
    /// The hash key was never drawn.
    #[error(
        "hash key is zero: the file was not made by `baton-hugepages`; remove it and run `baton-hugepages apply`"
    )]
    HashKey,
    /// A geometry word does not fit the rest of the header, or not what was asked for.
    #[error("{word} is {found}, expected {expected}: stop both services, then run `baton-hugepages apply`")]
    Geometry {
        /// Which.
        word: &'static str,
        /// What stands there.
        found: u64,
        /// What would be right.
        expected: u64,
    },
}

fn kind_name(number: u32) -> &'static str {
    FileKind::from_number(number).map_or("unknown", FileKind::stem)
}

shared_struct! {
    /// The header as it lies in the file. Written once, when the file is made, except for the holder.
    #[repr(C)]
    pub struct Header {
        magic: AtomicU64,
        layout_version: AtomicU32,
        kind: AtomicU32,
        total_bytes: AtomicU64,
        hash_key: [AtomicU64; 2],
        geometry: [AtomicU64; GEOMETRY_WORDS],
        ready: AtomicU32,
        holder_pid: AtomicU32,
        reserved: [AtomicU64; 502],
    }
}

const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES as usize && align_of::<Header>() == 8);
    assert!(std::mem::offset_of!(Header, total_bytes) == 16);
    assert!(std::mem::offset_of!(Header, hash_key) == 24);
    assert!(std::mem::offset_of!(Header, geometry) == 40);
    assert!(std::mem::offset_of!(Header, ready) == 72);
    assert!(std::mem::offset_of!(Header, holder_pid) == 76);
};

impl Header {
    /// Writes the header of a new file of `total_bytes`, the ready flag last, and draws its hash key.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn write(&self, spec: &FileSpec, total_bytes: u64) -> rustix::io::Result<()> {
        let mut key = [0u8; 16];
        getrandom(&mut key, GetRandomFlags::empty())?;
        let (low, high) = key.split_at(8);
        self.hash_key[0].store(u64::from_ne_bytes(low.try_into().unwrap()) | 1, Ordering::Relaxed);
        self.hash_key[1].store(u64::from_ne_bytes(high.try_into().unwrap()), Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Relaxed);
        self.layout_version.store(LAYOUT_VERSION, Ordering::Relaxed);
        self.kind.store(spec.kind as u32, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        for (word, value) in self.geometry.iter().zip(spec.geometry) {
            word.store(value, Ordering::Relaxed);
        }
        // The file has no other name than a temporary one yet, so this pairs with nothing: who finds the file finds it
        // whole. The flag tells a file that was put here some other way.
        self.ready.store(1, Ordering::Release);
        Ok(())
    }

    /// Checks that this is the header of a whole file of `kind` and `file_bytes`.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(super) fn check(&self, kind: FileKind, file_bytes: u64) -> Result<(), HeaderError> {
        let magic = self.magic.load(Ordering::Relaxed);
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        let version = self.layout_version.load(Ordering::Relaxed);
        if version != LAYOUT_VERSION {
            return Err(HeaderError::LayoutVersion { found: version });
        }
        let found = self.kind.load(Ordering::Relaxed);
        if found != kind as u32 {
            return Err(HeaderError::Kind { found, expected: kind });
        }
        let ready = self.ready.load(Ordering::Relaxed);
        if ready != 1 {
            return Err(HeaderError::NotReady { found: ready });
        }
        let total = self.total_bytes.load(Ordering::Relaxed);
        if total != file_bytes {
            return Err(HeaderError::Size { header: total, file: file_bytes });
        }
        if self.hash_key.iter().all(|word| word.load(Ordering::Relaxed) == 0) {
            return Err(HeaderError::HashKey);
        }
        Ok(())
    }

    /// Replaces the hash key, before anybody else has the file.
    pub(super) fn use_hash_key(&self, key: HashKey) {
        for (word, value) in self.hash_key.iter().zip(key.0) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The key of every hash in this file.
    pub fn hash_key(&self) -> HashKey {
        HashKey([self.hash_key[0].load(Ordering::Relaxed), self.hash_key[1].load(Ordering::Relaxed)])
    }

    /// The geometry words.
    pub fn geometry(&self) -> [u64; GEOMETRY_WORDS] {
        std::array::from_fn(|word| self.geometry[word].load(Ordering::Relaxed))
    }

    /// Checks that the file is what `spec` says: for a caller that knows what the config asks for.
    ///
    /// # Errors
    /// The first geometry word that differs.
    pub fn check_geometry(&self, spec: &FileSpec) -> Result<(), HeaderError> {
        let words = GEOMETRY_NAMES.into_iter().zip(self.geometry()).zip(spec.geometry);
        match words.into_iter().find(|((_, found), expected)| found != expected) {
            Some(((word, found), expected)) => Err(HeaderError::Geometry { word, found, expected }),
            None => Ok(()),
        }
    }

    /// The pid of the process that last took the file's exclusive lock; zero if none ever did.
    pub fn holder_pid(&self) -> u32 {
        self.holder_pid.load(Ordering::Relaxed)
    }

    /// Notes who holds the lock. Only for messages: the kernel's lock decides.
    pub(super) fn set_holder_pid(&self, pid: u32) {
        self.holder_pid.store(pid, Ordering::Relaxed);
    }
}
