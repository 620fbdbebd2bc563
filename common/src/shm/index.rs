//! The index: two buckets for every key, of which it stands in one.
//!
//! A key stands in its first bucket if there was room, else in its second; the first then counts it as a stray. So most
//! lookups, also those that find nothing, look at one cache line. An entry is only ever moved from its first bucket to its
//! second, and stands in both for a moment: a reader that looks in that order cannot miss it.

use super::bucket::{Bucket, Found, Glance, STRAYS_MAX};
use super::shared::Mapped;

/// Most buckets of an index: up to here a hash's two places and its tag share no bits.
pub const BUCKETS_MAX: u64 = 1 << 24;

/// Where a key may stand: either of two buckets, under a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// The two buckets, never the same.
    pub buckets: [u32; 2],
    /// The tag, never zero.
    pub tag: u16,
}

/// A slot of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: u32,
    /// The slot in it.
    pub slot: usize,
}

/// All buckets of a table.
pub struct Index {
    buckets: Mapped<[Bucket]>,
}

impl Index {
    /// The index over these buckets, at least two and at most [`BUCKETS_MAX`].
    pub fn new(buckets: Mapped<[Bucket]>) -> Index {
        Index { buckets }
    }

    /// Number of buckets.
    pub fn len(&self) -> u32 {
        self.buckets.len() as u32
    }

    /// Whether there is no bucket at all.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// A bucket by its number, which must be below [`Index::len`].
    #[inline]
    pub fn bucket(&self, number: u32) -> &Bucket {
        &self.buckets[number as usize]
    }

    /// Where the key with this hash may stand. Each half of the hash chooses a bucket with its upper bits; the lower bits
    /// of both make the tag.
    #[inline]
    pub fn candidates(&self, hash: u64) -> Candidates {
        let count = self.buckets.len() as u64;
        let choose = |half: u32| ((u64::from(half) * count) >> 32) as u32;
        let (low, high) = (hash as u32, (hash >> 32) as u32);
        let first = choose(low);
        let mut second = choose(high);
        if second == first {
            second = if first + 1 == count as u32 { 0 } else { first + 1 };
        }
        let tag = (low & 0xff) as u16 | ((high & 0xff) << 8) as u16;
        Candidates { buckets: [first, second], tag: tag.max(1) }
    }

    /// Has the key's first bucket brought near, for a lookup soon.
    #[inline]
    pub fn prefetch(&self, candidates: &Candidates) {
        prefetch_read(self.bucket(candidates.buckets[0]));
    }

    /// What one look at the key's first bucket tells; has the second brought near if that may be needed.
    #[inline]
    pub fn glance(&self, candidates: &Candidates) -> Glance {
        let glance = self.bucket(candidates.buckets[0]).glance(candidates.tag);
        if glance == Glance::Unknown {
            prefetch_read(self.bucket(candidates.buckets[1]));
        }
        glance
    }

    /// Reads the key's buckets, the second one only if the first has strays, as [`Bucket::read`] does.
    #[inline]
    pub fn read<T>(
        &self,
        candidates: &Candidates,
        records_stay: bool,
        mut examine: impl FnMut(u32) -> Option<T>,
    ) -> Found<T> {
        let look = self.bucket(candidates.buckets[0]).read(candidates.tag, records_stay, &mut examine);
        match look.found {
            Found::Here(value) => Found::Here(value),
            Found::Absent if !look.has_strays => Found::Absent,
            in_first => {
                let contended = matches!(in_first, Found::Contended);
                self.read_second(candidates, records_stay, examine, contended)
            }
        }
    }

    /// What few lookups need is kept out of the way of the others.
    #[cold]
    #[inline(never)]
    fn read_second<T>(
        &self,
        candidates: &Candidates,
        records_stay: bool,
        examine: impl FnMut(u32) -> Option<T>,
        contended_in_first: bool,
    ) -> Found<T> {
        match self.bucket(candidates.buckets[1]).read(candidates.tag, records_stay, examine).found {
            Found::Absent if contended_in_first => Found::Contended,
            found => found,
        }
    }

    /// Writer only: lets the key's buckets point to a whole record. `false` if neither has room; nothing has changed then.
    #[inline]
    pub fn put(&self, candidates: &Candidates, record: u32) -> bool {
        let [first, second] = candidates.buckets;
        if let Some(slot) = self.bucket(first).empty_slot() {
            self.bucket(first).put(slot, candidates.tag, record);
            return true;
        }
        let Some(slot) = self.bucket(second).empty_slot() else { return false };
        self.add_stray(first);
        self.bucket(second).put(slot, candidates.tag, record);
        true
    }

    /// Writer only: moves a key's entry at `from`, in the first bucket of the two, to its second. `false` if there is no room.
    pub fn move_to_second(&self, from: Place, candidates: &Candidates, record: u32) -> bool {
        let Some(slot) = self.bucket(candidates.buckets[1]).empty_slot() else { return false };
        self.add_stray(candidates.buckets[0]);
        self.bucket(candidates.buckets[1]).put(slot, candidates.tag, record);
        self.clear_at(from);
        true
    }

    /// Writer only: takes a key's entry for `record` out; `false` if there is none.
    #[inline]
    pub fn remove(&self, candidates: &Candidates, record: u32) -> bool {
        let Some(place) = self.place_of(candidates, record) else { return false };
        self.clear_at(place);
        if place.bucket == candidates.buckets[1] {
            self.forget_stray(candidates.buckets[0]);
        }
        true
    }

    /// Writer only: where a key's entry for `record` stands.
    #[inline]
    pub fn place_of(&self, candidates: &Candidates, record: u32) -> Option<Place> {
        candidates.buckets.into_iter().find_map(|bucket| {
            let mut records = self.bucket(bucket).records_with(candidates.tag);
            records.find(|(_, found)| *found == record).map(|(slot, _)| Place { bucket, slot })
        })
    }

    /// Writer only: empties a place, and leaves the strays of its key's first bucket as they are.
    #[inline]
    pub fn clear_at(&self, place: Place) {
        self.bucket(place.bucket).clear(place.slot);
    }

    /// Before the stray is there: a reader that looks at the first bucket from now on looks at the second too.
    fn add_stray(&self, bucket: u32) {
        let bucket = self.bucket(bucket);
        bucket.set_strays(bucket.strays().saturating_add(1));
    }

    /// After the stray is gone.
    fn forget_stray(&self, bucket: u32) {
        let bucket = self.bucket(bucket);
        let strays = bucket.strays();
        if strays != STRAYS_MAX {
            bucket.set_strays(strays.saturating_sub(1));
        }
    }
}

/// Has the cache line of a value brought near.
#[inline]
pub fn prefetch_read<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86_64, and a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
