//! A table survives its writer: child processes insert and remove sessions and are killed at random instants, while readers
//! go on; each successor must find everything that was acknowledged, and nothing torn, doubled or leaked.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::table::{InsertError, Lookup, SessionTable, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::{FileKind, FileSpec, HEADER_BYTES};
use baton_common::shm::region::Region;
use baton_common::time::Millis;
use rustix::process::{Signal, set_parent_process_death_signal};

const KILLS: u32 = 2500;
const CAPACITY: u32 = 300;
/// More than the table holds, so that it is full at times and slots are used again.
const SESSIONS: u64 = 400;
/// What readers add to a session's last-seen time: what a reader writes must never end up in another session.
const TOUCHED: u64 = 1_000_000;
const DIRECTORY_VARIABLE: &str = "BATON_TEST_TABLE_DIRECTORY";
const KIND: FileKind = FileKind::RemoteTable;

// What the journal says of a session. The child writes it around each operation, so what it says last is what was
// acknowledged.
const ABSENT: u64 = 0;
const INSERTING: u64 = 1;
const PRESENT: u64 = 2;
const REMOVING: u64 = 3;

/// A session all of whose words tell its number.
fn session(number: u64) -> Session {
    let endpoint = |net: u8| Endpoint {
        address: Address::v6([net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (number >> 8) as u8, number as u8]),
        port: number as u16,
    };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1),
        vip: endpoint(2),
        local: endpoint(3),
        server: endpoint(4),
        owner: NodeId(number as u16),
        generation: Generation(number as u32),
        state: SessionState::TcpEstablished,
        last_seen: Millis(number),
        last_sent: Millis(number),
    }
}

/// The number of a session that must be whole.
fn number_of(found: &Session) -> u64 {
    let number = u64::from(found.client.port);
    let expected = session(number);
    assert_eq!(Session { last_seen: expected.last_seen, ..*found }, expected, "a torn session");
    let last_seen = found.last_seen.0;
    assert!(
        last_seen == number || last_seen == TOUCHED + number,
        "{last_seen} was written for another session"
    );
    number
}

fn table_path(directory: &Path) -> PathBuf {
    KIND.path(directory, 0)
}

/// The journal's words: one a session, then the number of operations that were done.
fn journal(directory: &Path) -> Arc<Region> {
    let path = directory.join("journal");
    if !path.exists() {
        let bytes = HEADER_BYTES + 8 * (SESSIONS + 1);
        Region::create(&path, &FileSpec { kind: FileKind::SyncState, geometry: [0; 4], bytes }).unwrap();
    }
    Region::open(&path, FileKind::SyncState).unwrap()
}

fn words(journal: &Region) -> &[AtomicU64] {
    journal.slice(HEADER_BYTES, SESSIONS + 1).unwrap()
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The child: not a test of its own, but what the test below runs in another process.
#[test]
fn writer_child() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else { return };
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let journal = journal(&directory);
    let words = words(&journal);
    let mut writer = TableWriter::attach(&table_path(&directory), KIND).unwrap();
    let mut slots = [None; SESSIONS as usize];
    writer.scan(0, u32::MAX, |index, session| slots[number_of(&session) as usize] = Some(index));
    let mut random = Random(u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    loop {
        words[SESSIONS as usize].fetch_add(1, Ordering::SeqCst);
        let number = random.next() % SESSIONS;
        let word = &words[number as usize];
        match slots[number as usize].take() {
            None => {
                word.store(INSERTING, Ordering::SeqCst);
                let state = match writer.insert(&session(number)) {
                    Ok(index) => {
                        slots[number as usize] = Some(index);
                        PRESENT
                    }
                    Err(InsertError::Full) => ABSENT,
                    Err(InsertError::Exists(index)) => panic!("session {number} is in {index} already"),
                };
                word.store(state, Ordering::SeqCst);
            }
            Some(index) => {
                word.store(REMOVING, Ordering::SeqCst);
                assert!(writer.remove(index));
                word.store(ABSENT, Ordering::SeqCst);
            }
        }
    }
}

/// A child that is killed with its parent's panic, too.
struct Writer(Child);

impl Writer {
    /// A writer that has done some operations already.
    fn start(directory: &Path, done: &AtomicU64, operations: u64) -> Writer {
        let before = done.load(Ordering::SeqCst);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_child", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut writer = Writer(child);
        while done.load(Ordering::SeqCst) < before + operations {
            assert_eq!(writer.0.try_wait().unwrap(), None, "the writer ended by itself");
            thread::sleep(Duration::from_micros(100));
        }
        writer
    }

    fn kill(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the writer ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks sessions up and touches them until told to stop, as a worker does.
fn run_worker(directory: &Path, slot: usize, stop: &AtomicBool) -> u64 {
    let mut reader = TableReader::attach(&table_path(directory), KIND, slot).unwrap();
    let mut random = Random(slot as u64);
    let mut hits = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..16 {
            let number = random.next() % SESSIONS;
            let expected = session(number);
            let key =
                if random.next().is_multiple_of(2) { expected.client_key() } else { expected.server_key() };
            if let Lookup::Hit { index, session, .. } = reader.lookup(&key) {
                assert_eq!(number_of(&session), number);
                reader.touch(index, Millis(TOUCHED + number));
                hits += 1;
            }
        }
        // On a machine with fewer processors than threads, a reader that waits for its turn inside a burst would keep all
        // slots from being used again.
        reader.leave();
        thread::yield_now();
        reader.quiesce();
    }
    hits
}

/// Looks sessions up and scans without being registered, as `batonctl` does.
fn run_observer(directory: &Path, stop: &AtomicBool) -> u64 {
    let table = SessionTable::open_read_only(&table_path(directory), KIND).unwrap();
    let mut random = Random(77);
    let mut hits = 0;
    while !stop.load(Ordering::Relaxed) {
        let number = random.next() % SESSIONS;
        if let Lookup::Hit { session, .. } = table.lookup(&session(number).server_key()) {
            assert_eq!(number_of(&session), number);
            hits += 1;
        }
        let first = (random.next() % u64::from(CAPACITY)) as u32;
        table.scan(first, 8, |_, session| {
            number_of(&session);
        });
        thread::yield_now();
    }
    hits
}

/// What everybody must find while the writer is dead.
fn check_before_recovery(reader: &mut TableReader, words: &[AtomicU64]) {
    for number in 0..SESSIONS {
        if words[number as usize].load(Ordering::SeqCst) == PRESENT {
            for key in [session(number).client_key(), session(number).server_key()] {
                assert!(matches!(reader.lookup(&key), Lookup::Hit { .. }), "{number} is out of sight");
            }
        }
    }
    reader.quiesce();
}

/// What the successor must find; writes down what became of the operation that the death interrupted.
fn check_after_recovery(writer: &TableWriter, words: &[AtomicU64]) {
    let mut slots = vec![None; SESSIONS as usize];
    let scanned = writer.scan(0, u32::MAX, |index, session| {
        let number = number_of(&session);
        assert_eq!(slots[number as usize].replace(index), None, "session {number} is there twice");
    });
    assert_eq!((scanned.sessions, scanned.unreadable), (writer.len(), 0));
    assert_eq!(writer.len() + writer.free_slots(), CAPACITY, "a slot is lost");
    for number in 0..SESSIONS {
        let slot: Option<RecordIndex> = slots[number as usize];
        let found = [session(number).client_key(), session(number).server_key()].map(|key| {
            match writer.lookup(&key) {
                Lookup::Hit { index, .. } => Some(index),
                Lookup::Miss => None,
                Lookup::Contended => panic!("session {number}: a bucket is still odd"),
            }
        });
        assert_eq!(found, [slot; 2], "session {number} is not under both keys");
        match words[number as usize].load(Ordering::SeqCst) {
            PRESENT => assert!(slot.is_some(), "session {number} is lost"),
            ABSENT => assert!(slot.is_none(), "session {number} is back"),
            _ => {
                words[number as usize].store(if slot.is_some() { PRESENT } else { ABSENT }, Ordering::SeqCst)
            }
        }
    }
}

#[test]
fn a_table_survives_writers_killed_at_any_time() {
    let seed = RandomState::new().hash_one(0) | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    SessionTable::create(&table_path(directory), KIND, CAPACITY).unwrap();
    let journal = journal(directory);
    let words = words(&journal);
    let stop = AtomicBool::new(false);
    let mut checker = TableReader::attach(&table_path(directory), KIND, 63).unwrap();

    thread::scope(|scope| {
        let readers = [
            scope.spawn(|| run_worker(directory, 0, &stop)),
            scope.spawn(|| run_worker(directory, 1, &stop)),
            scope.spawn(|| run_observer(directory, &stop)),
        ];
        // Whatever fails below, the readers must end, or the scope never does.
        struct StopAtEnd<'a>(&'a AtomicBool);
        impl Drop for StopAtEnd<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop_at_end = StopAtEnd(&stop);
        let (mut interrupted, mut odd) = (0, 0);
        for _ in 0..KILLS {
            checker.leave();
            let writer = Writer::start(directory, &words[SESSIONS as usize], 1 + random.next() % 1000);
            writer.kill();
            checker.quiesce();
            check_before_recovery(&mut checker, words);
            let successor = TableWriter::attach(&table_path(directory), KIND).unwrap();
            check_after_recovery(&successor, words);
            interrupted += u32::from(successor.recovery().change_interrupted);
            odd += successor.recovery().odd_buckets;
        }
        drop(stop_at_end);
        let hits = readers.map(|reader| reader.join().unwrap());
        println!("{KILLS} kills, {interrupted} inside a change, {odd} inside a bucket; reader hits {hits:?}");
        assert!(interrupted > 0, "no kill hit a change: the test proves nothing");
        assert!(hits.iter().all(|hits| *hits > 0));
    });
}
