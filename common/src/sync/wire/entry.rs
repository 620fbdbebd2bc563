//! Dictionary entries: an address with what belongs to it, written as its difference from the entry of the same kind before.
//!
//! Addresses of one kind in one datagram have much in common, and most of their ports are the same. So an entry is one byte
//! that says which groups of its bytes differ, and those groups. This needs no table of prefixes and no order.

/// The bytes of an entry, little-endian in three words; those that its kind does not have are zero.
pub(super) type Entry = [u64; 3];

/// Bytes of an entry that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    word: usize,
    shift: u32,
    bytes: usize,
}

/// The group of `bytes` that begins at byte `at`. It lies within one word.
const fn group(at: usize, bytes: usize) -> Group {
    assert!(at / 8 == (at + bytes - 1) / 8);
    Group { word: at / 8, shift: 8 * (at % 8) as u32, bytes }
}

impl Group {
    const fn mask(self) -> u64 {
        (1 << (8 * self.bytes as u32)) - 1
    }
}

/// The groups of an entry, at most eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Groups(&'static [Group]);

impl Groups {
    /// Of an IPv4 address.
    pub(super) const V4: Groups = Groups(&[group(0, 1), group(1, 1), group(2, 1), group(3, 1)]);

    /// Of an IPv4 address, a port and one byte more.
    pub(super) const V4_ENDPOINT: Groups =
        Groups(&[group(0, 1), group(1, 1), group(2, 1), group(3, 1), group(4, 2), group(6, 1)]);

    /// Of an IPv6 address: two groups of its site, one of its subnet, three of its host.
    pub(super) const V6: Groups =
        Groups(&[group(0, 4), group(4, 2), group(6, 2), group(8, 6), group(14, 1), group(15, 1)]);

    /// Of an IPv6 address, a port and one byte more.
    pub(super) const V6_ENDPOINT: Groups = Groups(&[
        group(0, 4),
        group(4, 2),
        group(6, 2),
        group(8, 6),
        group(14, 1),
        group(15, 1),
        group(16, 2),
        group(18, 1),
    ]);

    /// The longest encoding.
    pub(super) const fn encoded_max(self) -> usize {
        let (mut bytes, mut at) = (1, 0);
        while at < self.0.len() {
            bytes += self.0[at].bytes;
            at += 1;
        }
        bytes
    }

    /// Writes `entry`, as its difference from `previous`, to the beginning of `out`; how many bytes it has. There must be room
    /// for [`Groups::encoded_max`] bytes and a word.
    #[inline(always)]
    pub(super) fn encode(self, previous: &Entry, entry: &Entry, out: &mut [u8]) -> usize {
        let (mut given, mut end) = (0, 1);
        // Which groups differ is as good as random: without branches.
        for (bit, group) in self.0.iter().enumerate() {
            let (old, new) = (previous[group.word] >> group.shift, entry[group.word] >> group.shift);
            let differs = (old ^ new) & group.mask() != 0;
            if let Some(room) = out.get_mut(end..end + size_of::<u64>()) {
                room.copy_from_slice(&new.to_le_bytes());
            }
            given |= u8::from(differs) << bit;
            end += group.bytes * usize::from(differs);
        }
        out[0] = given;
        end
    }

    /// The entry that `encoded` begins with, and what follows it. `None` if it is cut, or says that groups are given which
    /// it does not have.
    #[inline(always)]
    pub(super) fn decode<'a>(self, previous: &Entry, encoded: &'a [u8]) -> Option<(Entry, &'a [u8])> {
        let (given, mut rest) = encoded.split_first()?;
        if u32::from(*given) >> self.0.len() != 0 {
            return None;
        }
        let mut entry = *previous;
        for (bit, group) in self.0.iter().enumerate() {
            if given >> bit & 1 != 0 {
                let (bytes, after) = rest.split_at_checked(group.bytes)?;
                rest = after;
                let value = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                let word = &mut entry[group.word];
                *word = *word & !(group.mask() << group.shift) | value << group.shift;
            }
        }
        Some((entry, rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Groups; 4] = [Groups::V4, Groups::V4_ENDPOINT, Groups::V6, Groups::V6_ENDPOINT];

    fn encoded(groups: Groups, previous: &Entry, entry: &Entry) -> Vec<u8> {
        let mut out = vec![0; groups.encoded_max() + 8];
        let end = groups.encode(previous, entry, &mut out);
        out.truncate(end);
        out
    }

    fn entry_of(groups: Groups, bytes: [u8; 24]) -> Entry {
        let mut padded = [0; 24];
        let length = groups.encoded_max() - 1;
        padded[..length].copy_from_slice(&bytes[..length]);
        std::array::from_fn(|word| u64::from_le_bytes(padded[8 * word..8 * word + 8].try_into().unwrap()))
    }

    #[test]
    fn only_the_groups_that_differ_are_written() {
        let entry = |last: [u8; 7]| {
            let mut bytes = [0; 24];
            bytes[..7].copy_from_slice(&last);
            entry_of(Groups::V4_ENDPOINT, bytes)
        };
        let (first, second) = (entry([10, 3, 0, 7, 0x50, 0, 1]), entry([10, 3, 0, 9, 0x50, 1, 0]));
        let mut out = Vec::new();

        for (previous, entry) in [([0; 3], first), (first, second), (second, second)] {
            out.extend(encoded(Groups::V4_ENDPOINT, &previous, &entry));
        }

        assert_eq!(out, [0b11_1011, 10, 3, 7, 0x50, 0, 1, 0b11_1000, 9, 0x50, 1, 0, 0]);
    }

    #[test]
    fn groups_that_an_entry_does_not_have_are_not_given() {
        for (groups, given) in [(Groups::V4, 0x10), (Groups::V4_ENDPOINT, 0x40), (Groups::V6, 0x80)] {
            assert_eq!(groups.decode(&[0; 3], &[given, 1, 1, 1, 1]), None);
        }
    }

    #[test]
    fn every_byte_is_in_one_group() {
        for (groups, bytes) in ALL.into_iter().zip([4, 7, 16, 19]) {
            let mut at = 0;
            for group in groups.0 {
                assert_eq!((group.word * 8 + group.shift as usize / 8, group.bytes > 0), (at, true));
                at += group.bytes;
            }
            assert_eq!((at, groups.0.len() <= 8), (bytes, true));
        }
    }

    proptest! {
        #[test]
        fn decode_undoes_encode_and_reads_no_further(
            which in 0usize..4,
            old in any::<[u8; 24]>(),
            new in any::<[u8; 24]>(),
            same in any::<[bool; 24]>(),
        ) {
            let groups = ALL[which];
            let new = std::array::from_fn(|at| if same[at] { old[at] } else { new[at] });
            let (previous, entry) = (entry_of(groups, old), entry_of(groups, new));
            let mut out = encoded(groups, &previous, &entry);
            prop_assert!(out.len() <= groups.encoded_max());
            for cut in 0..out.len() {
                prop_assert_eq!(groups.decode(&previous, &out[..cut]), None);
            }
            out.push(0xaa);
            prop_assert_eq!(groups.decode(&previous, &out), Some((entry, &[0xaa][..])));
        }
    }
}
