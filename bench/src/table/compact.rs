//! Keys and records as one would lay them out beside a hash table that knows nothing of sessions.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use baton_common::flow::{FlowKey, address_words};
use baton_common::session::Session;
use baton_common::shm::index::prefetch_read;
use baton_common::time::Millis;
use memmap2::{MmapMut, MmapOptions};
use zerocopy::{FromBytes, IntoBytes};

/// Words of a key of an IPv4 flow: 16 bytes.
pub const V4_WORDS: usize = 2;

/// Words of a key of an IPv6 flow: 40 bytes.
pub const V6_WORDS: usize = 5;

/// The words of a record that are no keys: last seen, owner and generation, state, last sent.
const FIELD_WORDS: usize = 4;

/// A five-tuple without padding: addresses, ports, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct CompactKey<const WORDS: usize>(pub [u64; WORDS]);

impl<const WORDS: usize> CompactKey<WORDS> {
    /// The key of a flow, which is of the family that `WORDS` stands for.
    #[inline]
    pub fn of(key: &FlowKey) -> Self {
        let ports = u64::from(key.source.port) << 32
            | u64::from(key.destination.port) << 16
            | u64::from(key.protocol as u8);
        let [s0, s1] = address_words(key.source.address);
        let [d0, d1] = address_words(key.destination.address);
        // An IPv4 address is the upper half of the second word.
        let v6 = [s0, s1, d0, d1, ports];
        let v4 = [s1 >> 32 << 32 | d1 >> 32, ports];
        CompactKey(std::array::from_fn(|word| if WORDS == V4_WORDS { v4[word] } else { v6[word] }))
    }
}

impl<const WORDS: usize> Hash for CompactKey<WORDS> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.0 {
            state.write_u64(word);
        }
    }
}

/// A session: both keys, and what changes while it is used.
#[derive(Clone, Copy, Debug)]
pub struct CompactSession<const WORDS: usize> {
    /// The client-side key.
    pub client: CompactKey<WORDS>,
    /// The server-side key.
    pub server: CompactKey<WORDS>,
    fields: [u64; FIELD_WORDS],
}

impl<const WORDS: usize> CompactSession<WORDS> {
    /// The compact form of a session.
    pub fn of(session: &Session) -> Self {
        CompactSession {
            client: CompactKey::of(&session.client_key()),
            server: CompactKey::of(&session.server_key()),
            fields: [
                session.last_seen.0,
                u64::from(session.owner.0) << 32 | u64::from(session.generation.0),
                session.state as u64,
                session.last_sent.0,
            ],
        }
    }
}

/// A cache line of words.
#[derive(FromBytes, IntoBytes)]
#[repr(C, align(64))]
pub struct Line(pub [AtomicU64; 8]);

/// Lines of zeros in hugepages, for as long as the process lives.
///
/// # Errors
/// There are not enough free hugepages.
pub fn hugepage_lines(count: usize) -> Result<&'static [Line]> {
    let bytes = (count * size_of::<Line>()).next_multiple_of(2 << 20);
    let map = MmapOptions::new().len(bytes).huge(Some(21)).populate().map_anon();
    let map = map.with_context(|| format!("cannot map {} MiB of hugepages", bytes >> 20))?;
    let map: &'static mut MmapMut = Box::leak(Box::new(map));
    let lines = <[Line]>::mut_from_bytes(map).ok().context("a mapping is not made of whole lines")?;
    Ok(&lines[..count])
}

/// Records of compact sessions by number: one line each for IPv4, two for IPv6.
#[derive(Clone, Copy)]
pub struct Records<const WORDS: usize> {
    lines: &'static [Line],
}

impl<const WORDS: usize> Records<WORDS> {
    const WORDS_USED: usize = 2 * WORDS + FIELD_WORDS;
    const LINES: usize = Self::WORDS_USED.div_ceil(8);

    /// Bytes of a record.
    pub const BYTES: usize = Self::LINES * size_of::<Line>();

    /// Room for `count` records.
    ///
    /// # Errors
    /// There are not enough free hugepages.
    pub fn new(count: u32) -> Result<Self> {
        Ok(Records { lines: hugepage_lines(count as usize * Self::LINES)? })
    }

    /// Writes a record.
    #[inline]
    pub fn write(&self, number: u32, session: &CompactSession<WORDS>) {
        let words = session.client.0.iter().chain(&session.server.0).chain(&session.fields);
        for (word, value) in words.enumerate() {
            self.word(number, word).store(*value, Ordering::Relaxed);
        }
    }

    /// Notes when the session was last seen.
    #[inline]
    pub fn touch(&self, number: u32, now: Millis) {
        self.word(number, 2 * WORDS).store(now.0, Ordering::Relaxed);
    }

    /// The session's server-side key.
    #[inline]
    pub fn server_key(&self, number: u32) -> CompactKey<WORDS> {
        CompactKey(std::array::from_fn(|word| self.word(number, WORDS + word).load(Ordering::Relaxed)))
    }

    /// All of the record folded into a word.
    #[inline]
    pub fn fold(&self, number: u32) -> u64 {
        (0..Self::WORDS_USED).fold(0, |fold, word| fold ^ self.word(number, word).load(Ordering::Relaxed))
    }

    /// Has a record brought near.
    #[inline]
    pub fn prefetch(&self, number: u32) {
        for line in 0..Self::LINES {
            prefetch_read(&self.lines[number as usize * Self::LINES + line]);
        }
    }

    #[inline]
    fn word(&self, number: u32, word: usize) -> &AtomicU64 {
        &self.lines[number as usize * Self::LINES + word / 8].0[word % 8]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::population::{Family, Population, Side};
    use super::*;

    #[test]
    fn compact_keys_differ_where_keys_do() {
        let v4 = Population { family: Family::V4, sessions: 10_000, seed: 1 };
        let v6 = Population { family: Family::V6, ..v4 };
        let (mut short, mut long) = (HashSet::new(), HashSet::new());
        for number in 0..v4.sessions {
            for side in Side::BOTH {
                assert!(short.insert(CompactKey::<V4_WORDS>::of(&v4.key(number, side))));
                assert!(long.insert(CompactKey::<V6_WORDS>::of(&v6.key(number, side))));
            }
        }
    }

    #[test]
    fn records_are_whole_lines() {
        assert_eq!((Records::<V4_WORDS>::BYTES, Records::<V6_WORDS>::BYTES), (64, 128));
    }
}
