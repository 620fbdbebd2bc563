//! Registered readers and expiry: a slot is used again only after every reader online is through with it.

use std::path::PathBuf;

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::expiry::Sweep;
use baton_common::session::table::{InsertError, Lookup, SessionTable, TableError, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::shm::readers::ReaderError;
use baton_common::shm::region::RegionError;
use baton_common::time::Millis;

const KIND: FileKind = FileKind::RemoteTable;

fn session(number: u16) -> Session {
    let endpoint = |net: u8| Endpoint { address: Address::v4([10, net, 0, 1]), port: number };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1),
        vip: endpoint(2),
        local: endpoint(3),
        server: endpoint(4),
        owner: NodeId(1),
        generation: Generation(1),
        state: SessionState::TcpEstablished,
        last_seen: Millis(u64::from(number)),
        last_sent: Millis(0),
    }
}

struct Table {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Table {
    fn full(capacity: u32) -> (Table, TableWriter) {
        let directory = tempfile::tempdir().unwrap();
        let path = KIND.path(directory.path(), 0);
        SessionTable::create(&path, KIND, capacity).unwrap();
        let mut writer = TableWriter::attach(&path, KIND).unwrap();
        for number in 0..capacity as u16 {
            writer.insert(&session(number)).unwrap();
        }
        (Table { path, _directory: directory }, writer)
    }

    fn reader(&self, slot: usize) -> TableReader {
        TableReader::attach(&self.path, KIND, slot).unwrap()
    }
}

#[test]
fn a_slot_is_not_used_again_while_a_reader_may_hold_its_number() {
    let (table, mut writer) = Table::full(3);
    let (mut first, mut second) = (table.reader(0), table.reader(1));
    assert!(writer.remove(RecordIndex(1)));
    assert_eq!(writer.insert(&session(9)), Err(InsertError::Full));
    first.quiesce();
    assert_eq!(writer.insert(&session(9)), Err(InsertError::Full));
    second.quiesce();
    assert_eq!(writer.insert(&session(9)), Ok(RecordIndex(1)));
}

#[test]
fn a_reader_that_left_or_is_gone_holds_nothing_up() {
    let (table, mut writer) = Table::full(3);
    let mut left = table.reader(0);
    left.leave();
    drop(table.reader(1));
    assert!(writer.remove(RecordIndex(2)));
    assert_eq!(writer.insert(&session(9)), Ok(RecordIndex(2)));
}

#[test]
fn a_reader_that_left_changes_nothing_until_it_is_back() {
    let (table, writer) = Table::full(1);
    let mut reader = table.reader(0);
    reader.leave();
    reader.touch(RecordIndex(0), Millis(77));
    assert_eq!(writer.session(RecordIndex(0)).unwrap().last_seen, Millis(0));
    reader.quiesce();
    reader.touch(RecordIndex(0), Millis(77));
    reader.set_state(RecordIndex(0), SessionState::TcpReset);
    reader.set_owner(RecordIndex(0), NodeId(5), Generation(6));
    reader.set_last_sent(RecordIndex(0), Millis(8));
    let expected = Session {
        last_seen: Millis(77),
        state: SessionState::TcpReset,
        owner: NodeId(5),
        generation: Generation(6),
        last_sent: Millis(8),
        ..session(0)
    };
    assert_eq!(writer.session(RecordIndex(0)), Some(expected));
}

#[test]
fn a_reader_slot_has_one_reader() {
    let (table, _writer) = Table::full(1);
    let first = table.reader(5);
    let error = TableReader::attach(&table.path, KIND, 5).err().unwrap();
    assert!(
        matches!(error, TableError::Reader(ReaderError::Taken { slot: 5, pid }) if pid == std::process::id()),
        "{error}"
    );
    drop(first);
    table.reader(5);
    let error = TableReader::attach(&table.path, KIND, 64).err().unwrap();
    assert!(matches!(error, TableError::Reader(ReaderError::NoSuchSlot { slot: 64 })), "{error}");
}

#[test]
fn a_table_has_one_writer() {
    let (table, writer) = Table::full(1);
    let error = TableWriter::attach(&table.path, KIND).err().unwrap();
    assert!(matches!(error, TableError::Region(RegionError::Locked { .. })), "{error}");
    drop(writer);
    TableWriter::attach(&table.path, KIND).unwrap();
}

#[test]
fn a_session_with_a_key_that_is_there_is_not_added() {
    let (_table, mut writer) = Table::full(2);
    writer.remove(RecordIndex(1));
    let same_client = Session { client: session(0).client, vip: session(0).vip, ..session(7) };
    let same_server = Session { local: session(0).local, server: session(0).server, ..session(7) };
    assert_eq!(writer.insert(&same_client), Err(InsertError::Exists(RecordIndex(0))));
    assert_eq!(writer.insert(&same_server), Err(InsertError::Exists(RecordIndex(0))));
    assert_eq!((writer.len(), writer.free_slots()), (1, 1));
    assert_eq!(writer.lookup(&session(7).client_key()), Lookup::Miss);
    writer.insert(&session(7)).unwrap();
}

#[test]
fn a_sweep_removes_what_is_due_and_looks_at_no_more_than_its_budget() {
    let (_table, mut writer) = Table::full(100);
    let mut sweep = Sweep::new();
    let mut removed = Vec::new();
    for _ in 0..4 {
        let deadline = |session: &Session| session.last_seen + 10;
        sweep.poll(Millis(59), &mut writer, 15, deadline, |_, session| removed.push(session.client.port));
    }
    removed.sort_unstable();
    assert_eq!(removed, (0..50).collect::<Vec<u16>>());
    assert_eq!(writer.len(), 50);
    // The other 40 say that they will be seen later than now: they become as old as now.
    sweep.poll(Millis(59), &mut writer, 40, |session| session.last_seen + 10, |_, _| panic!("not due"));
    let count = sweep.poll(Millis(69), &mut writer, 100, |session| session.last_seen + 10, |_, _| {});
    assert_eq!((count, writer.len()), (50, 0));
}
