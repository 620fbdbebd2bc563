//! What a packet does to the state of its session, and how long a state may be idle.
//!
//! TCP states follow the flags alone, without sequence numbers: the balancer sees every packet of both directions of a
//! session that it started, and only some of one that it took over.

use super::{Direction, SessionState};
use crate::config::Timeouts;
use crate::flow::Protocol;
use crate::packet::TcpFlags;

/// The state of a session whose first packet has just come from the client.
#[inline]
pub const fn initial_state(protocol: Protocol) -> SessionState {
    match protocol {
        Protocol::Tcp => SessionState::TcpSynReceived,
        Protocol::Udp => SessionState::UdpOneWay,
    }
}

/// The state after a packet. It is never an earlier one: a packet that does not belong to the state changes nothing.
///
/// `flags` are those of a TCP packet; they mean nothing to a UDP state.
///
/// Before the handshake is done only the packets that take part in it count, so nobody who cannot make a server answer
/// can make a session look established.
#[inline]
pub const fn next_state(state: SessionState, direction: Direction, flags: TcpFlags) -> SessionState {
    use Direction::*;
    use SessionState::*;
    let syn = flags.contains(TcpFlags::SYN);
    let ack = flags.contains(TcpFlags::ACK);
    let fin = flags.contains(TcpFlags::FIN) && !syn;
    match (state, direction) {
        (UdpOneWay, Outbound) => UdpTwoWay,
        (UdpOneWay | UdpTwoWay, _) => state,
        _ if flags.contains(TcpFlags::RST) => TcpReset,
        (TcpSynReceived, Outbound) if syn && ack => TcpSynAcked,
        (TcpSynReceived, _) => state,
        (TcpSynAcked, Inbound) if fin => TcpFinFromClient,
        (TcpSynAcked, Inbound) if ack && !syn => TcpEstablished,
        (TcpSynAcked | TcpEstablished, Outbound) if fin => TcpFinFromServer,
        (TcpEstablished, Inbound) if fin => TcpFinFromClient,
        (TcpFinFromClient, Outbound) | (TcpFinFromServer, Inbound) if fin => TcpTimeWait,
        _ => state,
    }
}

/// Whether a client's packet ends this session for good and starts a new one under the same key: a SYN after both sides
/// have closed, or one has reset. UDP sessions never reopen.
#[inline]
pub const fn reopens(state: SessionState, flags: TcpFlags) -> bool {
    matches!(state, SessionState::TcpTimeWait | SessionState::TcpReset) && flags.opens()
}

/// Whether the handshake was seen to complete, or the session is UDP: such a session is worth reporting to peers.
#[inline]
pub const fn is_past_handshake(state: SessionState) -> bool {
    !matches!(state, SessionState::TcpSynReceived | SessionState::TcpSynAcked)
}

/// Whether the connection is over and the session only lets its last packets pass.
#[inline]
pub const fn is_closed(state: SessionState) -> bool {
    matches!(state, SessionState::TcpTimeWait | SessionState::TcpReset)
}

/// What is known of a session when two sources report different states: never less than either. A FIN from each side
/// makes two FINs.
#[inline]
pub const fn merge(one: SessionState, other: SessionState) -> SessionState {
    use SessionState::*;
    match (one, other) {
        (TcpFinFromClient, TcpFinFromServer) | (TcpFinFromServer, TcpFinFromClient) => TcpTimeWait,
        _ if one as u8 >= other as u8 => one,
        _ => other,
    }
}

/// How long a session may be idle in a state before it is removed. Milliseconds.
#[inline]
pub const fn timeout_ms(state: SessionState, timeouts: &Timeouts) -> u32 {
    use SessionState::*;
    match state {
        UdpOneWay | UdpTwoWay => timeouts.udp_ms,
        TcpSynReceived | TcpSynAcked => timeouts.tcp_handshake_ms,
        TcpEstablished => timeouts.tcp_established_ms,
        TcpFinFromClient | TcpFinFromServer => timeouts.tcp_closing_ms,
        TcpTimeWait | TcpReset => timeouts.tcp_closed_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::*;
    use SessionState::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const ACK: TcpFlags = TcpFlags::ACK;
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const FIN_ACK: TcpFlags = TcpFlags(0x11);
    const RST: TcpFlags = TcpFlags::RST;
    const RST_ACK: TcpFlags = TcpFlags(0x14);
    const NONE: TcpFlags = TcpFlags::NONE;

    const STATES: [SessionState; 9] = [
        UdpOneWay,
        UdpTwoWay,
        TcpSynReceived,
        TcpSynAcked,
        TcpEstablished,
        TcpFinFromClient,
        TcpFinFromServer,
        TcpTimeWait,
        TcpReset,
    ];

    /// The states that a session goes through when these packets come.
    fn walk(packets: &[(Direction, TcpFlags)]) -> Vec<SessionState> {
        let mut state = initial_state(Protocol::Tcp);
        let step = |&(direction, flags): &(Direction, TcpFlags)| {
            state = next_state(state, direction, flags);
            state
        };
        packets.iter().map(step).collect()
    }

    #[test]
    fn connection_closed_by_the_client_goes_through_every_state() {
        let packets = [
            (Inbound, SYN),
            (Outbound, SYN_ACK),
            (Inbound, ACK),
            (Outbound, ACK),
            (Inbound, FIN_ACK),
            (Outbound, ACK),
            (Outbound, FIN_ACK),
            (Inbound, ACK),
        ];
        let expected = [
            TcpSynReceived,
            TcpSynAcked,
            TcpEstablished,
            TcpEstablished,
            TcpFinFromClient,
            TcpFinFromClient,
            TcpTimeWait,
            TcpTimeWait,
        ];
        assert_eq!(walk(&packets), expected);
    }

    #[test]
    fn connection_closed_by_the_server_ends_in_time_wait() {
        let packets =
            [(Outbound, SYN_ACK), (Inbound, ACK), (Outbound, FIN_ACK), (Inbound, ACK), (Inbound, FIN_ACK)];
        let expected = [TcpSynAcked, TcpEstablished, TcpFinFromServer, TcpFinFromServer, TcpTimeWait];
        assert_eq!(walk(&packets), expected);
    }

    #[test]
    fn each_packet_does_to_each_state_what_the_table_says() {
        let table = [
            (TcpSynReceived, Inbound, SYN, TcpSynReceived),
            (TcpSynReceived, Inbound, ACK, TcpSynReceived),
            (TcpSynReceived, Inbound, FIN_ACK, TcpSynReceived),
            (TcpSynReceived, Outbound, ACK, TcpSynReceived),
            (TcpSynReceived, Outbound, SYN, TcpSynReceived),
            (TcpSynReceived, Inbound, SYN_ACK, TcpSynReceived),
            (TcpSynReceived, Outbound, RST_ACK, TcpReset),
            (TcpSynAcked, Inbound, SYN, TcpSynAcked),
            (TcpSynAcked, Outbound, SYN_ACK, TcpSynAcked),
            (TcpSynAcked, Outbound, ACK, TcpSynAcked),
            (TcpSynAcked, Inbound, SYN_ACK, TcpSynAcked),
            (TcpSynAcked, Inbound, NONE, TcpSynAcked),
            (TcpSynAcked, Inbound, FIN_ACK, TcpFinFromClient),
            (TcpSynAcked, Outbound, FIN_ACK, TcpFinFromServer),
            (TcpSynAcked, Inbound, RST, TcpReset),
            (TcpEstablished, Inbound, SYN, TcpEstablished),
            (TcpEstablished, Inbound, SYN | TcpFlags::FIN, TcpEstablished),
            (TcpEstablished, Outbound, SYN_ACK, TcpEstablished),
            (TcpEstablished, Outbound, RST, TcpReset),
            (TcpFinFromClient, Inbound, FIN_ACK, TcpFinFromClient),
            (TcpFinFromClient, Outbound, RST, TcpReset),
            (TcpFinFromServer, Outbound, FIN_ACK, TcpFinFromServer),
            (TcpTimeWait, Inbound, SYN, TcpTimeWait),
            (TcpTimeWait, Inbound, RST, TcpReset),
            (TcpReset, Inbound, SYN, TcpReset),
            (TcpReset, Outbound, ACK, TcpReset),
        ];
        for (state, direction, flags, expected) in table {
            assert_eq!(next_state(state, direction, flags), expected, "{state:?} {direction:?} {flags:?}");
        }
    }

    #[test]
    fn udp_becomes_two_way_with_the_first_answer() {
        assert_eq!(initial_state(Protocol::Udp), UdpOneWay);
        assert_eq!(next_state(UdpOneWay, Inbound, NONE), UdpOneWay);
        assert_eq!(next_state(UdpOneWay, Outbound, NONE), UdpTwoWay);
        assert_eq!(next_state(UdpTwoWay, Inbound, NONE), UdpTwoWay);
    }

    #[test]
    fn no_packet_moves_a_state_backwards() {
        for state in STATES {
            for direction in [Inbound, Outbound] {
                for flags in (0..=255).map(TcpFlags) {
                    let next = next_state(state, direction, flags);
                    assert!(next as u8 >= state as u8, "{state:?} {direction:?} {flags:?} gives {next:?}");
                }
            }
        }
    }

    #[test]
    fn client_alone_never_makes_a_session_look_established() {
        for flags in (0..=255).map(TcpFlags) {
            let next = next_state(TcpSynReceived, Inbound, flags);
            assert!(matches!(next, TcpSynReceived | TcpReset), "{flags:?} gives {next:?}");
        }
    }

    #[test]
    fn only_a_bare_syn_on_a_closed_connection_reopens() {
        for state in STATES {
            assert_eq!(reopens(state, SYN), matches!(state, TcpTimeWait | TcpReset), "{state:?}");
            for flags in [ACK, SYN_ACK, FIN_ACK, RST, SYN | RST, NONE] {
                assert!(!reopens(state, flags), "{state:?} {flags:?}");
            }
        }
    }

    #[test]
    fn merged_state_is_the_later_one() {
        for one in STATES {
            assert_eq!(merge(one, one), one);
            for other in STATES {
                let merged = merge(one, other);
                assert_eq!(merged, merge(other, one));
                assert!(merged as u8 >= one as u8 && merged as u8 >= other as u8);
            }
        }
        assert_eq!(merge(TcpSynAcked, TcpEstablished), TcpEstablished);
        assert_eq!(merge(TcpFinFromClient, TcpFinFromServer), TcpTimeWait);
    }

    #[test]
    fn each_state_has_its_timeout() {
        let timeouts = Timeouts {
            tcp_handshake_ms: 1,
            tcp_established_ms: 2,
            tcp_closing_ms: 3,
            tcp_closed_ms: 4,
            udp_ms: 5,
            remote_margin_ms: 6,
        };
        let found = STATES.map(|state| timeout_ms(state, &timeouts));
        assert_eq!(found, [5, 5, 1, 1, 2, 3, 3, 4, 4]);
    }
}
