//! A flood of keys that somebody chose fills no bucket: whoever does not know the file's key cannot tell where a key stands.
//!
//! The files' keys are random, as always, so every run floods other tables. Each failure names the key that it happened with.

use std::path::PathBuf;

use baton_common::flow::{Address, Endpoint, FlowKey, HashKey, Protocol};
use baton_common::id::{Generation, NodeId};
use baton_common::session::table::{InsertError, Lookup, SessionTable, TableWriter};
use baton_common::session::{Direction, Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::time::Millis;

const BUCKET_SLOTS: u32 = 10;

/// An empty table and its writer.
struct Table {
    writer: TableWriter,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Table {
    fn new(capacity: u32) -> Table {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::LocalTable.path(directory.path(), 0);
        SessionTable::create(&path, FileKind::LocalTable, capacity).unwrap();
        let writer = TableWriter::attach(&path, FileKind::LocalTable).unwrap();
        Table { writer, path, _directory: directory }
    }

    fn key(&self) -> [u64; 2] {
        self.writer.hash_key().0
    }

    /// The bucket that the lower or the upper half of a key's hash chooses in an index for as many sessions as this table.
    fn bucket(&self, key: &FlowKey, upper: bool) -> usize {
        bucket_of(self.writer.hash(key).0, upper, u64::from(self.writer.capacity()) / 3)
    }

    /// Entries that more than fill the bucket that one half of their hash chooses.
    fn overflow(&self, sessions: &[Session], upper: bool) -> u32 {
        let mut loads = vec![0_u32; self.writer.capacity() as usize / 3];
        for session in sessions {
            loads[self.bucket(&session.client_key(), upper)] += 1;
            loads[self.bucket(&session.server_key(), upper)] += 1;
        }
        loads.iter().map(|load| load.saturating_sub(BUCKET_SLOTS)).sum()
    }

    /// Inserts the sessions, as many as the table is for, and finds each of them by both its keys, here and from outside.
    fn takes_all(&mut self, sessions: &[Session]) {
        let key = self.key();
        assert_eq!(sessions.len(), self.writer.capacity() as usize);
        let indices: Vec<_> = sessions
            .iter()
            .enumerate()
            .map(|(n, session)| match self.writer.insert(session) {
                Ok(index) => index,
                Err(error) => panic!("session {n} of {}, key {key:x?}: {error}", sessions.len()),
            })
            .collect();
        let outsider = SessionTable::open_read_only(&self.path, FileKind::LocalTable).unwrap();
        for table in [&*self.writer, &outsider] {
            for (session, index) in sessions.iter().zip(&indices) {
                let hit = |direction| Lookup::Hit { index: *index, direction, session: *session };
                assert_eq!(table.lookup(&session.client_key()), hit(Direction::Inbound), "key {key:x?}");
                assert_eq!(table.lookup(&session.server_key()), hit(Direction::Outbound), "key {key:x?}");
            }
        }
        let one_more = session(u32::MAX, 1, 0x00ff_ffff);
        assert_eq!(self.writer.insert(&one_more), Err(InsertError::Full));
    }
}

fn bucket_of(hash: u64, upper: bool, buckets: u64) -> usize {
    let half = if upper { hash >> 32 } else { hash & 0xffff_ffff };
    ((half * buckets) >> 32) as usize
}

/// The session of a client; `number` gives it a local address and port of its own.
fn session(client: u32, client_port: u16, number: u32) -> Session {
    let endpoint = |address: u32, port| Endpoint { address: Address::v4(address.to_be_bytes()), port };
    Session {
        protocol: Protocol::Udp,
        client: endpoint(client, client_port),
        vip: endpoint(0xc000_0201, 53),
        local: endpoint(0x0a04_0000 + number / 60_000, 1024 + (number % 60_000) as u16),
        server: endpoint(0x0a03_0001, 53),
        owner: NodeId(1),
        generation: Generation(1),
        state: SessionState::UdpTwoWay,
        last_seen: Millis(1),
        last_sent: Millis(0),
    }
}

/// Sessions of random clients, with random local ports.
fn random_sessions(count: u32, seed: u64) -> Vec<Session> {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    };
    let mut sessions: Vec<Session> = (0..count)
        .map(|_| {
            let (client, local) = (random(), random());
            let mut session = session(client as u32, (client >> 32) as u16, 0);
            session.local.address = Address::v4((local as u32).to_be_bytes());
            session.local.port = (local >> 32) as u16;
            session
        })
        .collect();
    sessions.dedup();
    sessions
}

#[test]
fn all_ports_of_few_clients_overflow_no_more_than_random_keys_do() {
    const CLIENTS: u32 = 3;
    let flood: Vec<Session> =
        (0..CLIENTS * 65_536).map(|n| session(0xc633_6400 + n / 65_536, (n % 65_536) as u16, n)).collect();
    let random = random_sessions(flood.len() as u32, 1);
    let mut table = Table::new(flood.len() as u32);
    for upper in [false, true] {
        let (by_flood, by_random) = (table.overflow(&flood, upper), table.overflow(&random, upper));
        assert!(by_random > 100, "nothing to compare with: {by_random}");
        assert!(
            f64::from(by_flood) < 1.5 * f64::from(by_random),
            "key {:x?}: {by_flood} of the flood, {by_random} random ones",
            table.key()
        );
    }
    table.takes_all(&flood);
}

#[test]
fn keys_that_collide_under_an_attackers_key_spread_under_the_files() {
    const CAPACITY: u32 = 6000;
    let buckets = u64::from(CAPACITY) / 3;
    let attackers = HashKey([0x0bad_cafe, 0xdead_beef]).hasher();
    for upper in [false, true] {
        let colliding: Vec<Session> = (0_u32..)
            .map(|n| session(0xc633_6400 + (n >> 16), n as u16, 0))
            .filter(|session| bucket_of(attackers.hash(&session.client_key()).0, upper, buckets) == 0)
            .zip(0..CAPACITY)
            .map(|(session, number)| Session { local: self::session(0, 0, number).local, ..session })
            .collect();
        let mut table = Table::new(CAPACITY);
        let (by_flood, by_random) =
            (table.overflow(&colliding, upper), table.overflow(&random_sessions(CAPACITY, 2), upper));
        // Six of ten slots are filled, so some 130 of 12,000 entries overflow by chance; all 6,000 would under his own key.
        assert!(by_flood < 3 * by_random.max(100), "key {:x?}: {by_flood}, {by_random}", table.key());
        table.takes_all(&colliding);
    }
}
