//! A table's shape: how many sessions, and what follows from that.

use std::sync::Arc;

use super::{ADDRESSES_OFFSET, TableError};
use crate::session::addresses::{ADDRESSES_MAX, AddressSlot};
use crate::shm::bucket::Bucket;
use crate::shm::header::{FileKind, FileSpec, HeaderError};
use crate::shm::index::BUCKETS_MAX;
use crate::shm::region::{Region, RegionError};
use crate::shm::slab::Record;

/// Sessions for each bucket: two entries each, so six of a bucket's ten slots are taken when the table is full. At that
/// load 19 of 20 keys stand in their first bucket.
const SESSIONS_PER_BUCKET: u64 = 3;

/// Fewest buckets: in a handful, chance could fill one.
const BUCKETS_MIN: u64 = 16;

/// Fewest slots for shared addresses.
const ADDRESSES_MIN: u64 = 256;

/// Most sessions of a table.
pub const SESSIONS_MAX: u32 = (BUCKETS_MAX * SESSIONS_PER_BUCKET) as u32;

/// How big a table and its parts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableShape {
    capacity: u32,
}

impl TableShape {
    /// The shape of a table for `capacity` sessions.
    ///
    /// # Errors
    /// There can be no such table.
    pub fn for_capacity(capacity: u32) -> Result<TableShape, TableError> {
        if !(1..=SESSIONS_MAX).contains(&capacity) {
            return Err(TableError::Capacity { asked: u64::from(capacity) });
        }
        Ok(TableShape { capacity })
    }

    /// The shape of an existing table, from its header.
    pub(super) fn of(region: &Arc<Region>) -> Result<TableShape, TableError> {
        let [capacity, buckets, addresses, _] = region.header().geometry();
        let shape = u32::try_from(capacity).ok().and_then(|capacity| TableShape::for_capacity(capacity).ok());
        let shape = shape.ok_or(TableError::Capacity { asked: capacity })?;
        let wrong = |word, found, expected| {
            let mismatch = HeaderError::Geometry { word, found, expected };
            Err(RegionError::Header { path: region.path().to_owned(), mismatch }.into())
        };
        if buckets != shape.buckets() {
            return wrong("number of buckets", buckets, shape.buckets());
        }
        if addresses != shape.addresses() {
            return wrong("number of shared addresses", addresses, shape.addresses());
        }
        if region.bytes() < shape.file_bytes() {
            return wrong("file size", region.bytes(), shape.file_bytes());
        }
        Ok(shape)
    }

    /// Sessions that the table has room for.
    pub fn capacity(self) -> u32 {
        self.capacity
    }

    /// Buckets of its index.
    pub fn buckets(self) -> u64 {
        u64::from(self.capacity).div_ceil(SESSIONS_PER_BUCKET).max(BUCKETS_MIN)
    }

    /// Slots for the addresses that its sessions share: enough for a small table's sessions to share none, then
    /// [`ADDRESSES_MAX`]. A power of two.
    pub fn addresses(self) -> u64 {
        (4 * u64::from(self.capacity)).next_power_of_two().clamp(ADDRESSES_MIN, ADDRESSES_MAX)
    }

    /// Where its buckets begin in the file.
    pub(super) fn buckets_offset(self) -> u64 {
        ADDRESSES_OFFSET + self.addresses() * size_of::<AddressSlot>() as u64
    }

    /// Where its records begin in the file.
    pub(super) fn slab_offset(self) -> u64 {
        const { assert!(size_of::<Bucket>().is_multiple_of(align_of::<Record>())) };
        self.buckets_offset() + self.buckets() * size_of::<Bucket>() as u64
    }

    /// Bytes of its file, before rounding to pages.
    pub fn file_bytes(self) -> u64 {
        self.slab_offset() + u64::from(self.capacity) * size_of::<Record>() as u64
    }

    /// What its file is to be.
    pub fn spec(self, kind: FileKind) -> FileSpec {
        FileSpec {
            kind,
            geometry: [u64::from(self.capacity), self.buckets(), self.addresses(), 0],
            bytes: self.file_bytes(),
        }
    }
}
