//! The slab: records of one cache line, found by number.

use super::atomic::{AtomicU64, Ordering, fence};
use super::index::prefetch_read;
use super::shared::{Mapped, shared_struct};

/// Words of a record.
pub const RECORD_WORDS: usize = 8;

shared_struct! {
    /// One record: a cache line, only ever read and written word by word.
    #[repr(C, align(64))]
    pub struct Record {
        words: [AtomicU64; RECORD_WORDS],
    }
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);

impl Record {
    /// A copy of all words. Whether they belong together is for the caller to find out.
    #[inline]
    pub fn copy(&self) -> [u64; RECORD_WORDS] {
        std::array::from_fn(|word| self.words[word].load(Ordering::Relaxed))
    }

    /// Writer only: fills a record that stands in no bucket.
    #[inline]
    pub fn write(&self, words: &[u64; RECORD_WORDS]) {
        // SYNC record-reused: pairs with the acquire fences of `Bucket::read` and `SessionTable::read_slot`. A reader without
        // a registration that copies any of these words also sees that the bucket which led it here has changed, or that
        // the record was not in use.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// One word, to be read or written in place.
    #[inline]
    pub fn word(&self, word: usize) -> &AtomicU64 {
        &self.words[word]
    }
}

/// All records of a table.
pub struct Slab {
    records: Mapped<[Record]>,
}

impl Slab {
    /// The slab of these records.
    pub fn new(records: Mapped<[Record]>) -> Slab {
        Slab { records }
    }

    /// Number of records.
    pub fn len(&self) -> u32 {
        self.records.len() as u32
    }

    /// Whether there is no record at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// A record by its number. The number comes out of shared memory: `None` if there is no such record.
    #[inline]
    pub fn record(&self, number: u32) -> Option<&Record> {
        self.records.get(number as usize)
    }

    /// Has a record brought near.
    #[inline]
    pub fn prefetch(&self, number: u32) {
        if let Some(record) = self.record(number) {
            prefetch_read(record);
        }
    }
}
