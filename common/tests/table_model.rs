//! A table does what a map does: random operations on both, with the writer replaced in between.

use std::collections::HashMap;
use std::path::PathBuf;

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::table::{InsertError, Lookup, SessionTable, TableReader, TableWriter};
use baton_common::session::{Direction, Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::time::Millis;
use proptest::prelude::*;

const CAPACITY: u32 = 40;

fn session(number: u8, server_port: u8) -> Session {
    let endpoint = |net: u8, last: u8, port: u8| Endpoint {
        address: Address::v4([10, net, 0, last]),
        port: u16::from(port),
    };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1, number, 1),
        vip: endpoint(9, 1, 80),
        local: endpoint(4, number % 16, server_port),
        server: endpoint(3, 1, 80),
        owner: NodeId(1),
        generation: Generation(1),
        state: SessionState::TcpEstablished,
        last_seen: Millis(u64::from(number)),
        last_sent: Millis(0),
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Insert { number: u8, server_port: u8 },
    Remove { choice: usize },
    Touch { choice: usize, now: u64 },
    SetOwner { choice: usize, owner: u16, generation: u32 },
    Quiesce,
    Restart,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (0..60u8, 0..4u8).prop_map(|(number, server_port)| Operation::Insert { number, server_port }),
        4 => any::<usize>().prop_map(|choice| Operation::Remove { choice }),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(choice, now)| Operation::Touch { choice, now }),
        2 => (any::<usize>(), any::<u16>(), any::<u32>())
            .prop_map(|(choice, owner, generation)| Operation::SetOwner { choice, owner, generation }),
        2 => Just(Operation::Quiesce),
        1 => Just(Operation::Restart),
    ]
}

/// The table, its reader, and the map that they are held against.
struct Both {
    path: PathBuf,
    writer: Option<TableWriter>,
    reader: TableReader,
    model: HashMap<u32, Session>,
    /// Slots freed since the reader's last quiescent state: it may still hold their numbers.
    held: Vec<u32>,
}

impl Both {
    fn writer(&mut self) -> &mut TableWriter {
        self.writer.as_mut().unwrap()
    }

    fn chosen(&self, choice: usize) -> Option<RecordIndex> {
        let mut numbers: Vec<u32> = self.model.keys().copied().collect();
        numbers.sort_unstable();
        (!numbers.is_empty()).then(|| RecordIndex(numbers[choice % numbers.len()]))
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::Insert { number, server_port } => self.insert(session(number, server_port)),
            Operation::Remove { choice } => match self.chosen(choice) {
                Some(index) => {
                    assert!(self.writer().remove(index));
                    assert!(!self.writer().remove(index));
                    self.model.remove(&index.0);
                    self.held.push(index.0);
                }
                None => assert!(!self.writer().remove(RecordIndex(choice as u32))),
            },
            Operation::Touch { choice, now } => {
                if let Some(index) = self.chosen(choice) {
                    self.reader.touch(index, Millis(now));
                    self.model.get_mut(&index.0).unwrap().last_seen = Millis(now);
                }
            }
            Operation::SetOwner { choice, owner, generation } => {
                if let Some(index) = self.chosen(choice) {
                    let changed = self.model.get_mut(&index.0).unwrap();
                    (changed.owner, changed.generation) = (NodeId(owner), Generation(generation));
                    let changed = *changed;
                    self.writer().update(index, &changed);
                }
            }
            Operation::Quiesce => {
                self.reader.quiesce();
                self.held.clear();
            }
            Operation::Restart => {
                self.writer = None;
                let writer = TableWriter::attach(&self.path, FileKind::RemoteTable).unwrap();
                assert_eq!(writer.recovery().sessions as usize, self.model.len());
                assert!(!writer.recovery().change_interrupted);
                assert_eq!(writer.recovery().entries_dropped + writer.recovery().sessions_dropped, 0);
                self.writer = Some(writer);
                // The new writer cannot know which vacant slots the reader still holds.
                self.held = (0..CAPACITY).filter(|slot| !self.model.contains_key(slot)).collect();
            }
        }
    }

    fn insert(&mut self, session: Session) {
        let keys = [session.client_key(), session.server_key()];
        let clash = |held: &Session| keys.contains(&held.client_key()) || keys.contains(&held.server_key());
        let clashing: Vec<u32> =
            self.model.iter().filter(|(_, held)| clash(held)).map(|(slot, _)| *slot).collect();
        match self.writer().insert(&session) {
            Ok(index) => {
                assert!(clashing.is_empty());
                assert!(!self.held.contains(&index.0), "slot {index} is used again under its reader");
                assert_eq!(self.model.insert(index.0, session), None);
            }
            Err(InsertError::Exists(index)) => assert!(clashing.contains(&index.0)),
            Err(InsertError::Full) => {
                assert!(clashing.is_empty());
                assert!(self.model.len() + self.held.len() >= CAPACITY as usize);
            }
        }
    }

    fn check(&mut self) {
        let free = self.writer().free_slots();
        let writer = self.writer.as_ref().unwrap();
        assert_eq!(writer.len() as usize, self.model.len());
        assert_eq!(free + writer.len(), CAPACITY);
        let observer = SessionTable::open_read_only(&self.path, FileKind::RemoteTable).unwrap();
        let views: [&SessionTable; 3] = [writer, &self.reader, &observer];
        for table in views {
            let mut scanned = HashMap::new();
            let outcome = table.scan(0, u32::MAX, |index, session| {
                assert_eq!(scanned.insert(index.0, session), None);
            });
            assert_eq!(outcome.unreadable, 0);
            assert_eq!(scanned, self.model);
            for (slot, session) in &self.model {
                let hit = |direction| Lookup::Hit { index: RecordIndex(*slot), direction, session: *session };
                assert_eq!(table.lookup(&session.client_key()), hit(Direction::Inbound));
                assert_eq!(table.lookup(&session.server_key()), hit(Direction::Outbound));
                assert_eq!(table.session(RecordIndex(*slot)), Some(*session));
            }
            assert_eq!(table.lookup(&session(200, 0).client_key()), Lookup::Miss);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_table_agrees_with_a_map(operations in proptest::collection::vec(operation(), 1..150)) {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::RemoteTable.path(directory.path(), 0);
        SessionTable::create(&path, FileKind::RemoteTable, CAPACITY).unwrap();
        let writer = Some(TableWriter::attach(&path, FileKind::RemoteTable).unwrap());
        let reader = TableReader::attach(&path, FileKind::RemoteTable, 3).unwrap();
        let held = Vec::new();
        let mut both = Both { path, writer, reader, model: HashMap::new(), held };
        for operation in operations {
            both.apply(operation);
        }
        both.check();
    }
}

#[test]
fn a_table_takes_all_the_sessions_it_was_made_for() {
    let directory = tempfile::tempdir().unwrap();
    for capacity in [1, 2, 47, 48, 1000, 20_000] {
        let path = directory.path().join(format!("local-{capacity}"));
        SessionTable::create(&path, FileKind::LocalTable, capacity).unwrap();
        let mut writer = TableWriter::attach(&path, FileKind::LocalTable).unwrap();
        let numbered = |number: u32| {
            let port = |number: u32| (number % 60_000) as u16;
            let mut session = session((number / 60_000) as u8, 0);
            session.client.port = port(number);
            session.local.port = port(number);
            session
        };
        for number in 0..capacity {
            writer.insert(&numbered(number)).unwrap();
        }
        assert_eq!(writer.insert(&numbered(capacity)), Err(InsertError::Full));
        assert_eq!((writer.len(), writer.free_slots()), (capacity, 0));
        for number in 0..capacity {
            assert!(matches!(writer.lookup(&numbered(number).server_key()), Lookup::Hit { .. }));
        }
    }
}
