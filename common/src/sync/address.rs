//! What every address and state of a session must satisfy, wherever it was read from.

use crate::flow::{Address, Protocol};
use crate::session::SessionState;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The family of all these addresses, if it is one.
pub(super) fn family_of(addresses: &[Address]) -> Option<Family> {
    let v4 = addresses.iter().filter(|address| address.is_v4()).count();
    match v4 {
        0 => Some(Family::V6),
        all if all == addresses.len() => Some(Family::V4),
        _ => None,
    }
}

/// Whether a packet can come from and go to this address: neither unspecified nor multicast nor broadcast.
pub(super) fn is_unicast(address: &Address) -> bool {
    match address.to_v4() {
        Some(octets) => octets[0] != 0 && octets[0] < 224,
        None => address.0 != [0; 16] && address.0[0] != 0xff,
    }
}

/// The protocol whose state this is.
pub(super) fn protocol_of(state: SessionState) -> Protocol {
    match state {
        SessionState::UdpOneWay | SessionState::UdpTwoWay => Protocol::Udp,
        _ => Protocol::Tcp,
    }
}
