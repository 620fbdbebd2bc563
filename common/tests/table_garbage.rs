//! A table whose memory was overwritten with anything is slow or wrong at worst: nothing panics, hangs or reads elsewhere,
//! and the next writer makes it whole.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::expiry::Sweep;
use baton_common::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::shm::region::Region;
use baton_common::time::Millis;
use proptest::prelude::*;

const KIND: FileKind = FileKind::RemoteTable;
const CAPACITY: u32 = 48;
const CONTROL_OFFSET: u64 = 4096;
const READERS_OFFSET: u64 = 8192;
/// After 256 shared addresses.
const BUCKETS_OFFSET: u64 = 12_288 + 256 * 16;

fn session(number: u16) -> Session {
    let endpoint = |net: u8| Endpoint { address: Address::v4([10, net, 0, 1]), port: number };
    Session {
        protocol: Protocol::Udp,
        client: endpoint(1),
        vip: endpoint(2),
        local: endpoint(3),
        server: endpoint(4),
        owner: NodeId(1),
        generation: Generation(1),
        state: SessionState::UdpTwoWay,
        last_seen: Millis(5),
        last_sent: Millis(0),
    }
}

struct Table {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Table {
    fn with_sessions(count: u16) -> (Table, TableWriter) {
        let directory = tempfile::tempdir().unwrap();
        let path = KIND.path(directory.path(), 0);
        SessionTable::create(&path, KIND, CAPACITY).unwrap();
        let mut writer = TableWriter::attach(&path, KIND).unwrap();
        for number in 0..count {
            writer.insert(&session(number)).unwrap();
        }
        (Table { path, _directory: directory }, writer)
    }

    fn overwrite(&self, offset: u64, value: u64) {
        let region = Region::open(&self.path, KIND).unwrap();
        region.at::<AtomicU64>(offset).unwrap().store(value, Ordering::SeqCst);
    }

    fn bytes(&self) -> u64 {
        Region::open(&self.path, KIND).unwrap().bytes()
    }
}

/// Everything that can be asked of a table.
fn ask_everything(table: &SessionTable) {
    for number in 0..CAPACITY as u16 {
        for key in [session(number).client_key(), session(number).server_key()] {
            table.prefetch(table.hash(&key));
            if let Lookup::Hit { session: found, .. } = table.lookup(&key) {
                assert!(found.client_key() == key || found.server_key() == key);
            }
        }
    }
    for index in [0, 1, CAPACITY - 1, CAPACITY, u32::MAX] {
        table.session(RecordIndex(index));
    }
    table.scan(0, u32::MAX, |_, _| {});
    assert_eq!(table.scan(u32::MAX, 5, |_, _| panic!("there is no such slot")).next_slot, CAPACITY);
    assert!(table.len() <= CAPACITY);
}

/// A word of the kinds that come up in tables, or of any.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
        (0..64u64),
        any::<u32>().prop_map(|low| u64::from(low) << 32 | 1)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn overwritten_memory_harms_nobody_and_is_put_right(
        words in proptest::collection::vec((any::<prop::sample::Index>(), word()), 1..60),
    ) {
        let (table, mut writer) = Table::with_sessions(30);
        let observer = SessionTable::open_read_only(&table.path, KIND).unwrap();
        let mut reader = TableReader::attach(&table.path, KIND, 0).unwrap();
        let last = table.bytes() / 8;
        for (position, value) in words {
            table.overwrite(CONTROL_OFFSET + 8 * position.index((last - 512) as usize) as u64, value);
        }
        for view in [&observer, &*reader, &*writer] {
            ask_everything(view);
        }
        reader.touch(RecordIndex(3), Millis(9));
        reader.quiesce();
        let mut sweep = Sweep::new();
        sweep.poll(Millis(u64::MAX), &mut writer, 20, |session| session.last_seen, |_, _| {});
        for number in 0..10 {
            writer.remove(RecordIndex(number));
            let _ = writer.insert(&session(100 + number as u16));
        }
        drop(writer);

        let mut successor = TableWriter::attach(&table.path, KIND).unwrap();
        prop_assert_eq!(successor.len() + successor.free_slots(), CAPACITY);
        let mut live = Vec::new();
        let scanned = successor.scan(0, u32::MAX, |index, session| live.push((index, session)));
        prop_assert_eq!((scanned.sessions, scanned.unreadable), (successor.len(), 0));
        for (_, session) in &live {
            for key in [session.client_key(), session.server_key()] {
                let hit = matches!(observer.lookup(&key), Lookup::Hit { .. });
                prop_assert!(hit, "{:?} is not found", key);
            }
        }
        drop(reader);
        for (index, _) in live {
            prop_assert!(successor.remove(index));
        }
        prop_assert_eq!((successor.len(), successor.free_slots()), (0, CAPACITY));
        successor.reset_dead_readers();
        for number in 0..CAPACITY as u16 {
            let inserted = successor.insert(&session(number));
            prop_assert!(inserted.is_ok(), "{}: {:?}", number, inserted);
        }
    }
}

#[test]
fn a_bucket_that_stays_odd_hides_nothing_from_a_registered_reader() {
    let (table, writer) = Table::with_sessions(30);
    drop(writer);
    let buckets = 16;
    for bucket in 0..buckets {
        let offset = BUCKETS_OFFSET + 64 * bucket;
        let region = Region::open(&table.path, KIND).unwrap();
        region.at::<AtomicU64>(offset).unwrap().fetch_or(1, Ordering::SeqCst);
    }
    let reader = TableReader::attach(&table.path, KIND, 0).unwrap();
    let observer = SessionTable::open_read_only(&table.path, KIND).unwrap();
    for number in 0..30 {
        assert!(matches!(reader.lookup(&session(number).client_key()), Lookup::Hit { .. }));
        assert!(matches!(reader.lookup(&session(number).server_key()), Lookup::Hit { .. }));
        assert_eq!(observer.lookup(&session(number).client_key()), Lookup::Contended);
    }
    assert_eq!(reader.lookup(&session(99).client_key()), Lookup::Contended);
    let scanned = observer.scan(0, CAPACITY, |_, _| {});
    assert_eq!((scanned.sessions, scanned.unreadable), (30, 0));
    let successor = TableWriter::attach(&table.path, KIND).unwrap();
    assert_eq!(successor.recovery().odd_buckets, 16);
    assert_eq!(successor.recovery().sessions, 30);
    assert!(matches!(observer.lookup(&session(7).client_key()), Lookup::Hit { .. }));
}

#[test]
fn a_state_that_means_nothing_is_neither_a_hit_nor_a_miss() {
    let (table, mut writer) = Table::with_sessions(1);
    let slab = BUCKETS_OFFSET + 16 * 64;
    let Lookup::Hit { index, .. } = writer.lookup(&session(0).client_key()) else { panic!("not there") };
    table.overwrite(slab + u64::from(index.0) * 64 + 6 * 8, 99);
    assert_eq!(writer.lookup(&session(0).client_key()), Lookup::Contended);
    assert_eq!(writer.scan(0, CAPACITY, |_, _| {}).unreadable, 1);
    let mut sweep = Sweep::new();
    sweep.poll(Millis(0), &mut writer, CAPACITY, |_| Millis(u64::MAX), |_, _| panic!("nothing expires"));
    assert_eq!(sweep.invalid(), 1);
    assert_eq!((writer.len(), writer.free_slots()), (0, CAPACITY));
}

#[test]
fn a_reader_slot_of_nobody_holds_nothing_up() {
    let (table, mut writer) = Table::with_sessions(CAPACITY as u16);
    // Online, at an epoch long gone, of a process that cannot be.
    table.overwrite(READERS_OFFSET + 7 * 64, 1);
    table.overwrite(READERS_OFFSET + 7 * 64 + 8, u64::from(u32::MAX));
    assert!(writer.remove(RecordIndex(5)));
    assert!(writer.insert(&session(500)).is_err());
    assert_eq!(writer.reset_dead_readers(), 1);
    assert_eq!(writer.insert(&session(500)), Ok(RecordIndex(5)));
}
