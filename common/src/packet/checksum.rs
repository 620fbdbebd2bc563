//! The internet checksum: computed in full (RFC 1071) or carried over a change (RFC 1624).

use super::Family;
use crate::flow::Address;

/// A ones' complement sum in the making (RFC 1071): 16-bit big-endian words, not folded yet.
///
/// The accumulator takes 2^32 words of 32 bits before it could overflow, more than any packet has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    pub const fn new() -> Sum {
        Sum(0)
    }

    /// Adds bytes that start at an even offset of the summed data; an odd last byte is padded with a zero byte.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        Sum(sum + u64::from(u32::from_be_bytes(last)))
    }

    /// Adds a 16-bit word.
    #[inline]
    pub const fn word(self, word: u16) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// Adds an address, 4 or 16 bytes long as its family says.
    #[inline]
    pub fn address(self, address: Address, family: Family) -> Sum {
        match family {
            Family::V4 => self.bytes(&address.0[12..]),
            Family::V6 => self.bytes(&address.0),
        }
    }

    /// Adds the pseudo header of TCP and UDP: RFC 9293, section 3.1 (IPv4), RFC 8200, section 8.1 (IPv6). Both add up to
    /// the addresses, the protocol and the transport length, zero bytes aside.
    #[inline]
    pub fn pseudo_header(
        self,
        family: Family,
        source: Address,
        destination: Address,
        protocol: u8,
        length: u32,
    ) -> Sum {
        let sum = self.address(source, family).address(destination, family);
        Sum(sum.0 + u64::from(length) + u64::from(protocol))
    }

    /// The checksum: the complement of the folded sum. Over data that includes a right checksum it is zero.
    #[inline]
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// What a checksum has to follow: the words that leave the data and the words that replace them.
///
/// RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), which unlike RFC 1141's never turns a right checksum into the other
/// zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change(u64);

impl Change {
    /// No change.
    pub const fn new() -> Change {
        Change(0)
    }

    /// A 16-bit word at an even offset changes.
    #[inline]
    pub const fn word(self, old: u16, new: u16) -> Change {
        Change(self.0 + !old as u64 + new as u64)
    }

    /// A 32-bit word at an even offset changes: two 16-bit words at once.
    #[inline]
    pub const fn double_word(self, old: [u8; 4], new: [u8; 4]) -> Change {
        Change(self.0 + !u32::from_be_bytes(old) as u64 + u32::from_be_bytes(new) as u64)
    }

    /// Sixteen bytes at an even offset change.
    #[inline]
    pub fn quad_double_word(self, old: [u8; 16], new: [u8; 16]) -> Change {
        let (old, _) = old.as_chunks::<4>();
        let (new, _) = new.as_chunks::<4>();
        old.iter().zip(new).fold(self, |change, (old, new)| change.double_word(*old, *new))
    }

    /// The checksum after the change.
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + !checksum as u64)
    }

    /// The UDP checksum after the change (RFC 768): zero means that there is none and stays, a sum that comes out as
    /// zero is sent as its other form, all ones.
    #[inline]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        nonzero(self.apply(checksum))
    }
}

/// A computed UDP checksum as it is sent: zero is sent as all ones (RFC 768).
#[inline]
pub const fn nonzero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Folds a sum to 16 bits with end-around carry.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::cases;

    /// The checksum as RFC 1071, section 4.1 computes it, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn sum_agrees_with_the_example_of_rfc_1071() {
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn change_agrees_with_the_example_of_rfc_1624() {
        assert_eq!(Change::new().word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn fold_of_the_largest_sum_carries_to_the_end() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
        assert_eq!(fold(0), 0);
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        assert_eq!(Change::new().word(1, 2).apply_udp(0), 0);
    }

    #[test]
    fn udp_checksum_that_comes_out_as_zero_is_sent_as_ones() {
        assert_eq!(Change::new().word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    proptest! {
        #![proptest_config(cases(512))]

        #[test]
        fn sum_of_any_bytes_is_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
            prop_assert_eq!(Sum::new().bytes(&bytes).checksum(), reference(&bytes));
        }

        #[test]
        fn change_is_what_computing_again_gives(
            before in proptest::collection::vec(any::<u8>(), 40..80),
            address in any::<[u8; 16]>(),
            short in any::<[u8; 4]>(),
            word in any::<u16>(),
        ) {
            let mut before = before;
            before[39] |= 1; // a sum of nothing but zeros has another form of zero
            let mut after = before.clone();
            after[2..18].copy_from_slice(&address);
            after[20..24].copy_from_slice(&short);
            after[26..28].copy_from_slice(&word.to_be_bytes());
            let change = Change::new()
                .quad_double_word(before[2..18].try_into().unwrap(), address)
                .double_word(before[20..24].try_into().unwrap(), short)
                .word(u16::from_be_bytes([before[26], before[27]]), word);
            prop_assert_eq!(change.apply(reference(&before)), reference(&after));
        }
    }
}
