//! The keyed hash of a flow: the same in every process that has the table's key, unpredictable to everyone else.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::FlowKey;

/// The 128-bit key of a table's hash. It lies in the table file's header, drawn at random when the file is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

/// A flow's hash under one [`HashKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

impl HashKey {
    /// Hashes a key with SipHash-1-3 (Aumasson and Bernstein, 2012): clients choose their ports, so an unkeyed or weakly
    /// keyed hash would let them choose their bucket.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> FlowHash {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        for word in key.words() {
            hasher.write_u64(word);
        }
        FlowHash(hasher.finish())
    }
}
