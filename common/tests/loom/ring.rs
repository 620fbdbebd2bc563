//! Models of the ring and of its dirty ranges.

use baton_common::id::RecordIndex;
use baton_common::shm::atomic::model;
use baton_common::shm::ring::Consumer;
use baton_common::time::Millis;
use loom::thread;

use super::fixture::{RingFile, TableFile, session};

fn next(consumer: &mut Consumer) -> Option<u64> {
    let mut item = [0; 8];
    consumer.read(&mut item).map(|length| {
        assert_eq!(length, 8, "an item of another length");
        u64::from_ne_bytes(item)
    })
}

/// Items come out whole and in their order, whatever slot they use again.
#[test]
fn items_arrive_whole_and_in_order() {
    let file = RingFile::new();
    model::check(2, move || {
        let (mut producer, mut consumer) = (file.producer(), file.consumer());
        let producing = thread::spawn(move || {
            let mut pushed = 0_u64;
            for _ in 0..4 {
                pushed += u64::from(producer.try_push(&(pushed + 1).to_ne_bytes()));
            }
            assert_eq!(producer.nonsense(), 0, "the consumer's index made no sense");
            pushed
        });
        let consuming = thread::spawn(move || {
            let mut got = 0;
            for _ in 0..3 {
                if let Some(item) = next(&mut consumer) {
                    got += 1;
                    assert_eq!(item, got, "another item than the next");
                    consumer.commit();
                }
            }
            (consumer, got)
        });
        let pushed = producing.join().unwrap();
        let (mut consumer, mut got) = consuming.join().unwrap();
        while let Some(item) = next(&mut consumer) {
            got += 1;
            assert_eq!(item, got, "another item than the next");
        }
        assert_eq!((got, consumer.resynchronised()), (pushed, 0), "items are lost");
    });
}

/// Whoever dies, at whichever store: no item is lost, and only what was not committed comes again.
#[test]
fn a_dead_end_loses_nothing() {
    for stores in 0..4 {
        let file = std::sync::Arc::new(RingFile::new());
        model::check(2, move || {
            let (mut producer, mut consumer) = (file.producer(), file.consumer());
            let successor = std::sync::Arc::clone(&file);
            let producing = thread::spawn(move || {
                let mut push =
                    |item: u64| assert!(producer.try_push(&item.to_ne_bytes()), "the ring is full");
                push(1);
                push(2);
            });
            let consuming = thread::spawn(move || {
                let mut handled = 0;
                model::killed_at(stores, || {
                    for _ in 0..2 {
                        if let Some(item) = next(&mut consumer) {
                            handled = item;
                            consumer.commit();
                        }
                    }
                });
                handled
            });
            let mut handled = consuming.join().unwrap();
            producing.join().unwrap();
            let mut consumer = successor.consumer();
            while let Some(item) = next(&mut consumer) {
                assert!(item == handled || item == handled + 1, "item {item} after {handled}");
                handled = item;
                consumer.commit();
            }
            assert_eq!(handled, 2, "items are lost");
        });
    }
}

/// Who takes a dirty range sees the change that it was marked for; and nothing that is marked is lost.
#[test]
fn a_range_that_is_taken_shows_its_change() {
    let (file, ring) = (TableFile::new(1, &[session(1)]), RingFile::new());
    model::check(3, move || {
        let (writer, observer) = (file.writer(), file.observer());
        let (producer, consumer) = (ring.producer(), ring.consumer());
        let marking = thread::spawn(move || {
            for now in [10, 11] {
                writer.touch(RecordIndex(0), Millis(now));
                producer.dirty().mark(0, 1);
            }
        });
        let taking = thread::spawn(move || {
            let mut sent = 0;
            for _ in 0..2 {
                if let Some(range) = consumer.dirty().take_next() {
                    sent = observer.session(RecordIndex(0)).unwrap().last_seen.0;
                    assert!(sent >= 10, "a range without its change");
                    consumer.dirty().finish(range);
                }
            }
            (consumer, sent)
        });
        marking.join().unwrap();
        let (consumer, sent) = taking.join().unwrap();
        assert!(
            sent == 11 || consumer.dirty().take_next().is_some(),
            "a change was not sent, nor its range marked"
        );
    });
}

/// A secondary that dies leaves the range that it was sending to its successor.
#[test]
fn a_range_outlives_who_took_it() {
    for stores in 0..4 {
        let ring = RingFile::new();
        model::check(3, move || {
            let (producer, consumer) = (ring.producer(), ring.consumer());
            let marking = thread::spawn(move || producer.dirty().mark(0, 1));
            let taking = thread::spawn(move || {
                let mut finished = false;
                let lived = model::killed_at(stores, || {
                    if let Some(range) = consumer.dirty().take_next() {
                        finished = true;
                        consumer.dirty().finish(range);
                    }
                });
                lived.is_some() && finished
            });
            marking.join().unwrap();
            let finished = taking.join().unwrap();
            let left = ring.consumer().dirty().take_next().is_some();
            assert!(finished || left, "a range is lost");
        });
    }
}
