//! Readers without a registration: what they find is one session as it was, never a mixture of two, though the slot is used
//! again under their hands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use baton_common::flow::{Address, Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::table::{Lookup, SessionTable, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::time::Millis;

const KIND: FileKind = FileKind::LocalTable;
const ROUNDS: u32 = 200_000;

/// Sessions with the same client-side key, one after the other in the same slot; all else tells them apart.
fn session(number: u16) -> Session {
    let endpoint = |net: u8, number: u16| Endpoint { address: Address::v6([net; 16]), port: number };
    let net = number as u8;
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1, 1),
        vip: endpoint(2, 2),
        local: endpoint(net, number),
        server: endpoint(net, number),
        owner: NodeId(number),
        generation: Generation(u32::from(number)),
        state: SessionState::TcpEstablished,
        last_seen: Millis(u64::from(number)),
        last_sent: Millis(u64::from(number)),
    }
}

#[test]
fn an_observer_never_sees_a_torn_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = KIND.path(directory.path(), 0);
    SessionTable::create(&path, KIND, 1).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let observe = || {
            let table = SessionTable::open_read_only(&path, KIND).unwrap();
            let key = session(100).client_key();
            let mut hits = 0;
            while !done.load(Ordering::Relaxed) {
                if let Lookup::Hit { session: found, .. } = table.lookup(&key) {
                    assert_eq!(found, session(found.local.port));
                    hits += 1;
                }
                table.scan(0, 1, |_, found| assert_eq!(found, session(found.local.port)));
            }
            hits
        };
        let observers = [scope.spawn(observe), scope.spawn(observe)];
        let write = || {
            let mut writer = TableWriter::attach(&path, KIND).unwrap();
            for round in 0..ROUNDS {
                writer.insert(&session(100 + (round % 100) as u16)).unwrap();
                assert!(writer.remove(RecordIndex(0)));
            }
            done.store(true, Ordering::Relaxed);
        };
        scope.spawn(write).join().unwrap();
        let hits: u64 = observers.map(|observer| observer.join().unwrap()).iter().sum();
        println!("{hits} hits");
    });
}
