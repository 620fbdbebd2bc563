//! What a record's "last sent" word says: when the peers were told, what is still to happen before they are, or how long the
//! clients of another node's session have been coming here.
//!
//! ```text
//! own session, not told       0
//! own session, to be told     1 (1) | packets (23) | first seen, ms, lower 40 bits (40)
//! own session, told           when, ms
//! another node's session      first client packet here, ms, lower 32 bits (32) | last one (32); 0 if there was none
//! ```

use crate::config::SyncAfter;
use crate::time::Millis;

const PENDING: u64 = 1 << 63;
const PACKETS_SHIFT: u32 = 40;
const PACKETS_MAX: u64 = (1 << 23) - 1;
const FIRST_SEEN: u64 = (1 << PACKETS_SHIFT) - 1;

/// Whether the peers were told of an own session with this "last sent".
#[inline]
pub const fn is_told(last_sent: Millis) -> bool {
    last_sent.0 != 0 && last_sent.0 < PENDING
}

/// What becomes of an own session that the peers were not told of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It is to be told now.
    Over,
    /// Not yet; this is its "last sent" from now on.
    Lasts(Millis),
}

/// Decides, at a packet, whether a session is old or busy enough to be told.
#[inline]
pub fn wait(last_sent: Millis, now: Millis, after: SyncAfter) -> Patience {
    let (packets, first_seen) = match last_sent.0 & PENDING {
        0 => (0, now.0 & FIRST_SEEN),
        _ => (last_sent.0 >> PACKETS_SHIFT & PACKETS_MAX, last_sent.0 & FIRST_SEEN),
    };
    let packets = (packets + 1).min(PACKETS_MAX);
    let age_ms = (now.0 & FIRST_SEEN).wrapping_sub(first_seen) & FIRST_SEEN;
    let over = match after {
        SyncAfter::Packets(count) => packets >= u64::from(count),
        SyncAfter::AgeMs(age) => age_ms >= u64::from(age),
    };
    if over {
        Patience::Over
    } else {
        Patience::Lasts(Millis(PENDING | packets << PACKETS_SHIFT | first_seen))
    }
}

/// Whether this node is to claim another node's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Now.
    Due,
    /// Not yet; this is its "last sent" from now on.
    HoldOff(Millis),
}

/// Decides, at a client's packet, whether to claim a session whose owner is still a member: once such packets have
/// kept coming for `holdoff_ms`. A pause of more than `pause_ms`, half the session's timeout, begins it anew; so does news
/// from its owner, which sees packets too then.
#[inline]
pub fn claim(last_sent: Millis, now: Millis, holdoff_ms: u32, pause_ms: u32) -> Claim {
    let (first, last) = ((last_sent.0 >> 32) as u32, last_sent.0 as u32);
    // None yet; or a time, of when this node told the peers: its secondary writes the new owner first and this word after it.
    let is_time = last_sent.0 >> 32 <= now.0 >> 32;
    // Zero means that there was none, so the one millisecond in 49 days that would be zero is taken for the next.
    let now = (now.0 as u32).max(1);
    let began = if is_time || now.wrapping_sub(last) > pause_ms.max(holdoff_ms) { now } else { first };
    if holdoff_ms == 0 || now.wrapping_sub(began) >= holdoff_ms {
        return Claim::Due;
    }
    Claim::HoldOff(Millis(u64::from(began) << 32 | u64::from(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets_until_told(after: SyncAfter, spacing_ms: u64) -> u64 {
        let mut last_sent = Millis(0);
        for packet in 1.. {
            match wait(last_sent, Millis(u64::from(u32::MAX) + packet * spacing_ms), after) {
                Patience::Over => return packet,
                Patience::Lasts(next) => last_sent = next,
            }
            assert!(!is_told(last_sent));
        }
        unreachable!()
    }

    #[test]
    fn a_session_is_told_at_its_first_packet_its_nth_or_at_an_age() {
        assert_eq!(packets_until_told(SyncAfter::Packets(1), 10), 1);
        assert_eq!(packets_until_told(SyncAfter::Packets(3), 10), 3);
        assert_eq!(packets_until_told(SyncAfter::AgeMs(0), 10), 1);
        assert_eq!(packets_until_told(SyncAfter::AgeMs(95), 10), 11);
    }

    #[test]
    fn told_is_a_time_and_nothing_else() {
        assert!(!is_told(Millis(0)) && is_told(Millis(1)) && !is_told(Millis(PENDING | 1)));
    }

    fn claimed_at(times: &[u64], holdoff_ms: u32) -> Option<u64> {
        let mut last_sent = Millis(0);
        for time in times {
            match claim(last_sent, Millis(*time), holdoff_ms, 1000) {
                Claim::Due => return Some(*time),
                Claim::HoldOff(next) => last_sent = next,
            }
        }
        None
    }

    #[test]
    fn a_session_is_claimed_once_packets_have_kept_coming() {
        assert_eq!(claimed_at(&[1000, 1200, 1400, 1499, 1500], 500), Some(1500));
        assert_eq!(claimed_at(&[1000], 500), None, "one packet");
        assert_eq!(claimed_at(&[1000, 1501], 500), Some(1501), "a slow client's");
        assert_eq!(claimed_at(&[1000, 2001], 500), None, "and one much later");
        assert_eq!(claimed_at(&[1000, 2001, 2400, 2501], 500), Some(2501));
        assert_eq!(claimed_at(&[1000, 2400, 3000], 1500), Some(3000), "a hold-off longer than the pause");
        assert_eq!(claimed_at(&[1000], 0), Some(1000));
    }

    #[test]
    fn a_time_of_telling_is_no_beginning_of_a_holdoff() {
        for told in [Millis(0), Millis(99_000), Millis(7 << 32 | 99_000), Millis(6 << 32 | 99_000)] {
            let now = Millis((told.0 >> 32).max(7) << 32 | 100_000);
            assert!(matches!(claim(told, now, 500, 60_000), Claim::HoldOff(_)), "{told:?}");
        }
    }

    #[test]
    fn the_clocks_lower_half_may_wrap() {
        let turn = 1u64 << 32;
        assert_eq!(claimed_at(&[turn - 300, turn - 100, turn + 100, turn + 201], 500), Some(turn + 201));
    }
}
