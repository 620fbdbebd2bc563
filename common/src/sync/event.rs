//! The event: what a worker tells its secondary about a session, by value, through shared memory.
//!
//! ```text
//!       0       1       2       3       4       5       6       7
//!   0 | kind  | proto | state | table |    owner      |       0       |
//!   8 |          generation           |  client port  |   vip port    |
//!  16 |  local port   |  server port  |             slot              |
//!  24 |                           last seen, ms                       |
//!  32 |                           last sent, ms                       |
//!  40 |                      client address (16)                      |
//!  56 |                       vip address (16)                        |
//!  72 |                      local address (16)                       |
//!  88 |                      server address (16)                      |
//! 104 |                             0 (24)                            |
//! ```
//!
//! The table is 0 for the worker's own and 1 for the remote one. Of a miss (kind 5) there is only a key: its source stands for the
//! client, its destination for the VIP, and the state is 1 for a client's packet and 2 for a server's; the rest is zero.
//!
//! Integers are in the machine's byte order, for the bytes never leave the machine; addresses are in network byte order,
//! IPv4 as `::ffff:a.b.c.d`.

use thiserror::Error;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::address;
use crate::flow::{Address, Endpoint, FlowKey, Protocol};
use crate::id::{Generation, NodeId, RecordIndex};
use crate::session::{Direction, Session, SessionState};
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

/// The table that a session stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Home {
    /// The worker's own.
    Local = 0,
    /// The remote table of the worker's NUMA node.
    Remote = 1,
}

/// An item of an event ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Something happened to a session.
    Session {
        /// What.
        event: Event,
        /// In which table.
        home: Home,
        /// In which of its slots.
        slot: RecordIndex,
    },
    /// A packet that opens nothing found no session.
    Miss {
        /// Whose packet: a client's (`Inbound`) or a server's.
        direction: Direction,
        /// Its key.
        key: FlowKey,
    },
}

/// The number of a miss, beside those of [`EventKind`].
const KIND_MISS: u8 = 5;

/// What a worker tells its secondary of a session.
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
    #[error("event kind {0}, expected 1 to 5")]
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
    home: u8,
    owner: u16,
    reserved1: u16,
    generation: u32,
    client_port: u16,
    vip_port: u16,
    local_port: u16,
    server_port: u16,
    slot: u32,
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

impl Notice {
    /// The notice as the bytes of a ring slot.
    #[inline]
    pub fn encode(&self) -> [u8; EVENT_BYTES] {
        match self {
            Notice::Session { event: Event { kind, session }, home, slot } => {
                let layout = EventLayout {
                    kind: *kind as u8,
                    protocol: session.protocol as u8,
                    state: session.state as u8,
                    home: *home as u8,
                    owner: session.owner.0,
                    generation: session.generation.0,
                    client_port: session.client.port,
                    vip_port: session.vip.port,
                    local_port: session.local.port,
                    server_port: session.server.port,
                    slot: slot.0,
                    last_seen_ms: session.last_seen.0,
                    last_sent_ms: session.last_sent.0,
                    client_address: session.client.address.0,
                    vip_address: session.vip.address.0,
                    local_address: session.local.address.0,
                    server_address: session.server.address.0,
                    ..EventLayout::EMPTY
                };
                zerocopy::transmute!(layout)
            }
            Notice::Miss { direction, key } => {
                let layout = EventLayout {
                    kind: KIND_MISS,
                    protocol: key.protocol as u8,
                    state: 1 + u8::from(*direction == Direction::Outbound),
                    client_port: key.source.port,
                    vip_port: key.destination.port,
                    client_address: key.source.address.0,
                    vip_address: key.destination.address.0,
                    ..EventLayout::EMPTY
                };
                zerocopy::transmute!(layout)
            }
        }
    }

    /// The notice that a ring slot holds.
    ///
    /// # Errors
    /// Every field is checked: the bytes were written by another process, perhaps one that died while it wrote.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Notice, EventError> {
        let layout = EventLayout::read_from_bytes(bytes).map_err(|_| EventError::Length(bytes.len()))?;
        if layout.kind == KIND_MISS {
            return decode_miss(&layout);
        }
        let kind = EventKind::from_number(layout.kind).ok_or(EventError::Kind(layout.kind))?;
        let protocol = Protocol::from_number(layout.protocol).ok_or(EventError::Protocol(layout.protocol))?;
        let state = SessionState::from_number(layout.state)
            .filter(|state| address::protocol_of(*state) == protocol)
            .ok_or(EventError::State(layout.state))?;
        let home = match layout.home {
            0 => Home::Local,
            1 => Home::Remote,
            _ => return Err(EventError::Reserved),
        };
        if layout.reserved1 != 0 || layout.reserved3 != [0; 3] {
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
        Ok(Notice::Session { event: Event { kind, session }, home, slot: RecordIndex(layout.slot) })
    }
}

fn decode_miss(layout: &EventLayout) -> Result<Notice, EventError> {
    let protocol = Protocol::from_number(layout.protocol).ok_or(EventError::Protocol(layout.protocol))?;
    let direction = match layout.state {
        1 => Direction::Inbound,
        2 => Direction::Outbound,
        state => return Err(EventError::State(state)),
    };
    let named = EventLayout {
        kind: KIND_MISS,
        protocol: layout.protocol,
        state: layout.state,
        client_port: layout.client_port,
        vip_port: layout.vip_port,
        client_address: layout.client_address,
        vip_address: layout.vip_address,
        ..EventLayout::EMPTY
    };
    if named.as_bytes() != layout.as_bytes() {
        return Err(EventError::Reserved);
    }
    let endpoint = |bytes, port| Endpoint { address: Address(bytes), port };
    let key = FlowKey {
        source: endpoint(layout.client_address, layout.client_port),
        destination: endpoint(layout.vip_address, layout.vip_port),
        protocol,
    };
    let addresses = [key.source, key.destination].map(|endpoint| endpoint.address);
    if address::family_of(&addresses).is_none() || !addresses.iter().all(address::is_unicast) {
        return Err(EventError::Address);
    }
    Ok(Notice::Miss { direction, key })
}

impl EventLayout {
    const EMPTY: EventLayout = EventLayout {
        kind: 0,
        protocol: 0,
        state: 0,
        home: 0,
        owner: 0,
        reserved1: 0,
        generation: 0,
        client_port: 0,
        vip_port: 0,
        local_port: 0,
        server_port: 0,
        slot: 0,
        last_seen_ms: 0,
        last_sent_ms: 0,
        client_address: [0; 16],
        vip_address: [0; 16],
        local_address: [0; 16],
        server_address: [0; 16],
        reserved3: [0; 3],
    };
}

impl Event {
    /// The event as the bytes of a ring slot, of a session in the first slot of the worker's own table.
    #[inline]
    pub fn encode(&self) -> [u8; EVENT_BYTES] {
        Notice::Session { event: *self, home: Home::Local, slot: RecordIndex(0) }.encode()
    }

    /// The event that a ring slot holds, wherever its session stands.
    ///
    /// # Errors
    /// As [`Notice::decode`]; a miss is no event of a session.
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Event, EventError> {
        match Notice::decode(bytes)? {
            Notice::Session { event, .. } => Ok(event),
            Notice::Miss { .. } => Err(EventError::Kind(KIND_MISS)),
        }
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
        for reserved in [6, 7, 104, 127] {
            assert_eq!(damaged(reserved, &[1]), Err(EventError::Reserved), "byte {reserved}");
        }
        assert_eq!(damaged(3, &[2]), Err(EventError::Reserved), "a table that is none");
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
    fn a_miss_comes_back_as_it_was_and_nothing_else_of_it_does() {
        for (direction, session) in
            [(Direction::Inbound, session_v4(1)), (Direction::Outbound, session_v6(2))]
        {
            let notice = Notice::Miss { direction, key: session.client_key() };
            let bytes = notice.encode();
            assert_eq!(Notice::decode(&bytes), Ok(notice));
            assert_eq!(Event::decode(&bytes), Err(EventError::Kind(KIND_MISS)));
            for (offset, wrong) in
                [(2, EventError::State(7)), (20, EventError::Reserved), (88, EventError::Reserved)]
            {
                let mut damaged = bytes;
                damaged[offset] = 7;
                assert_eq!(Notice::decode(&damaged), Err(wrong), "byte {offset}");
            }
        }
    }

    #[test]
    fn a_notice_says_where_the_session_stands() {
        let event = Event { kind: EventKind::Claim, session: session_v4(1) };
        let notice = Notice::Session { event, home: Home::Remote, slot: RecordIndex(77) };
        assert_eq!(Notice::decode(&notice.encode()), Ok(notice));
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
        fn decode_undoes_encode(session in any_session(), kind in 1u8..=4) {
            let event = Event { kind: EventKind::from_number(kind).unwrap(), session };
            prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), EVENT_BYTES)) {
            let _ = Event::decode(&bytes);
        }
    }
}
