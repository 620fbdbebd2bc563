//! What is left of a timeout, in two bytes.

/// What is left of a timeout: `mantissa << exponent` milliseconds, the exponent in the upper 5 bits, the mantissa in the
/// lower 11.
///
/// Exact up to 2047 ms. Above, the value is rounded up by less than a thousandth: a peer never forgets a session before its
/// owner does. A `u32` of any value has an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining(u16);

const MANTISSA_BITS: u32 = 11;
const MANTISSA_MAX: u32 = (1 << MANTISSA_BITS) - 1;

impl Remaining {
    /// The shortest time that can be written and is not shorter than this. At most `u32::MAX` when read back.
    #[inline]
    pub const fn round_up(milliseconds: u32) -> Remaining {
        let exponent = (u32::BITS - milliseconds.leading_zeros()).saturating_sub(MANTISSA_BITS);
        let lost = milliseconds & ((1 << exponent) - 1);
        let mantissa = (milliseconds >> exponent) + (lost != 0) as u32;
        // Rounding up may carry into a twelfth bit.
        let carry = mantissa >> MANTISSA_BITS;
        Remaining(((exponent + carry) << MANTISSA_BITS | mantissa >> carry) as u16)
    }

    /// Milliseconds; what does not fit counts as `u32::MAX`.
    #[inline]
    pub const fn milliseconds(self) -> u32 {
        let mantissa = (self.0 as u64) & MANTISSA_MAX as u64;
        let milliseconds = mantissa << (self.0 >> MANTISSA_BITS);
        if milliseconds > u32::MAX as u64 { u32::MAX } else { milliseconds as u32 }
    }

    /// As it stands on the wire.
    #[inline]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// From the wire. Every value means something.
    #[inline]
    pub const fn from_bits(bits: u16) -> Remaining {
        Remaining(bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_times_are_exact() {
        for milliseconds in 0..=MANTISSA_MAX {
            assert_eq!(Remaining::round_up(milliseconds).milliseconds(), milliseconds);
        }
    }

    #[test]
    fn the_longest_times_are_not_cut() {
        for milliseconds in [u32::MAX, u32::MAX - 1, 0xffe0_0000, 0xffdf_ffff] {
            assert!(Remaining::round_up(milliseconds).milliseconds() >= milliseconds);
        }
        assert_eq!(Remaining::from_bits(u16::MAX).milliseconds(), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_time_is_rounded_up_by_less_than_a_thousandth(milliseconds: u32, shift in 0u32..32) {
            let milliseconds = milliseconds >> shift;
            let read = Remaining::round_up(milliseconds).milliseconds();
            prop_assert!(read >= milliseconds);
            prop_assert!(u64::from(read - milliseconds) * 1000 <= u64::from(milliseconds));
        }

        #[test]
        fn what_was_read_is_written_the_same(milliseconds: u32) {
            let written = Remaining::round_up(milliseconds);
            prop_assert_eq!(Remaining::round_up(written.milliseconds()).milliseconds(), written.milliseconds());
        }
    }
}
