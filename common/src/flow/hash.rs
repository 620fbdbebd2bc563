//! The keyed hash of a flow: the same in every process that has the table's key, unpredictable to everyone else.
//!
//! Clients choose their addresses and ports, so whoever could tell where a key stands could fill one bucket. Three steps,
//! for a key's words w0 to w4 and secret words k (64 bits) and a, b, c (128 bits):
//!
//! ```text
//! sum  = (w0 + k0)·(w1 + k1) + (w2 + k2)·(w3 + k3) + (w4 + k4)·k5      NH: 128 bits, sums in brackets modulo 2^64
//! word = (a·low(sum) + b·high(sum) + c) mod 2^128 >> 64                multilinear: 64 bits
//! hash = mix(word)                                                     a fixed bijection
//! ```
//!
//! Two different keys, however they were chosen, have the same NH sum with probability at most 2^-64 over the choice of k
//! (Black and others, UMAC, 1999); two different sums give words that are uniform and independent over the choice of a, b
//! and c (Dietzfelbinger, 1996; Lemire and Kaser, 2014); and a bijection keeps that. So any two keys share a bucket, or a
//! bucket and a tag, as often as two random numbers do. The mixer is for more than two: without it the words of
//! a client's ports would be an arithmetic progression. ARCHITECTURE.md has the alternatives and their figures.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::FlowKey;

/// The 128-bit key of a table's hash. It lies in the table file's header, drawn at random when the file is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

/// A flow's hash under one [`HashKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

impl HashKey {
    /// Hashes one key. Who hashes more than a few keeps a [`FlowHasher`].
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.hasher().hash(key)
    }

    /// The hasher with this key.
    pub fn hasher(&self) -> FlowHasher {
        FlowHasher::new(*self)
    }
}

/// A [`HashKey`] made ready for use: its secrets, in two cache lines.
#[derive(Clone)]
#[repr(align(64))]
pub struct FlowHasher {
    nh: [u64; 6],
    linear: [u128; 2],
    constant: u128,
}

impl FlowHasher {
    /// Draws the secrets from the key: SipHash-2-4 of 0, 1, 2, …
    pub fn new(key: HashKey) -> FlowHasher {
        let mut number = 0_u64;
        let mut next = || {
            let mut sip = SipHasher24::new_with_keys(key.0[0], key.0[1]);
            sip.write(&number.to_le_bytes());
            number += 1;
            sip.finish()
        };
        let nh = std::array::from_fn(|_| next());
        let mut wide = || u128::from(next()) << 64 | u128::from(next());
        FlowHasher { nh, linear: [wide(), wide()], constant: wide() }
    }

    /// Hashes a key.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        self.hash_words(&key.words())
    }

    /// Hashes a key that is given as its [`FlowKey::words`].
    #[inline]
    pub fn hash_words(&self, words: &[u64; 5]) -> FlowHash {
        let [w0, w1, w2, w3, w4] = *words;
        let [k0, k1, k2, k3, k4, k5] = self.nh;
        let sum = product(w0.wrapping_add(k0), w1.wrapping_add(k1))
            .wrapping_add(product(w2.wrapping_add(k2), w3.wrapping_add(k3)))
            .wrapping_add(product(w4.wrapping_add(k4), k5));
        let [a, b] = self.linear;
        let (low, high) = (u128::from(sum as u64), sum >> 64);
        let word = a.wrapping_mul(low).wrapping_add(b.wrapping_mul(high)).wrapping_add(self.constant) >> 64;
        FlowHash(mix(word as u64))
    }
}

#[inline]
fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// A bijection that breaks up what is regular: the middle of MurmurHash3's finaliser, with a multiplier of Stafford's.
#[inline]
fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 32
}

#[cfg(test)]
mod tests;
