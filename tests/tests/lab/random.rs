//! Random numbers for tests.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Random numbers (splitmix64); the seed is printed.
pub struct Random(u64);

impl Random {
    /// From a seed that is printed.
    pub fn seeded() -> Random {
        let seed = RandomState::new().build_hasher().finish();
        println!("seed {seed:#x}");
        Random(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
