//! Tombstones: sessions that have ended a short while ago, so that late news of them resurrects nothing.

use zerocopy::FromZeros;

use crate::id::Generation;
use crate::shm::index::prefetch_read;
use crate::time::Millis;

/// Tombstones that share a bucket.
const WAYS: usize = 4;

/// What is left of a session: 24 bytes.
#[derive(Clone, Copy, Debug, FromZeros)]
struct Tombstone {
    /// The key's hash; a key that shares it is told apart from this one for as long as the tombstone lasts, by nobody.
    key_hash: u64,
    /// Until when it counts; zero if the place is free.
    until: Millis,
    generation: u32,
}

/// A fixed number of tombstones. When their bucket is full, the one that would go first goes: the digests then find what
/// late news resurrected.
pub struct Tombstones {
    places: Vec<[Tombstone; WAYS]>,
    evicted: u64,
    /// When the last of them ends to count.
    last_until: Millis,
}

impl Tombstones {
    /// Room for at least this many.
    pub fn new(capacity: u32) -> Tombstones {
        let buckets = (capacity as usize).div_ceil(WAYS).next_power_of_two();
        // Zeros of the kernel's: nobody waits for megabytes to be written while a secondary takes its part.
        let places = <[Tombstone; WAYS]>::new_vec_zeroed(buckets);
        let places = places.unwrap_or_else(|_| vec![FromZeros::new_zeroed(); buckets]);
        Tombstones { places, evicted: 0, last_until: Millis(0) }
    }

    fn bucket(&self, key_hash: u64) -> usize {
        key_hash as usize & (self.places.len() - 1)
    }

    /// Notes that the session under this key has ended with this generation, for `keeps_ms` and as long again. Returns whether
    /// another one had to go.
    ///
    /// A later end with a lower generation, of a session that was opened by who did not know of the earlier one, does not make that
    /// one last longer.
    pub fn add(&mut self, key_hash: u64, generation: Generation, keeps_ms: u32, now: Millis) -> bool {
        let until = now + 2 * u64::from(keeps_ms);
        self.last_until = self.last_until.max(until);
        let bucket = self.bucket(key_hash);
        let bucket = &mut self.places[bucket];
        if let Some(known) = bucket.iter_mut().find(|one| one.key_hash == key_hash && one.until > now) {
            if generation.0 >= known.generation || known.until <= now + u64::from(keeps_ms) {
                (known.generation, known.until) = (generation.0, until);
            }
            return false;
        }
        let Some(first_to_go) = bucket.iter_mut().min_by_key(|one| one.until) else { return false };
        let evicts = first_to_go.until > now;
        *first_to_go = Tombstone { key_hash, until, generation: generation.0 };
        self.evicted += u64::from(evicts);
        evicts
    }

    /// Has what [`Tombstones::generation`] looks at brought near.
    #[inline]
    pub fn prefetch(&self, key_hash: u64, now: Millis) {
        if self.last_until <= now {
            return;
        }
        let bucket = &self.places[self.bucket(key_hash)];
        prefetch_read(&bucket[0]);
        prefetch_read(&bucket[WAYS - 1]);
    }

    /// The highest generation with which a session under this key has ended.
    #[inline]
    pub fn generation(&self, key_hash: u64, now: Millis) -> Option<Generation> {
        if self.last_until <= now {
            return None;
        }
        let bucket = &self.places[self.bucket(key_hash)];
        let found = bucket.iter().find(|one| one.key_hash == key_hash && one.until > now);
        found.map(|tombstone| Generation(tombstone.generation))
    }

    /// Tombstones that had to go before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(100);

    #[test]
    fn a_tombstone_counts_until_its_time_and_keeps_the_highest_generation() {
        let mut tombstones = Tombstones::new(64);
        tombstones.add(7, Generation(3), 100, NOW);
        tombstones.add(7, Generation(2), 100, Millis(150));
        assert_eq!(tombstones.generation(7, NOW), Some(Generation(3)));
        assert_eq!(tombstones.generation(7, Millis(299)), Some(Generation(3)));
        assert_eq!(tombstones.generation(7, Millis(300)), None);
        assert_eq!(tombstones.generation(8, NOW), None);
    }

    #[test]
    fn an_old_tombstone_is_not_prolonged_by_the_end_of_a_session_that_did_not_know_it() {
        let mut tombstones = Tombstones::new(64);
        tombstones.add(7, Generation(3), 100, NOW);
        tombstones.add(7, Generation(1), 100, Millis(210));
        assert_eq!(tombstones.generation(7, Millis(399)), Some(Generation(1)));
    }

    #[test]
    fn a_full_store_lets_the_one_go_that_would_go_first() {
        let mut tombstones = Tombstones::new(4);
        for key in 0..4 {
            assert!(!tombstones.add(key, Generation(1), 50 + key as u32, NOW));
        }
        assert!(tombstones.add(9, Generation(1), 200, NOW));
        assert_eq!(tombstones.generation(0, NOW), None);
        assert!((1..4).chain([9]).all(|key| tombstones.generation(key, NOW).is_some()));
        assert_eq!(tombstones.evicted(), 1);
    }

    #[test]
    fn an_expired_place_is_taken_without_loss() {
        let mut tombstones = Tombstones::new(4);
        for key in 0..4 {
            tombstones.add(key, Generation(1), 50, NOW);
        }
        assert!(!tombstones.add(9, Generation(1), 200, Millis(201)));
        assert_eq!(tombstones.evicted(), 0);
    }
}
