//! Tables and rings for the models: small, and with the same hash key each time.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId};
use baton_common::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::shm::ring::{self, Consumer, Producer};
use baton_common::time::Millis;

const TABLE: FileKind = FileKind::RemoteTable;
const RING: FileKind = FileKind::EventRing;
const HASH_KEY_OFFSET: u64 = 24;

/// A table's file.
pub struct TableFile {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl TableFile {
    /// A table for `capacity` sessions that has these.
    pub fn new(capacity: u32, sessions: &[Session]) -> TableFile {
        let directory = tempfile::tempdir().unwrap();
        let path = TABLE.path(directory.path(), 0);
        SessionTable::create(&path, TABLE, capacity).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0x5a; 16], HASH_KEY_OFFSET).unwrap();
        let table = TableFile { path, _directory: directory };
        let mut writer = table.writer();
        for session in sessions {
            writer.insert(session).unwrap();
        }
        table
    }

    pub fn writer(&self) -> TableWriter {
        TableWriter::attach(&self.path, TABLE).unwrap()
    }

    /// A registered reader, online.
    pub fn reader(&self) -> TableReader {
        TableReader::attach(&self.path, TABLE, 0).unwrap()
    }

    /// A reader that is not registered.
    pub fn observer(&self) -> SessionTable {
        SessionTable::open_read_only(&self.path, TABLE).unwrap()
    }
}

/// A ring of two slots for items of eight bytes.
pub struct RingFile {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl RingFile {
    pub fn new() -> RingFile {
        let directory = tempfile::tempdir().unwrap();
        let path = RING.path(directory.path(), 0);
        ring::create(&path, RING, 2, 8).unwrap();
        RingFile { path, _directory: directory }
    }

    pub fn producer(&self) -> Producer {
        Producer::attach(&self.path, RING).unwrap()
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::attach(&self.path, RING).unwrap()
    }
}

/// Client `number`'s session.
pub fn session(number: u8) -> Session {
    let endpoint = |last: u8, port: u16| Endpoint { address: Address::v4([10, 0, 0, last]), port };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(100, 1000 + u16::from(number)),
        vip: endpoint(1, 80),
        local: endpoint(2, 2000 + u16::from(number)),
        server: endpoint(3, 80),
        owner: NodeId(1),
        generation: Generation(number.into()),
        state: SessionState::TcpEstablished,
        last_seen: Millis(number.into()),
        last_sent: Millis(number.into()),
    }
}

/// Checks that a lookup came to `session`, whole, or to nothing; whether it was found.
pub fn is_whole(lookup: Lookup, session: &Session) -> bool {
    match lookup {
        Lookup::Hit { session: found, .. } => {
            assert_eq!(found, *session, "what was found is not what was written");
            true
        }
        Lookup::Miss | Lookup::Contended => false,
    }
}
