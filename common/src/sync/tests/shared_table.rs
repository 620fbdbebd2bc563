//! The table in shared memory does what the obvious one does.

use std::collections::HashMap;

use super::rules::{ended, refreshed, reported};
use super::*;
use crate::id::Generation;
use crate::session::SessionState;
use crate::session::expiry::Sweep;
use crate::session::table::{SessionTable, TableWriter};
use crate::shm::header::FileKind;
use crate::sync::ageing;
use crate::sync::apply::{Circumstances, apply};
use crate::sync::wire::Body;

fn table(directory: &tempfile::TempDir) -> TableWriter {
    let path = FileKind::RemoteTable.path(directory.path(), 0);
    SessionTable::create(&path, FileKind::RemoteTable, 256).unwrap();
    TableWriter::attach(&path, FileKind::RemoteTable).unwrap()
}

fn sessions_in(table: &TableWriter) -> HashMap<FlowKey, Session> {
    let mut sessions = HashMap::new();
    table.scan(0, table.capacity(), |_, session| {
        sessions.insert(session.client_key(), session);
    });
    sessions
}

/// One record of few sessions, few owners and few generations, so that they meet.
fn any_message() -> impl Strategy<Value = (NodeId, bool, Body)> {
    let session = (0u8..4, 0u8..4, any::<bool>(), 2u16..5, 0u32..3, 16u8..=22, 0u64..100_000);
    (session, 0u8..3, any::<bool>()).prop_map(
        |((client, local, v4, owner, generation, state, idle), kind, late)| {
            let of = |number| if v4 { session_v4(number) } else { session_v6(number) };
            let session = Session {
                local: of(local).local,
                owner: NodeId(owner),
                generation: Generation(generation),
                state: SessionState::from_number(state).unwrap(),
                last_seen: NOW - idle,
                ..of(client)
            };
            let (owner, body) = [reported, ended, refreshed][usize::from(kind)](&session);
            (owner, late, body)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_shared_table_and_the_model_stay_equal(
        messages in proptest::collection::vec(any_message(), 1..200),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut shared = table(&directory);
        let mut model = ModelTable::new(256);
        for (sender, late, body) in messages {
            let is_local = |_: &FlowKey| false;
            let circumstances = Circumstances { sender, late, now: NOW, timeouts: &TIMEOUTS, is_local };

            let expected = apply(&body, &circumstances, &mut model);
            let found = apply(&body, &circumstances, &mut shared);

            model.assert_consistent();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(&sessions_in(&shared), &model.sessions);
        }
    }
}

#[test]
fn a_refresh_leaves_alone_what_a_worker_has_written_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let mut shared = table(&directory);
    let index = TableWriter::insert(&mut shared, &session_v4(1)).unwrap();
    shared.touch(index, NOW + 500);

    super::super::remote::RemoteTable::update(&mut shared, &Session { last_seen: NOW, ..session_v4(1) });

    assert_eq!(shared.session(index).unwrap().last_seen, NOW + 500);
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
