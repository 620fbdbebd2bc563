//! The record: a session as eight words of shared memory, one cache line.
//!
//! ```text
//! word  0  1   client address, network byte order                            ┐
//!       2      ports: client | vip | local | server, client lowest           │ written while the record
//!       3      numbers of the virtual, the local and the real server's       │ is not in use, then
//!              address, 16 bits each, the virtual one lowest; protocol << 48 ┘ never changed
//!       4      last seen, milliseconds                                       ┐
//!       5      owner << 32 | generation                                      │ single atomics,
//!       6      life << 16 | state; state zero: not in use                    │ written in place
//!       7      last sent, milliseconds                                       ┘
//! ```
//!
//! Word 6 makes the session appear under both its keys at once, and vanish at once. Its life is another one each time that
//! the record is filled: who finds the same life before and after copying a record has copied one session.

use crate::flow::{Endpoint, FlowKey, Protocol, address_from_words, address_words};
use crate::id::{Generation, NodeId};
use crate::shm::atomic::{Ordering, fence};
use crate::shm::slab::{RECORD_WORDS, Record};
use crate::time::Millis;

use super::addresses::Addresses;
use super::{Direction, Draft, Session, SessionState};

const CLIENT: usize = 0;
const PORTS: usize = 2;
const SHARED: usize = 3;
const LAST_SEEN: usize = 4;
const OWNER: usize = 5;
const STATE: usize = 6;
const LAST_SENT: usize = 7;

const STATE_MASK: u64 = 0xff;
const LIFE_SHIFT: u32 = 16;

/// What the state is in a record that is not in use.
const NO_STATE: u64 = 0;

/// Times that a change of state is tried while others change it too.
const STATE_ATTEMPTS: u32 = 8;

/// The numbers that stand for a session's shared addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressNumbers {
    /// The virtual address.
    pub vip: u16,
    /// The local address.
    pub local: u16,
    /// The real server's address.
    pub server: u16,
}

impl AddressNumbers {
    /// The numbers in a record's words.
    #[inline]
    pub fn of(words: &[u64; RECORD_WORDS]) -> AddressNumbers {
        let word = words[SHARED];
        AddressNumbers { vip: word as u16, local: (word >> 16) as u16, server: (word >> 32) as u16 }
    }
}

/// Fills a record that stands in no bucket. It is not in use before [`publish`].
#[inline(always)]
pub fn fill(record: &Record, session: &Draft<'_>, numbers: AddressNumbers) {
    let life = (record.word(STATE).load(Ordering::Relaxed) >> LIFE_SHIFT).wrapping_add(1);
    let [client0, client1] = address_words(session.client.address);
    let ports = [session.server.port, session.local_port, session.vip.port, session.client.port];
    let shared = [session.protocol as u64, numbers.server.into(), numbers.local.into(), numbers.vip.into()];
    record.write(&[
        client0,
        client1,
        ports.iter().fold(0, |word, port| word << 16 | u64::from(*port)),
        shared.iter().fold(0, |word, number| word << 16 | number),
        session.last_seen.0,
        owner_word(session.owner, session.generation),
        life << LIFE_SHIFT | NO_STATE,
        session.last_sent.0,
    ]);
}

/// Structural writer only: puts a record that was filled and stands under both its keys in use.
#[inline]
pub fn publish(record: &Record, state: SessionState) {
    let word = record.word(STATE);
    let life = word.load(Ordering::Relaxed) & !STATE_MASK;
    // SYNC record-published: pairs with the acquire load of `read`.
    word.store(life | state as u64, Ordering::Release);
}

/// Structural writer only: takes a record out of use, before its entries go.
#[inline]
pub fn retire(record: &Record) {
    let word = record.word(STATE);
    word.store(word.load(Ordering::Relaxed) & !STATE_MASK | NO_STATE, Ordering::Relaxed);
}

/// A copy of a record that is in use. Whether it stayed the same session's meanwhile is for the caller to know, from the
/// bucket that led here or from being registered; or see [`read_alone`].
#[inline(always)]
pub fn read(record: &Record) -> Option<[u64; RECORD_WORDS]> {
    // SYNC record-published: pairs with the release store of `publish`.
    let state = record.word(STATE).load(Ordering::Acquire);
    (state & STATE_MASK != NO_STATE).then(|| {
        // The life that the copy is compared with later is the one from before the copy.
        let mut words = record.copy();
        words[STATE] = state;
        words
    })
}

/// What `examine` makes of a copy of a record, for who was led here by no bucket: `Ok(None)` if the record is not in use,
/// `Err` if it was used for another session meanwhile.
#[inline(always)]
pub fn read_alone<T>(
    record: &Record,
    examine: impl FnOnce(&[u64; RECORD_WORDS]) -> T,
) -> Result<Option<T>, Reused> {
    let Some(words) = read(record) else { return Ok(None) };
    let examined = examine(&words);
    // SYNC record-reused: pairs with the release fences of `Record::write` and of the shared addresses.
    fence(Ordering::Acquire);
    let after = record.word(STATE).load(Ordering::Relaxed);
    if after >> LIFE_SHIFT == words[STATE] >> LIFE_SHIFT && after & STATE_MASK != NO_STATE {
        Ok(Some(examined))
    } else {
        Err(Reused)
    }
}

/// A record became another session's, or none's, while it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reused;

/// Whether the record is in use.
#[inline]
pub fn is_in_use(record: &Record) -> bool {
    record.word(STATE).load(Ordering::Relaxed) & STATE_MASK != NO_STATE
}

/// A record's words with the addresses that its numbers stand for.
#[derive(Clone, Copy, Debug)]
pub struct Resolved {
    words: [u64; RECORD_WORDS],
    vip: [u64; 2],
    local: [u64; 2],
    server: [u64; 2],
}

impl Resolved {
    /// No session.
    pub const NONE: Resolved =
        Resolved { words: [0; RECORD_WORDS], vip: [0; 2], local: [0; 2], server: [0; 2] };

    /// Looks the numbers in a record's words up; `None` if one means nothing.
    #[inline(always)]
    pub fn new(words: [u64; RECORD_WORDS], addresses: &Addresses) -> Option<Resolved> {
        let AddressNumbers { vip, local, server } = AddressNumbers::of(&words);
        let [vip, local, server] = [addresses.words(vip)?, addresses.words(local)?, addresses.words(server)?];
        Some(Resolved { words, vip, local, server })
    }

    /// Which way a packet with a key of these words ([`FlowKey::words`]) goes through the session of this record, if it is one
    /// of that session's packets.
    #[inline(always)]
    pub fn direction_of(&self, key: &[u64; 5]) -> Option<Direction> {
        let Resolved { words, vip, local, server } = self;
        let [s0, s1, d0, d1, key_ports] = *key;
        let (source_port, destination_port, protocol) =
            (key_ports >> 32, (key_ports >> 16) & 0xffff, key_ports & 0xffff);
        let (to_vip, to_local) = (source_port | destination_port << 16, destination_port | source_port << 16);
        // Without branches: which way a packet goes is as good as random, and a branch that was guessed wrong would have to
        // wait for the record.
        let other_protocol = words[SHARED] >> 48 ^ protocol;
        let not_inbound = other_protocol
            | words[CLIENT] ^ s0
            | words[CLIENT + 1] ^ s1
            | (words[PORTS] & 0xffff_ffff) ^ to_vip
            | vip[0] ^ d0
            | vip[1] ^ d1;
        let not_outbound = other_protocol
            | server[0] ^ s0
            | server[1] ^ s1
            | words[PORTS] >> 32 ^ to_local
            | local[0] ^ d0
            | local[1] ^ d1;
        const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];
        (not_inbound.min(not_outbound) == 0).then(|| DIRECTIONS[usize::from(not_inbound != 0)])
    }

    /// The session that this is; `None` if it is none: a number that means nothing.
    #[inline(always)]
    pub fn session(&self) -> Option<Session> {
        let Resolved { words, vip, local, server } = self;
        let state = SessionState::from_number((words[STATE] & STATE_MASK) as u8)?;
        let protocol = u8::try_from(words[SHARED] >> 48).ok().and_then(Protocol::from_number)?;
        let owner = NodeId(u16::try_from(words[OWNER] >> 32).ok()?);
        let endpoint = |address: [u64; 2], port: usize| Endpoint {
            address: address_from_words(address),
            port: (words[PORTS] >> (16 * port)) as u16,
        };
        Some(Session {
            protocol,
            client: endpoint([words[CLIENT], words[CLIENT + 1]], 0),
            vip: endpoint(*vip, 1),
            local: endpoint(*local, 2),
            server: endpoint(*server, 3),
            owner,
            generation: Generation(words[OWNER] as u32),
            state,
            last_seen: Millis(words[LAST_SEEN]),
            last_sent: Millis(words[LAST_SENT]),
        })
    }
}

/// The session that these words are; `None` if they are none: a number that means nothing.
#[inline(always)]
pub fn decode(words: &[u64; RECORD_WORDS], addresses: &Addresses) -> Option<Session> {
    Resolved::new(*words, addresses)?.session()
}

/// The client-side and the server-side key of the session that these words are or were, whatever the words that change in
/// place say; `None` if a number means nothing.
pub fn keys(words: &[u64; RECORD_WORDS], addresses: &Addresses) -> Option<[FlowKey; 2]> {
    let mut immutable = *words;
    immutable[OWNER] = 0;
    immutable[STATE] = SessionState::UdpOneWay as u64;
    decode(&immutable, addresses).map(|session| [session.client_key(), session.server_key()])
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

/// Changes where the session stands. Does nothing to a record that is not in use.
#[inline]
pub fn set_state(record: &Record, state: SessionState) {
    let word = record.word(STATE);
    for _ in 0..STATE_ATTEMPTS {
        let found = word.load(Ordering::Relaxed);
        if found & STATE_MASK == NO_STATE {
            return;
        }
        let changed = found & !STATE_MASK | state as u64;
        // Another process may take the record out of use right now, which must not be undone.
        if word.compare_exchange(found, changed, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return;
        }
    }
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
    use crate::session::addresses::SharedAddresses;
    use crate::shm::header::{FileKind, FileSpec, HEADER_BYTES};
    use crate::shm::readers::Readers;
    use crate::shm::region::Region;
    use std::sync::Arc;
    use zerocopy::FromZeros;

    /// A record that holds [`session`], the addresses that it names, and the directory that they lie in.
    struct Fixture {
        record: Record,
        addresses: Addresses,
        _directory: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("addresses");
        let spec = FileSpec { kind: FileKind::RemoteTable, geometry: [0; 4], bytes: HEADER_BYTES + 4 * 4096 };
        Region::create(&path, &spec).unwrap();
        let region: Arc<Region> = Region::open(&path, FileKind::RemoteTable).unwrap();
        let readers = Readers::new(&region, HEADER_BYTES, HEADER_BYTES + 4096).unwrap();
        let addresses = Addresses::new(&region, HEADER_BYTES + 2 * 4096, 256).unwrap();
        let mut shared = SharedAddresses::new(&addresses, &readers);
        let mut number = |endpoint: Endpoint| shared.acquire(&addresses, &readers, endpoint.address).unwrap();
        let session = session();
        let numbers = AddressNumbers {
            vip: number(session.vip),
            local: number(session.local),
            server: number(session.server),
        };
        let record = Record::new_zeroed();
        fill(&record, &session.draft(), numbers);
        Fixture { record, addresses, _directory: directory }
    }

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
    fn a_session_comes_back_as_it_was_once_it_is_published() {
        let Fixture { record, addresses, .. } = fixture();
        assert_eq!(read(&record), None);
        publish(&record, session().state);
        assert_eq!(decode(&read(&record).unwrap(), &addresses), Some(session()));
        retire(&record);
        assert_eq!((read(&record), is_in_use(&record)), (None, false));
    }

    #[test]
    fn words_stand_where_the_layout_says() {
        let Fixture { record, addresses, .. } = fixture();
        publish(&record, session().state);
        let words = record.copy();
        assert_eq!(words[0].to_ne_bytes(), [0; 8]);
        assert_eq!(words[1].to_ne_bytes(), [0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        assert_eq!(words[2], 0xfffe_0506_0304_0102);
        assert_eq!(words[3] >> 48, 17);
        assert_eq!(addresses.address(words[3] as u16), Some(session().vip.address));
        assert_eq!(addresses.address((words[3] >> 16) as u16), Some(session().local.address));
        assert_eq!(addresses.address((words[3] >> 32) as u16), Some(session().server.address));
        assert_eq!(words[5], 0xabcd_ffff_ffff);
        assert_eq!(words[6], 1 << 16 | 2);
        assert_eq!(words[7], 7);
    }

    #[test]
    fn numbers_that_mean_nothing_are_no_session() {
        let Fixture { record, addresses, .. } = fixture();
        publish(&record, session().state);
        let good = record.copy();
        let wrong_protocol = good[SHARED] & 0xffff_ffff_ffff | 0x111 << 48;
        let wrong_number = good[SHARED] | 0xff00;
        for (word, value) in
            [(STATE, 0), (STATE, 3), (OWNER, 1 << 48), (SHARED, wrong_protocol), (SHARED, wrong_number)]
        {
            let mut words = good;
            words[word] = value;
            assert_eq!(decode(&words, &addresses), None, "word {word} is {value:x}");
        }
    }

    #[test]
    fn a_record_matches_its_own_two_keys_only() {
        let Fixture { record, addresses, .. } = fixture();
        let words = record.copy();
        let session = session();
        let (client, server) = (session.client_key(), session.server_key());
        assert_eq!(keys(&words, &addresses), Some([client, server]));
        let direction = |key: &FlowKey| Resolved::new(words, &addresses).unwrap().direction_of(&key.words());
        assert_eq!(direction(&client), Some(Direction::Inbound));
        assert_eq!(direction(&server), Some(Direction::Outbound));
        let reversed = |key: FlowKey| FlowKey { source: key.destination, destination: key.source, ..key };
        let elsewhere = Endpoint { address: Address::v4([10, 9, 9, 9]), port: client.destination.port };
        for key in [
            reversed(client),
            reversed(server),
            FlowKey { protocol: Protocol::Tcp, ..client },
            FlowKey { source: Endpoint { port: 1, ..client.source }, ..client },
            FlowKey { destination: Endpoint { port: 1, ..server.destination }, ..server },
            FlowKey { destination: elsewhere, ..client },
            FlowKey { source: Endpoint { port: client.source.port, ..elsewhere }, ..client },
        ] {
            assert_eq!(direction(&key), None, "{key:?}");
        }
    }

    #[test]
    fn a_change_of_state_brings_no_record_back_into_use() {
        let Fixture { record, .. } = fixture();
        publish(&record, SessionState::UdpOneWay);
        set_state(&record, SessionState::UdpTwoWay);
        assert_eq!(record.copy()[STATE], 1 << LIFE_SHIFT | 2);
        retire(&record);
        set_state(&record, SessionState::UdpTwoWay);
        assert!(!is_in_use(&record));
    }

    #[test]
    fn a_record_that_was_used_again_while_it_was_read_is_noticed() {
        let Fixture { record, .. } = fixture();
        publish(&record, SessionState::UdpOneWay);
        let numbers = AddressNumbers::of(&record.copy());
        let reused = read_alone(&record, |_| {
            retire(&record);
            fill(&record, &session().draft(), numbers);
            publish(&record, SessionState::UdpOneWay);
        });
        assert_eq!(reused, Err(Reused));
        assert_eq!(read_alone(&record, |_| set_state(&record, SessionState::UdpTwoWay)), Ok(Some(())));
        assert_eq!(read_alone(&record, |_| retire(&record)), Err(Reused));
        assert_eq!(read_alone(&record, |_| ()), Ok(None));
    }
}
