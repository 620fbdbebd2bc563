//! The tables in shared memory do what the obvious ones do.

use super::rules::send;
use super::*;
use crate::id::Generation;
use crate::session::SessionState;
use crate::session::expiry::Sweep;
use crate::session::table::{SessionTable, TableWriter};
use crate::shm::header::FileKind;
use crate::sync::tables::SharedTables;

fn table(directory: &tempfile::TempDir) -> TableWriter {
    let path = FileKind::RemoteTable.path(directory.path(), 0);
    SessionTable::create(&path, FileKind::RemoteTable, 256).unwrap();
    TableWriter::attach(&path, FileKind::RemoteTable).unwrap()
}

/// Node 1 with a remote table in a file.
fn shared(directory: &tempfile::TempDir) -> Node<SharedTables> {
    Node::with_tables(RECEIVER, SharedTables::new(table(directory), Vec::new()))
}

/// Two owners of one session, and the next session under its key.
const GENERATIONS: [Generation; 3] = [Generation(0), Generation(1), Generation(8)];

/// What an owner says of few sessions, few owners and few generations, so that they meet.
fn any_news() -> impl Strategy<Value = (EventKind, Session, bool)> {
    let session = (0u8..4, 0u8..4, any::<bool>(), 2u16..5, 0usize..3, 16u8..=22, 0u64..700_000);
    (session, 0usize..3, any::<bool>()).prop_map(
        |((client, local, v4, owner, generation, state, idle), kind, late)| {
            let of = |number| if v4 { session_v4(number) } else { session_v6(number) };
            let session = Session {
                local: of(local).local,
                owner: NodeId(owner),
                generation: GENERATIONS[generation],
                state: SessionState::from_number(state).unwrap(),
                last_seen: NOW - idle,
                ..of(client)
            };
            ([EventKind::Upsert, EventKind::Delete, EventKind::Refresh][kind], session, late)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_shared_table_and_the_model_stay_equal(news in proptest::collection::vec(any_news(), 1..200)) {
        let directory = tempfile::tempdir().unwrap();
        let (mut shared, mut model) = (shared(&directory), Node::new());
        for (kind, session, late) in news {
            let expected = send(kind, &session, late, &mut model);
            let found = send(kind, &session, late, &mut shared);

            prop_assert_eq!(found, expected);
            prop_assert_eq!(shared.sessions(), model.sessions());
            prop_assert_eq!(&model.tables.violation, &None);
        }
    }
}

#[test]
fn a_refresh_leaves_alone_what_a_worker_has_written_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let mut node = shared(&directory);
    let place = node.tables.insert(&session_v4(1)).unwrap();
    node.tables.touch(place, NOW + 500);

    assert_eq!(send(EventKind::Refresh, &session_v4(1), false, &mut node), Ok(()));

    assert_eq!(node.tables.session(place).unwrap().last_seen, NOW + 500);
}

#[test]
fn the_sweep_keeps_a_remote_session_for_its_timeout_and_the_margin() {
    let directory = tempfile::tempdir().unwrap();
    let mut shared = table(&directory);
    TableWriter::insert(&mut shared, &session_v4(1)).unwrap();
    let kept_ms = u64::from(TIMEOUTS.tcp_established_ms + TIMEOUTS.remote_margin_ms);
    let mut sweep_at = |now: Millis| {
        let deadline = |session: &Session| ageing::remote_deadline(session, &TIMEOUTS);
        Sweep::new().poll(now, &mut shared, 256, deadline, |_, _| {})
    };

    assert_eq!(sweep_at(NOW + kept_ms - 1), 0);
    assert_eq!(sweep_at(NOW + kept_ms), 1);
}
