//! Models of the table's readers beside its writer.

use baton_common::flow::{Address, FlowKey, address_words};
use baton_common::id::RecordIndex;
use baton_common::session::Session;
use baton_common::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use baton_common::shm::atomic::model;
use baton_common::time::Millis;
use loom::thread;

use super::fixture::{TableFile, is_whole, session};

/// A session that comes into use is found whole by a registered reader, or not yet; by both its keys at once.
#[test]
fn a_session_appears_whole() {
    let file = TableFile::new(4, &[]);
    model::check(2, move || {
        let (mut writer, reader) = (file.writer(), file.reader());
        let writing = thread::spawn(move || {
            writer.insert(&session(1)).unwrap();
        });
        let reading = thread::spawn(move || {
            let appeared = is_whole(reader.lookup(&session(1).client_key()), &session(1));
            let found = is_whole(reader.lookup(&session(1).server_key()), &session(1));
            assert!(found || !appeared, "a session that was there is gone");
        });
        reading.join().unwrap();
        writing.join().unwrap();
        let found = file.observer().lookup(&session(1).server_key());
        assert!(is_whole(found, &session(1)), "{found:?}: the session is not there in the end");
    });
}

/// A session that goes out of use is gone under both its keys at once.
#[test]
fn a_session_vanishes_at_once() {
    let file = TableFile::new(4, &[session(1)]);
    model::check(2, move || {
        let (mut writer, reader) = (file.writer(), file.reader());
        let writing = thread::spawn(move || assert!(writer.remove(RecordIndex(0))));
        let reading = thread::spawn(move || {
            let is_gone = reader.lookup(&session(1).client_key()) == Lookup::Miss;
            let found = is_whole(reader.lookup(&session(1).server_key()), &session(1));
            assert!(!(is_gone && found), "a session that was gone is there");
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// What a registered reader does with a record that it found: it marks the session as seen, somewhat later.
fn find_and_touch(reader: &TableReader) {
    if let Lookup::Hit { index, session: found, .. } = reader.lookup(&session(1).client_key()) {
        let touched = Session { last_seen: Millis(77), ..session(1) };
        assert!([session(1), touched].contains(&found), "what was found is not what was written: {found:?}");
        reader.touch(index, Millis(77));
    }
}

/// Replaces session 1 by session 2, in the one record that there is, as soon as readers are through.
fn replace(writer: &mut TableWriter) {
    assert!(writer.remove(RecordIndex(0)));
    let replaced = (0..2).any(|_| writer.insert(&session(2)).is_ok());
    if replaced {
        assert!(is_whole(writer.lookup(&session(2).client_key()), &session(2)));
    }
}

/// A record is used again only when no registered reader holds its number.
#[test]
fn a_record_is_not_used_again_under_its_reader() {
    let file = TableFile::new(1, &[session(1)]);
    model::check(2, move || {
        let (mut writer, mut reader) = (file.writer(), file.reader());
        let writing = thread::spawn(move || {
            replace(&mut writer);
            writer
        });
        let reading = thread::spawn(move || {
            find_and_touch(&reader);
            reader.quiesce();
            find_and_touch(&reader);
        });
        reading.join().unwrap();
        let writer = writing.join().unwrap();
        is_whole(writer.lookup(&session(2).client_key()), &session(2));
    });
}

/// Nor when the reader has only just come online.
#[test]
fn a_record_is_not_used_again_under_a_reader_that_comes_online() {
    let file = TableFile::new(1, &[session(1)]);
    model::check(2, move || {
        let (mut writer, mut reader) = (file.writer(), file.reader());
        reader.leave();
        let writing = thread::spawn(move || {
            replace(&mut writer);
            writer
        });
        let reading = thread::spawn(move || {
            reader.quiesce();
            find_and_touch(&reader);
            reader.leave();
        });
        reading.join().unwrap();
        let writer = writing.join().unwrap();
        is_whole(writer.lookup(&session(2).client_key()), &session(2));
    });
}

/// Who is not registered may be led to a record that is used again, and finds out.
#[test]
fn an_observer_sees_no_mixture() {
    let file = TableFile::new(1, &[session(1)]);
    model::check(1, move || {
        let (mut writer, observer) = (file.writer(), file.observer());
        let writing = thread::spawn(move || {
            assert!(writer.remove(RecordIndex(0)));
            writer.insert(&session(2)).unwrap();
        });
        let reading = thread::spawn(move || {
            is_whole(observer.lookup(&session(1).client_key()), &session(1));
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// So does who scans the records without the index.
#[test]
fn a_scan_sees_no_mixture() {
    let file = TableFile::new(1, &[session(1)]);
    model::check(2, move || {
        let (mut writer, observer) = (file.writer(), file.observer());
        let writing = thread::spawn(move || {
            assert!(writer.remove(RecordIndex(0)));
            writer.insert(&session(2)).unwrap();
        });
        let reading = thread::spawn(move || {
            if let Some(found) = observer.session(RecordIndex(0)) {
                assert!([session(1), session(2)].contains(&found), "a mixture: {found:?}");
            }
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// The buckets that a key may stand in, of a table with 16 of them.
fn buckets(table: &SessionTable, key: &FlowKey) -> [u64; 2] {
    let hash = table.hash(key).0;
    [hash & 0xffff_ffff, hash >> 32].map(|half| (half * 16) >> 32)
}

/// Ten sessions whose client-side keys have bucket 5 as their first, and whose server-side keys bucket 6; then one whose
/// client-side key may stand in these two only.
fn crowd() -> Vec<Session> {
    let table = TableFile::new(11, &[]).observer();
    let numbered = |client: u32, local: u32| {
        let mut session = session(1);
        session.client.port = client as u16;
        session.local.port = local as u16;
        session
    };
    let in_five = (0..).filter(|port| {
        let [first, second] = buckets(&table, &numbered(*port, 0).client_key());
        first == 5 && ![5, 6].contains(&second)
    });
    let in_six = (0..).filter(|port| {
        let [first, second] = buckets(&table, &numbered(0, *port).server_key());
        first == 6 && ![5, 6].contains(&second)
    });
    let crowding = in_five.zip(in_six).take(10).map(|(client, local)| numbered(client, local));
    let late_client = (0..).find(|port| buckets(&table, &numbered(*port, 0).client_key()) == [5, 6]).unwrap();
    let late_local = (0..).find(|port| buckets(&table, &numbered(0, *port).server_key())[0] == 1).unwrap();
    crowding.chain([numbered(late_client, late_local)]).collect()
}

/// A session whose entry is moved to its other bucket, to make room, is found all the time.
#[test]
fn an_entry_that_is_moved_is_found_meanwhile() {
    let mut sessions = crowd();
    let late = sessions.pop().unwrap();
    let file = TableFile::new(11, &sessions);
    let moved = sessions[0];
    model::check(2, move || {
        let (mut writer, reader) = (file.writer(), file.reader());
        let writing = thread::spawn(move || {
            writer.insert(&late).unwrap();
        });
        let reading = thread::spawn(move || {
            let found = reader.lookup(&moved.client_key());
            is_whole(found, &moved);
            assert_ne!(found, Lookup::Miss, "a session in use was not found");
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// Session 1, and another one whose virtual address wants the slot of the first one's.
fn sharing_a_slot() -> [Session; 2] {
    // As `session::addresses` looks for an address; if that changes, the mutations of the two models no longer fail.
    let slot = |address: Address| {
        let [high, low] = address_words(address);
        let folded = high.rotate_left(29) ^ low;
        ((folded ^ folded >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % 256
    };
    let mut other = session(2);
    let addresses = (0..=u16::MAX).map(|n| Address::v4([10, 1, (n >> 8) as u8, n as u8]));
    let wanted = slot(session(1).vip.address);
    other.vip.address = addresses.into_iter().find(|address| slot(*address) == wanted).unwrap();
    [session(1), other]
}

/// A shared address that no session names any more is overwritten, but not under a reader of the session that named it.
#[test]
fn an_address_is_not_overwritten_under_its_reader() {
    let [one, other] = sharing_a_slot();
    let file = TableFile::new(4, &[one]);
    model::check(2, move || {
        let (mut writer, mut reader) = (file.writer(), file.reader());
        reader.leave();
        let writing = thread::spawn(move || {
            assert!(writer.remove(RecordIndex(0)));
            writer.insert(&other).unwrap();
        });
        let reading = thread::spawn(move || {
            reader.quiesce();
            is_whole(reader.lookup(&one.client_key()), &one);
            is_whole(reader.lookup(&one.server_key()), &one);
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

/// Who is not registered may read an address that is overwritten, and finds out.
#[test]
fn an_observer_sees_no_address_of_another_session() {
    let [one, other] = sharing_a_slot();
    let file = TableFile::new(4, &[one]);
    model::check(2, move || {
        let (mut writer, observer) = (file.writer(), file.observer());
        let writing = thread::spawn(move || {
            assert!(writer.remove(RecordIndex(0)));
            writer.insert(&other).unwrap();
        });
        let reading = thread::spawn(move || {
            if let Some(found) = observer.session(RecordIndex(0)) {
                assert_eq!(found, one, "what was found is not what was written");
            }
            is_whole(observer.lookup(&one.server_key()), &one);
        });
        reading.join().unwrap();
        writing.join().unwrap();
    });
}
