//! The event: what a worker tells its secondary about a session, by value, through shared memory.
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!   0 | kind  | proto | state |   0   |    owner      |       0       |
//!   8 |          generation           |  client port  |   vip port    |
//!  16 |  local port   |  server port  |               0               |
//!  24 |                           last seen, ms                       |
//!  32 |                           last sent, ms                       |
//!  40 |                      client address (16)                      |
//!  56 |                       vip address (16)                        |
//!  72 |                      local address (16)                       |
//!  88 |                      server address (16)                      |
//! 104 |                             0 (24)                            |
//! ```
//!
//! Integers are in the machine's byte order, for the bytes never leave the machine; addresses are in network byte order,
//! IPv4 as `::ffff:a.b.c.d`.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::address;
use crate::flow::{Address, Endpoint, Protocol};
use crate::id::{Generation, NodeId};
use crate::session::{Session, SessionState};
use crate::time::Millis;

/// Bytes of an encoded event: two cache lines.
pub const EVENT_BYTES: usize = 128;

/// What happened to a session. The numbers stand in shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// It is new to the peers, or something besides its age has changed.
    Upsert = 1,
    /// It has ended.
    Delete = 2,
    /// It is still in use.
    Refresh = 3,
    /// This node has taken it over from another one.
    Claim = 4,
}

impl EventKind {
    /// The kind with this number, if there is one.
    pub fn from_number(number: u8) -> Option<EventKind> {
        match number {
            1 => Some(EventKind::Upsert),
            2 => Some(EventKind::Delete),
            3 => Some(EventKind::Refresh),
            4 => Some(EventKind::Claim),
            _ => None,
        }
    }
}

/// What a worker tells its secondary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The whole session as it was then.
    pub session: Session,
}

/// Why a ring slot is no event. The reader counts `EventsInvalid` and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// Not the bytes of one event.
    #[error("{0} bytes, expected {EVENT_BYTES}")]
    Length(usize),
    /// Not a kind of event.
    #[error("event kind {0}, expected 1 to 4")]
    Kind(u8),
    /// Not a balanced protocol.
    #[error("protocol {0}, expected 6 or 17")]
    Protocol(u8),
    /// Not a state, or one of another protocol.
    #[error("session state {0} is unknown or of another protocol")]
    State(u8),
    /// Reserved bytes are in use.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// No owner.
    #[error("owner is node 0, expected 1 to 65535")]
    Owner,
    /// An address that no packet of a session has, or addresses of both families.
    #[error("addresses are not four unicast addresses of one family")]
    Address,
    /// Port zero where a packet cannot go to.
    #[error("port of vip, local address or real server is 0")]
    Port,
}

/// The fixed layout of an event; see the module's diagram.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EventLayout {
    kind: u8,
    protocol: u8,
    state: u8,
    reserved0: u8,
    owner: u16,
    reserved1: u16,
    generation: u32,
    client_port: u16,
    vip_port: u16,
    local_port: u16,
    server_port: u16,
    reserved2: u32,
    last_seen_ms: u64,
    last_sent_ms: u64,
    client_address: [u8; 16],
    vip_address: [u8; 16],
    local_address: [u8; 16],
    server_address: [u8; 16],
    reserved3: [u64; 3],
}

const _: () = {
    assert!(size_of::<EventLayout>() == EVENT_BYTES && align_of::<EventLayout>() == 8);
    assert!(std::mem::offset_of!(EventLayout, owner) == 4);
    assert!(std::mem::offset_of!(EventLayout, generation) == 8);
    assert!(std::mem::offset_of!(EventLayout, local_port) == 16);
    assert!(std::mem::offset_of!(EventLayout, last_seen_ms) == 24);
    assert!(std::mem::offset_of!(EventLayout, client_address) == 40);
    assert!(std::mem::offset_of!(EventLayout, reserved3) == 104);
};

impl Event {
    /// The event as the bytes of a ring slot.
    #[inline]
    pub fn encode(&self) -> [u8; EVENT_BYTES] {
        let session = &self.session;
        zerocopy::transmute!(EventLayout {
            kind: self.kind as u8,
            protocol: session.protocol as u8,
            state: session.state as u8,
            reserved0: 0,
            owner: session.owner.0,
            reserved1: 0,
            generation: session.generation.0,
            client_port: session.client.port,
            vip_port: session.vip.port,
            local_port: session.local.port,
            server_port: session.server.port,
            reserved2: 0,
            last_seen_ms: session.last_seen.0,
            last_sent_ms: session.last_sent.0,
            client_address: session.client.address.0,
            vip_address: session.vip.address.0,
            local_address: session.local.address.0,
            server_address: session.server.address.0,
            reserved3: [0; 3],
        })
    }

    /// The event that a ring slot holds.
    ///
    /// # Errors
    /// Every field is checked: the bytes were written by another process, perhaps one that died while it wrote.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Event, EventError> {
        let layout = EventLayout::read_from_bytes(bytes).map_err(|_| EventError::Length(bytes.len()))?;
        let kind = EventKind::from_number(layout.kind).ok_or(EventError::Kind(layout.kind))?;
        let protocol = Protocol::from_number(layout.protocol).ok_or(EventError::Protocol(layout.protocol))?;
        let state = SessionState::from_number(layout.state)
            .filter(|state| address::protocol_of(*state) == protocol)
            .ok_or(EventError::State(layout.state))?;
        if layout.reserved0 != 0
            || layout.reserved1 != 0
            || layout.reserved2 != 0
            || layout.reserved3 != [0; 3]
        {
            return Err(EventError::Reserved);
        }
        if layout.owner == 0 {
            return Err(EventError::Owner);
        }
        let endpoint = |bytes, port| Endpoint { address: Address(bytes), port };
        let session = Session {
            protocol,
            client: endpoint(layout.client_address, layout.client_port),
            vip: endpoint(layout.vip_address, layout.vip_port),
            local: endpoint(layout.local_address, layout.local_port),
            server: endpoint(layout.server_address, layout.server_port),
            owner: NodeId(layout.owner),
            generation: Generation(layout.generation),
            state,
            last_seen: Millis(layout.last_seen_ms),
            last_sent: Millis(layout.last_sent_ms),
        };
        let addresses = [session.client, session.vip, session.local, session.server].map(|e| e.address);
        if address::family_of(&addresses).is_none() || !addresses.iter().all(address::is_unicast) {
            return Err(EventError::Address);
        }
        if session.vip.port == 0 || session.local.port == 0 || session.server.port == 0 {
            return Err(EventError::Port);
        }
        Ok(Event { kind, session })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sync::fixture::{any_session, session_v4, session_v6};

    fn damaged(offset: usize, bytes: &[u8]) -> Result<Event, EventError> {
        let mut slot = Event { kind: EventKind::Upsert, session: session_v4(1) }.encode();
        slot[offset..offset + bytes.len()].copy_from_slice(bytes);
        Event::decode(&slot)
    }

    #[test]
    fn decode_rejects_every_field_out_of_its_range() {
        assert_eq!(damaged(0, &[0]), Err(EventError::Kind(0)));
        assert_eq!(damaged(0, &[6]), Err(EventError::Kind(6)));
        assert_eq!(damaged(1, &[1]), Err(EventError::Protocol(1)));
        assert_eq!(damaged(1, &[17]), Err(EventError::State(18)), "a TCP state of a UDP session");
        assert_eq!(damaged(2, &[99]), Err(EventError::State(99)));
        for reserved in [3, 6, 7, 20, 21, 22, 23, 104, 127] {
            assert_eq!(damaged(reserved, &[1]), Err(EventError::Reserved), "byte {reserved}");
        }
        assert_eq!(damaged(4, &[0, 0]), Err(EventError::Owner));
        for port in [14, 16, 18] {
            assert_eq!(damaged(port, &[0, 0]), Err(EventError::Port), "port at {port}");
        }
        for endpoint in [40, 56, 72, 88] {
            assert_eq!(damaged(endpoint, &[0; 16]), Err(EventError::Address), "address at {endpoint}");
            assert_eq!(damaged(endpoint + 12, &[224]), Err(EventError::Address), "multicast at {endpoint}");
            assert_eq!(damaged(endpoint, &[0x20]), Err(EventError::Address), "other family at {endpoint}");
        }
    }

    #[test]
    fn an_empty_slot_is_no_event() {
        assert_eq!(Event::decode(&[0; EVENT_BYTES]), Err(EventError::Kind(0)));
    }

    #[test]
    fn an_item_of_another_length_is_no_event() {
        let bytes = Event { kind: EventKind::Upsert, session: session_v4(1) }.encode();
        assert_eq!(Event::decode(&bytes[..127]), Err(EventError::Length(127)));
        assert_eq!(Event::decode(&[&bytes[..], &[0]].concat()), Err(EventError::Length(129)));
    }

    #[test]
    fn a_client_may_use_port_zero() {
        let mut session = session_v6(1);
        session.client.port = 0;
        let event = Event { kind: EventKind::Refresh, session };
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(session in any_session(), kind in 1u8..=3) {
            let event = Event { kind: EventKind::from_number(kind).unwrap(), session };
            prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), EVENT_BYTES)) {
            let _ = Event::decode(&bytes);
        }
    }
}
