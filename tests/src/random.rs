//! A small random sequence with a seed (splitmix64), for decisions that must be repeatable.

/// The sequence.
pub struct Random(u64);

impl Random {
    /// The sequence that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, all 64 bits random.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: f64) -> bool {
        const STEPS: u64 = 1_000_000;
        ((self.next() % STEPS) as f64) < percent / 100.0 * STEPS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_never_and_a_hundred_is_always() {
        let mut random = Random::new(7);
        assert!((0..1000).all(|_| !random.chance(0.0)));
        assert!((0..1000).all(|_| random.chance(100.0)));
    }

    #[test]
    fn a_share_is_about_met() {
        let mut random = Random::new(7);
        let hits = (0..10_000).filter(|_| random.chance(30.0)).count();
        assert!((2700..3300).contains(&hits), "{hits}");
    }
}
