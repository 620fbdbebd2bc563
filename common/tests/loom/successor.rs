//! Models of a writer that is killed at any of its stores, and of its successor, beside a reader.

use std::sync::Arc;

use baton_common::id::RecordIndex;
use baton_common::session::table::{TableReader, TableWriter};
use baton_common::shm::atomic::model;
use loom::thread;

use super::fixture::{TableFile, is_whole, session};

/// More stores than any of the changes has.
const STORES_MAX: u32 = 60;

/// Kills the writer of `change` before each of its stores in turn. A registered reader and a successor run beside it: `look`
/// is what the reader checks; `is_right` says whether the successor's table is as it may be.
fn killed_at_every_store(
    file: TableFile,
    change: impl Fn(&mut TableWriter) + Copy + Send + Sync + 'static,
    look: impl Fn(&TableReader) + Copy + Send + Sync + 'static,
    is_right: impl Fn(&TableWriter) -> bool + Copy + Send + Sync + 'static,
) {
    let file = Arc::new(file);
    for stores in 0..STORES_MAX {
        let file = Arc::clone(&file);
        let survived = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let survives = Arc::clone(&survived);
        model::check(1, move || {
            let (mut writer, reader) = (file.writer(), file.reader());
            let survives = Arc::clone(&survives);
            let reading = thread::spawn(move || look(&reader));
            let dying = thread::spawn(move || {
                let lived = model::killed_at(stores, || change(&mut writer)).is_some();
                survives.store(lived, std::sync::atomic::Ordering::Relaxed);
            });
            // The kernel lets the successor have the lock when the dead process's stores are where all see them.
            dying.join().unwrap();
            let (successor, observer) = (Arc::clone(&file), file.observer());
            let succeeding = thread::spawn(move || {
                let successor = successor.writer();
                assert_eq!(
                    successor.len() + successor.free_slots(),
                    successor.capacity(),
                    "a slot has leaked"
                );
                assert!(is_right(&successor), "the table is not as it may be");
                let found = observer.lookup(&session(1).client_key());
                assert!(is_whole(found, &session(1)), "{found:?}: a bucket is left locked");
            });
            succeeding.join().unwrap();
            reading.join().unwrap();
        });
        if survived.load(std::sync::atomic::Ordering::Relaxed) {
            assert!(stores > 5, "the change has only {stores} stores");
            return;
        }
    }
    panic!("the change has more than {STORES_MAX} stores");
}

/// Whether the session stands under both its keys, or under neither.
fn is_all_or_nothing(table: &TableWriter, number: u8) -> bool {
    let keys = [session(number).client_key(), session(number).server_key()];
    let [client, server] = keys.map(|key| is_whole(table.lookup(&key), &session(number)));
    client == server
}

#[test]
fn an_insert_that_was_killed_is_done_or_undone() {
    killed_at_every_store(
        TableFile::new(2, &[session(1)]),
        |writer| {
            writer.insert(&session(2)).unwrap();
        },
        |reader| {
            is_whole(reader.lookup(&session(2).client_key()), &session(2));
        },
        |table| {
            is_all_or_nothing(table, 2)
                && is_whole(table.lookup(&session(1).client_key()), &session(1))
                && is_whole(table.lookup(&session(1).server_key()), &session(1))
        },
    );
}

#[test]
fn a_removal_that_was_killed_is_done_or_undone() {
    killed_at_every_store(
        TableFile::new(2, &[session(1), session(2)]),
        |writer| assert!(writer.remove(RecordIndex(1))),
        |reader| {
            is_whole(reader.lookup(&session(2).client_key()), &session(2));
            let other = reader.lookup(&session(1).client_key());
            assert!(is_whole(other, &session(1)), "{other:?}: a session in use was not found");
        },
        |table| {
            is_all_or_nothing(table, 2)
                && is_whole(table.lookup(&session(1).client_key()), &session(1))
                && is_whole(table.lookup(&session(1).server_key()), &session(1))
        },
    );
}
