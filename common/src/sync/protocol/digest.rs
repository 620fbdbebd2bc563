//! Digests: a set of sessions in twelve bytes, kept up to date one session at a time.

use std::ops::{Add, Sub};

use crate::flow::FlowKey;
use crate::id::Generation;
use crate::session::Session;
use crate::sync::wire::RangeId;

/// Ranges that the key space is divided into, on every member of a cluster. A power of two.
pub const RANGES: u16 = 4096;

/// The largest number of ranges that [`word_of`] can tell apart.
pub const RANGES_MAX: u16 = 1 << RANGE_BITS_MAX;

const RANGE_BITS_MAX: u32 = 12;

/// What a session adds to its owner's digest: its range in the upper 12 bits, a hash of what makes it the session that it is
/// in the lower 52. Never zero. Equal on all machines.
///
/// The client-side key alone decides about the range. Into the rest go all four endpoints and the generation; neither state
/// nor age, which the workers of every node move on in place: the change stream tells them, and refreshes.
#[inline]
pub fn word_of(session: &Session) -> u64 {
    let (client, server) = (session.client_key().words(), session.server_key().words());
    word_with(hash_of(&client), session.generation, &client, &server)
}

/// [`word_of`] the session with these keys ([`FlowKey::words`]), for who has [`hash_of`] the client-side one.
#[inline(always)]
pub(super) fn word_with(key_hash: u64, generation: Generation, client: &[u64; 5], server: &[u64; 5]) -> u64 {
    let range = key_hash >> (64 - RANGE_BITS_MAX);
    let mut mix = absorb(u64::from(generation.0), source(client));
    for endpoint in [destination(client), destination(server), source(server)] {
        mix = absorb(mix, endpoint);
    }
    let mix = fold(mix ^ protocol(client), SECRETS[2]);
    range << (64 - RANGE_BITS_MAX) | (mix >> RANGE_BITS_MAX).max(1)
}

/// A key's hash, equal on all machines; tombstones and queries are found by it, and its upper bits are the range.
#[inline]
pub fn key_hash(key: &FlowKey) -> u64 {
    hash_of(&key.words())
}

/// [`key_hash`] of the key with these [`FlowKey::words`].
#[inline(always)]
pub(super) fn hash_of(key: &[u64; 5]) -> u64 {
    let mix = absorb(absorb(protocol(key), source(key)), destination(key));
    fold(mix, SECRETS[3])
}

/// The address and the port that a key's words begin with.
#[inline(always)]
fn source(key: &[u64; 5]) -> [u64; 3] {
    [key[0], key[1], key[4] >> 32]
}

#[inline(always)]
fn destination(key: &[u64; 5]) -> [u64; 3] {
    [key[2], key[3], key[4] >> 16 & 0xffff]
}

#[inline(always)]
fn protocol(key: &[u64; 5]) -> u64 {
    key[4] & 0xffff
}

/// The range of a [`word_of`] when there are `ranges`, a power of two up to [`RANGES_MAX`].
#[inline]
pub fn range_of(word: u64, ranges: u16) -> RangeId {
    RangeId((word >> (64 - ranges.trailing_zeros()).min(63)) as u16 & (ranges - 1))
}

/// Odd constants with no pattern (the fractional parts of square roots), as in other multiply-and-fold hashes.
const SECRETS: [u64; 4] =
    [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

/// The 128-bit product's halves, folded: every bit of the result depends on every bit of both.
#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one ^ SECRETS[0]) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
fn absorb(mix: u64, [high, low, port]: [u64; 3]) -> u64 {
    // As big-endian numbers: the same on every machine.
    let mix = fold(mix ^ high.to_be(), SECRETS[1] ^ low.to_be());
    fold(mix ^ port, SECRETS[2])
}

/// A set of sessions, in short. Two sets with the same digest are the same set but for one chance in 2^52.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Sessions in the set.
    pub sessions: u32,
    /// The sum of their words.
    pub sum: u64,
}

impl Add<u64> for Digest {
    type Output = Digest;

    /// With the session that has this word.
    #[inline]
    fn add(self, word: u64) -> Digest {
        Digest { sessions: self.sessions.wrapping_add(1), sum: self.sum.wrapping_add(word) }
    }
}

impl Sub<u64> for Digest {
    type Output = Digest;

    /// Without the session that has this word.
    #[inline]
    fn sub(self, word: u64) -> Digest {
        Digest { sessions: self.sessions.wrapping_sub(1), sum: self.sum.wrapping_sub(word) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, NodeId};
    use crate::session::SessionState;
    use crate::sync::fixture::{session_v4, session_v6};
    use crate::time::Millis;

    #[test]
    fn a_word_depends_on_endpoints_and_generation_and_on_nothing_that_changes_in_place() {
        let session = session_v4(1);
        let volatile = Session {
            state: SessionState::TcpFinFromClient,
            last_seen: Millis(77),
            last_sent: Millis(78),
            owner: NodeId(9),
            ..session
        };
        assert_eq!(word_of(&volatile), word_of(&session));
        let mut others = vec![Session { generation: Generation(session.generation.0 + 1), ..session }];
        for change in [
            |session: &mut Session| session.client.port ^= 1,
            |session: &mut Session| session.vip.port ^= 1,
            |session: &mut Session| session.local.port ^= 1,
            |session: &mut Session| session.server.port ^= 1,
            |session: &mut Session| session.local.address.0[15] ^= 1,
        ] {
            let mut other = session;
            change(&mut other);
            others.push(other);
        }
        for other in others {
            assert_ne!(word_of(&other), word_of(&session), "{other:?}");
        }
    }

    #[test]
    fn words_are_the_same_on_every_machine() {
        assert_eq!(word_of(&session_v4(1)), word_of(&session_v4(1)));
        assert_ne!(word_of(&session_v4(1)), word_of(&session_v6(1)));
    }

    #[test]
    fn sessions_spread_over_all_ranges() {
        let mut counts = vec![0u32; usize::from(RANGES)];
        for number in 0..100 * u32::from(RANGES) {
            let mut session = session_v4(1);
            session.client.port = number as u16;
            session.client.address.0[13] = (number >> 16) as u8;
            counts[usize::from(range_of(word_of(&session), RANGES).0)] += 1;
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*least > 50 && *most < 160, "{least} to {most} in a range, 100 on average");
    }

    #[test]
    fn the_range_is_the_client_keys_alone() {
        let session = session_v4(1);
        let mut moved = session;
        moved.local.port ^= 77;
        assert_eq!(range_of(word_of(&session), RANGES), range_of(word_of(&moved), RANGES));
        assert_eq!(range_of(word_of(&session), 1), RangeId(0));
    }

    #[test]
    fn what_is_added_and_taken_away_leaves_nothing() {
        let words: Vec<u64> = (1..50).map(|number| word_of(&session_v4(number))).collect();
        let full = words.iter().fold(Digest::default(), |digest, word| digest + *word);
        assert_eq!(full.sessions, 49);
        let empty = words.iter().rev().fold(full, |digest, word| digest - *word);
        assert_eq!(empty, Digest::default());
    }
}
