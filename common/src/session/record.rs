//! The record: a session as sixteen words of shared memory.
//!
//! ```text
//! word  0  1   client address, network byte order      ┐
//!       2  3   virtual address                         │
//!       4  5   local address                           │ written before the record is
//!       6  7   real server's address                   │ published, then never changed
//!       8      ports: client | vip | local | server    │
//!       9      protocol                                ┘
//!      10      last seen, milliseconds                 ┐
//!      11      owner << 32 | generation                │ single atomics,
//!      12      state; zero once the session is removed │ written in place
//!      13      last sent, milliseconds                 ┘
//!      14 15   zero
//! ```

use std::sync::atomic::Ordering;

use crate::flow::{Endpoint, FlowKey, Protocol, address_from_words, address_words};
use crate::id::{Generation, NodeId};
use crate::shm::slab::{RECORD_WORDS, Record};
use crate::time::Millis;

use super::{Direction, Session, SessionState};

const CLIENT: usize = 0;
const VIP: usize = 2;
const LOCAL: usize = 4;
const SERVER: usize = 6;
const PORTS: usize = 8;
const PROTOCOL: usize = 9;
const LAST_SEEN: usize = 10;
const OWNER: usize = 11;
const STATE: usize = 12;
const LAST_SENT: usize = 13;

/// What the state word holds in a record that is not in use.
const NO_STATE: u64 = 0;

/// A session as the words of its record.
#[inline]
pub fn encode(session: &Session) -> [u64; RECORD_WORDS] {
    let [client0, client1] = address_words(session.client.address);
    let [vip0, vip1] = address_words(session.vip.address);
    let [local0, local1] = address_words(session.local.address);
    let [server0, server1] = address_words(session.server.address);
    let ports = [session.client.port, session.vip.port, session.local.port, session.server.port];
    let ports = ports.iter().rev().fold(0, |word, port| word << 16 | u64::from(*port));
    [
        client0,
        client1,
        vip0,
        vip1,
        local0,
        local1,
        server0,
        server1,
        ports,
        session.protocol as u64,
        session.last_seen.0,
        owner_word(session.owner, session.generation),
        session.state as u64,
        session.last_sent.0,
        0,
        0,
    ]
}

/// The session that these words are; `None` if they are none: a number that means nothing, or a record not in use.
#[inline]
pub fn decode(words: &[u64; RECORD_WORDS]) -> Option<Session> {
    let endpoint = |address: usize, port: usize| Endpoint {
        address: address_from_words([words[address], words[address + 1]]),
        port: (words[PORTS] >> (16 * port)) as u16,
    };
    let state = u8::try_from(words[STATE]).ok().and_then(SessionState::from_number)?;
    let protocol = u8::try_from(words[PROTOCOL]).ok().and_then(Protocol::from_number)?;
    let owner = NodeId(u16::try_from(words[OWNER] >> 32).ok()?);
    if words[14] != 0 || words[15] != 0 {
        return None;
    }
    Some(Session {
        protocol,
        client: endpoint(CLIENT, 0),
        vip: endpoint(VIP, 1),
        local: endpoint(LOCAL, 2),
        server: endpoint(SERVER, 3),
        owner,
        generation: Generation(words[OWNER] as u32),
        state,
        last_seen: Millis(words[LAST_SEEN]),
        last_sent: Millis(words[LAST_SENT]),
    })
}

/// The client-side and the server-side key of the session that these words are, whatever the words that change in place
/// say; `None` if the protocol is none.
pub fn keys(words: &[u64; RECORD_WORDS]) -> Option<[FlowKey; 2]> {
    let mut immutable = *words;
    immutable[OWNER] = 0;
    immutable[STATE] = SessionState::UdpOneWay as u64;
    (immutable[14], immutable[15]) = (0, 0);
    decode(&immutable).map(|session| [session.client_key(), session.server_key()])
}

/// Which way a packet with a key of these words ([`FlowKey::words`]) goes through the session of this record, if it is one
/// of that session's packets.
#[inline]
pub fn direction_of(words: &[u64; RECORD_WORDS], key: &[u64; 5]) -> Option<Direction> {
    let [s0, s1, d0, d1, ports] = *key;
    let (source_port, destination_port, protocol) = (ports >> 32, (ports >> 16) & 0xffff, ports & 0xffff);
    if words[PROTOCOL] != protocol {
        return None;
    }
    let to_vip = source_port | destination_port << 16;
    let to_local = destination_port | source_port << 16;
    if words[..LOCAL] == [s0, s1, d0, d1] && words[PORTS] & 0xffff_ffff == to_vip {
        return Some(Direction::Inbound);
    }
    (words[LOCAL..PORTS] == [d0, d1, s0, s1] && words[PORTS] >> 32 == to_local).then_some(Direction::Outbound)
}

/// Whether these words are of a record that is not in use.
#[inline]
pub fn is_vacant(words: &[u64; RECORD_WORDS]) -> bool {
    words[STATE] == NO_STATE
}

/// Whether the record is not in use.
#[inline]
pub fn is_marked_vacant(record: &Record) -> bool {
    record.word(STATE).load(Ordering::Relaxed) == NO_STATE
}

/// Structural writer only: marks a record that stands in no bucket as not in use, so that scans pass it by.
#[inline]
pub fn mark_vacant(record: &Record) {
    record.word(STATE).store(NO_STATE, Ordering::Relaxed);
}

/// Notes that a packet was seen.
#[inline]
pub fn touch(record: &Record, now: Millis) {
    // Most packets come within the millisecond of the one before: their cache line stays shared.
    let word = record.word(LAST_SEEN);
    if word.load(Ordering::Relaxed) != now.0 {
        word.store(now.0, Ordering::Relaxed);
    }
}

/// Changes where the session stands.
#[inline]
pub fn set_state(record: &Record, state: SessionState) {
    record.word(STATE).store(state as u64, Ordering::Relaxed);
}

/// Changes who reports the session, and the generation with it.
#[inline]
pub fn set_owner(record: &Record, owner: NodeId, generation: Generation) {
    record.word(OWNER).store(owner_word(owner, generation), Ordering::Relaxed);
}

/// Changes who reports the session, if that is still who it was: one step, whoever else writes at the same time.
#[inline]
pub fn claim(record: &Record, from: (NodeId, Generation), to: (NodeId, Generation)) -> bool {
    let (from, to) = (owner_word(from.0, from.1), owner_word(to.0, to.1));
    record.word(OWNER).compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Notes when the peers were told.
#[inline]
pub fn set_last_sent(record: &Record, now: Millis) {
    record.word(LAST_SENT).store(now.0, Ordering::Relaxed);
}

fn owner_word(owner: NodeId, generation: Generation) -> u64 {
    u64::from(owner.0) << 32 | u64::from(generation.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;

    fn session() -> Session {
        let endpoint = |last: u8, port| Endpoint { address: Address::v4([10, 0, 0, last]), port };
        Session {
            protocol: Protocol::Udp,
            client: endpoint(1, 0x0102),
            vip: endpoint(2, 0x0304),
            local: endpoint(3, 0x0506),
            server: Endpoint { address: Address::v6([0xfd; 16]), port: 0xfffe },
            owner: NodeId(0xabcd),
            generation: Generation(u32::MAX),
            state: SessionState::UdpTwoWay,
            last_seen: Millis(u64::MAX),
            last_sent: Millis(7),
        }
    }

    #[test]
    fn a_session_comes_back_as_it_was() {
        assert_eq!(decode(&encode(&session())), Some(session()));
    }

    #[test]
    fn words_stand_where_the_layout_says() {
        let words = encode(&session());
        assert_eq!(words[0].to_ne_bytes(), [0; 8]);
        assert_eq!(words[1].to_ne_bytes(), [0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(words[8], 0xfffe_0506_0304_0102);
        assert_eq!(words[9], 17);
        assert_eq!(words[11], 0xabcd_ffff_ffff);
        assert_eq!(words[12], 2);
    }

    #[test]
    fn numbers_that_mean_nothing_are_no_session() {
        for (word, value) in [(STATE, 0), (STATE, 3), (STATE, 0x102), (PROTOCOL, 1), (PROTOCOL, 0x111)] {
            let mut words = encode(&session());
            words[word] = value;
            assert_eq!(decode(&words), None, "word {word} is {value}");
        }
        for (word, value) in [(OWNER, 1 << 48), (14, 1), (15, 1 << 63)] {
            let mut words = encode(&session());
            words[word] = value;
            assert_eq!(decode(&words), None, "word {word} is {value}");
        }
    }

    #[test]
    fn a_record_matches_its_own_two_keys_only() {
        let session = session();
        let words = encode(&session);
        let (client, server) = (session.client_key(), session.server_key());
        assert_eq!(keys(&words), Some([client, server]));
        assert_eq!(direction_of(&words, &client.words()), Some(Direction::Inbound));
        assert_eq!(direction_of(&words, &server.words()), Some(Direction::Outbound));
        let reversed = |key: FlowKey| FlowKey { source: key.destination, destination: key.source, ..key };
        for key in [
            reversed(client),
            reversed(server),
            FlowKey { protocol: Protocol::Tcp, ..client },
            FlowKey { source: Endpoint { port: 1, ..client.source }, ..client },
            FlowKey { destination: Endpoint { port: 1, ..server.destination }, ..server },
        ] {
            assert_eq!(direction_of(&words, &key.words()), None, "{key:?}");
        }
    }

    #[test]
    fn an_unused_record_is_vacant_and_no_session() {
        assert!(is_vacant(&[0; RECORD_WORDS]));
        assert_eq!(decode(&[0; RECORD_WORDS]), None);
    }
}
