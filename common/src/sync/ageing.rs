//! Ageing of sessions that another node owns: what is left of a timeout, there and here.

use crate::config::Timeouts;
use crate::session::tcp::timeout_ms;
use crate::session::{Session, SessionState};
use crate::time::Millis;

/// What is left of a session's timeout now: what its owner tells the peers. Milliseconds.
#[inline]
pub fn remaining_ms(session: &Session, timeouts: &Timeouts, now: Millis) -> u32 {
    let idle_ms = u32::try_from(now.since(session.last_seen)).unwrap_or(u32::MAX);
    timeout_ms(session.state, timeouts).saturating_sub(idle_ms)
}

/// When a session was last seen, on this machine's clock, if its owner says that so much of the timeout is left.
///
/// An owner with longer timeouts than ours cannot put it in the future, and a machine that booted a moment ago puts it
/// no earlier than its boot.
#[inline]
pub fn last_seen(state: SessionState, remaining_ms: u32, timeouts: &Timeouts, now: Millis) -> Millis {
    let idle_ms = timeout_ms(state, timeouts).saturating_sub(remaining_ms);
    now - u64::from(idle_ms)
}

/// When a remote session is garbage: its owner would have ended it `remote_margin_ms` ago and has said nothing. The deadline
/// that the remote table's sweep goes by; its caller counts `RemoteExpired`.
#[inline]
pub fn remote_deadline(session: &Session, timeouts: &Timeouts) -> Millis {
    session.last_seen + u64::from(timeout_ms(session.state, timeouts)) + u64::from(timeouts.remote_margin_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::fixture::{TIMEOUTS, session_v4};

    #[test]
    fn last_seen_crosses_machines_with_different_clocks() {
        let there = Session { last_seen: Millis(500_000), ..session_v4(1) };

        let left = remaining_ms(&there, &TIMEOUTS, Millis(507_000));
        let here = last_seen(there.state, left, &TIMEOUTS, Millis(9_000_000));

        assert_eq!(here, Millis(9_000_000 - 7_000));
    }

    #[test]
    fn an_owner_with_longer_timeouts_cannot_put_last_seen_in_the_future() {
        assert_eq!(last_seen(SessionState::UdpOneWay, u32::MAX, &TIMEOUTS, Millis(50)), Millis(50));
    }

    #[test]
    fn a_session_idle_for_longer_than_its_timeout_has_nothing_left() {
        let session = Session { last_seen: Millis(0), ..session_v4(1) };
        assert_eq!(remaining_ms(&session, &TIMEOUTS, Millis(u64::MAX)), 0);
    }

    #[test]
    fn a_session_seen_later_than_now_has_its_whole_timeout_left() {
        let session = Session { last_seen: Millis(100), ..session_v4(1) };
        assert_eq!(remaining_ms(&session, &TIMEOUTS, Millis(99)), TIMEOUTS.tcp_established_ms);
    }

    #[test]
    fn a_remote_session_outlives_its_timeout_by_the_margin() {
        let session = Session { last_seen: Millis(1000), ..session_v4(1) };
        let deadline = 1000 + u64::from(TIMEOUTS.tcp_established_ms + TIMEOUTS.remote_margin_ms);

        assert_eq!(remote_deadline(&session, &TIMEOUTS), Millis(deadline));
    }
}
