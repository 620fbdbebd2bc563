//! Rings between processes: order, wrap-around, death of either end, and nonsense in the shared words.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use baton_common::shm::header::{FileKind, HEADER_BYTES};
use baton_common::shm::region::Region;
use baton_common::shm::ring::{self, Consumer, Producer, RingError};
use proptest::prelude::*;

const KIND: FileKind = FileKind::EventRing;

struct RingFile {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl RingFile {
    fn new(slots: u32, item_bytes: u32) -> RingFile {
        let directory = tempfile::tempdir().unwrap();
        let path = KIND.path(directory.path(), 0);
        ring::create(&path, KIND, slots, item_bytes).unwrap();
        RingFile { path, _directory: directory }
    }

    fn producer(&self) -> Producer {
        Producer::attach(&self.path, KIND).unwrap()
    }

    fn consumer(&self) -> Consumer {
        Consumer::attach(&self.path, KIND).unwrap()
    }

    /// Writes a word of the file behind everybody's back.
    fn overwrite(&self, offset: u64, value: u64) {
        let region = Region::open(&self.path, KIND).unwrap();
        region.at::<AtomicU64>(offset).unwrap().store(value, Ordering::SeqCst);
    }
}

const HEAD_OFFSET: u64 = HEADER_BYTES;
const TAIL_OFFSET: u64 = HEADER_BYTES + 64;
const SLOTS_OFFSET: u64 = HEADER_BYTES + 4096;

fn pop(consumer: &mut Consumer) -> Option<Vec<u8>> {
    let mut buffer = vec![0xee; consumer.item_bytes()];
    let length = consumer.pop(&mut buffer)?;
    buffer.truncate(length);
    Some(buffer)
}

#[test]
fn a_full_ring_takes_nothing_and_changes_nothing() {
    let file = RingFile::new(4, 8);
    let (mut producer, mut consumer) = (file.producer(), file.consumer());
    for item in 0..4u8 {
        assert!(producer.try_push(&[item]));
    }
    assert!(!producer.try_push(&[9]));
    assert_eq!(pop(&mut consumer), Some(vec![0]));
    assert!(producer.try_push(&[4]));
    let rest: Vec<_> = std::iter::from_fn(|| pop(&mut consumer)).collect();
    assert_eq!(rest, [[1], [2], [3], [4]]);
}

#[test]
fn an_item_larger_than_a_slot_is_not_taken() {
    let file = RingFile::new(4, 20);
    let mut producer = file.producer();
    assert!(!producer.try_push(&[0; 21]));
    assert!(!producer.try_push_parts(&[0; 20], &[0]));
    assert!(producer.try_push_parts(&[0; 10], &[0; 10]));
    assert_eq!(file.consumer().available(), 1);
}

#[test]
fn what_a_dead_consumer_did_not_commit_comes_again() {
    let file = RingFile::new(8, 8);
    let mut producer = file.producer();
    for item in 0..6u8 {
        assert!(producer.try_push(&[item]));
    }
    let mut buffer = [0; 8];
    let mut consumer = file.consumer();
    assert_eq!(consumer.read(&mut buffer), Some(1));
    consumer.commit();
    assert_eq!(consumer.read(&mut buffer), Some(1));
    assert_eq!(consumer.read(&mut buffer), Some(1));
    drop(consumer);
    let mut successor = file.consumer();
    let items: Vec<_> = std::iter::from_fn(|| pop(&mut successor)).collect();
    assert_eq!(items, [[1], [2], [3], [4], [5]]);
}

#[test]
fn a_rewound_consumer_reads_from_the_last_commit() {
    let file = RingFile::new(8, 8);
    let mut producer = file.producer();
    assert!(producer.try_push(b"one") && producer.try_push(b"two"));
    let mut consumer = file.consumer();
    let mut buffer = [0; 8];
    consumer.read(&mut buffer);
    consumer.read(&mut buffer);
    assert_eq!(consumer.read(&mut buffer), None);
    consumer.rewind();
    assert_eq!(pop(&mut consumer), Some(b"one".to_vec()));
    assert_eq!(pop(&mut consumer), Some(b"two".to_vec()));
    assert_eq!(pop(&mut consumer), None);
}

#[test]
fn a_new_producer_goes_on_where_the_dead_one_stopped() {
    let file = RingFile::new(4, 8);
    let mut consumer = file.consumer();
    for item in 0..100u8 {
        assert!(file.producer().try_push(&[item]));
        assert_eq!(pop(&mut consumer), Some(vec![item]));
    }
}

#[test]
fn a_tail_that_makes_no_sense_is_given_up_and_the_ring_goes_on() {
    let file = RingFile::new(4, 8);
    let (mut producer, mut consumer) = (file.producer(), file.consumer());
    assert!(producer.try_push(b"lost"));
    file.overwrite(TAIL_OFFSET, 1 << 40);
    assert_eq!(pop(&mut consumer), None);
    assert_eq!(consumer.resynchronised(), 1);
    // The producer's own count is still right, so the two ends meet within two of its items.
    let mut arrived = Vec::new();
    for item in 0..10u8 {
        producer.try_push(&[item]);
        arrived.extend(pop(&mut consumer));
    }
    assert!(arrived.ends_with(&[vec![8], vec![9]]), "{arrived:?}");
}

#[test]
fn a_head_that_makes_no_sense_is_put_right_by_its_owner() {
    let file = RingFile::new(4, 8);
    let (mut producer, mut consumer) = (file.producer(), file.consumer());
    for item in 0..4u8 {
        assert!(producer.try_push(&[item]));
    }
    file.overwrite(HEAD_OFFSET, u64::MAX / 2);
    assert!(!producer.try_push(&[9]));
    assert!(producer.nonsense() > 0);
    assert_eq!(std::iter::from_fn(|| pop(&mut consumer)).count(), 4);
    assert!(producer.try_push(&[9]));
    file.overwrite(HEAD_OFFSET, u64::MAX / 2);
    assert_eq!(pop(&mut consumer), Some(vec![9]));
    file.overwrite(HEAD_OFFSET, u64::MAX / 2);
    assert_eq!(pop(&mut consumer), None);
    for item in 0..4u8 {
        assert!(producer.try_push(&[item]), "an idle consumer leaves its index wrong");
    }
}

#[test]
fn new_ends_meet_whatever_the_indices_were() {
    for (head, tail) in [(5, 1 << 60), (u64::MAX, 3), (1 << 33, 7), (u64::MAX - 1, u64::MAX)] {
        let file = RingFile::new(4, 8);
        file.overwrite(HEAD_OFFSET, head);
        file.overwrite(TAIL_OFFSET, tail);
        let (mut producer, mut consumer) = (file.producer(), file.consumer());
        while pop(&mut consumer).is_some() {}
        for item in 0..10u8 {
            assert!(producer.try_push(&[item]), "head {head}, tail {tail}");
            assert_eq!(pop(&mut consumer), Some(vec![item]), "head {head}, tail {tail}");
        }
    }
}

#[test]
fn an_item_with_an_impossible_length_is_counted_and_skipped() {
    let file = RingFile::new(4, 8);
    let (mut producer, mut consumer) = (file.producer(), file.consumer());
    for item in 0..3u8 {
        assert!(producer.try_push(&[item]));
    }
    file.overwrite(SLOTS_OFFSET, u64::MAX);
    file.overwrite(SLOTS_OFFSET + 64, 9);
    assert_eq!(pop(&mut consumer), Some(vec![2]));
    assert_eq!(consumer.invalid(), 2);
    assert!((0..4u8).all(|item| producer.try_push(&[item])), "skipped slots were not given back");
}

#[test]
fn a_ring_that_cannot_be_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events-0");
    for (slots, item_bytes) in [(0, 8), (3, 8), (4, 0), (4, 65_537)] {
        let error = ring::create(&path, KIND, slots, item_bytes).unwrap_err();
        assert!(matches!(error, RingError::Shape { .. }), "{error}");
    }
    assert!(!path.exists());
}

#[test]
fn items_cross_threads_whole_and_in_order() {
    const ITEMS: u64 = 200_000;
    let file = RingFile::new(64, 64);
    let (mut producer, mut consumer) = (file.producer(), file.consumer());
    thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..ITEMS {
                let item = [number.to_ne_bytes(); 8].concat();
                let item = &item[..8 + (number % 57) as usize];
                while !producer.try_push(item) {
                    thread::yield_now();
                }
            }
        });
        scope.spawn(move || {
            let mut buffer = [0; 64];
            for number in 0..ITEMS {
                let length = loop {
                    match consumer.read(&mut buffer) {
                        Some(length) => break length,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(length, 8 + (number % 57) as usize);
                let expected = [number.to_ne_bytes(); 8].concat();
                assert_eq!(buffer[..length], expected[..length]);
                if number % 7 == 0 || consumer.available() == 0 {
                    consumer.commit();
                }
            }
        });
    });
}

#[derive(Clone, Debug)]
enum Operation {
    Push(Vec<u8>, usize),
    Read,
    Commit,
    NewConsumer,
    NewProducer,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (proptest::collection::vec(any::<u8>(), 0..42), any::<usize>())
            .prop_map(|(item, cut)| Operation::Push(item, cut)),
        5 => Just(Operation::Read),
        3 => Just(Operation::Commit),
        1 => Just(Operation::NewConsumer),
        1 => Just(Operation::NewProducer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_ring_agrees_with_a_queue(operations in proptest::collection::vec(operation(), 1..200)) {
        let file = RingFile::new(8, 40);
        let (mut producer, mut consumer) = (file.producer(), file.consumer());
        let mut queue: VecDeque<Vec<u8>> = VecDeque::new();
        let mut read = 0;
        let mut buffer = [0; 40];
        for operation in operations {
            match operation {
                Operation::Push(item, cut) => {
                    let (first, second) = item.split_at(cut % (item.len() + 1));
                    let fits = queue.len() < 8 && item.len() <= 40;
                    prop_assert_eq!(producer.try_push_parts(first, second), fits);
                    if fits {
                        queue.push_back(item);
                    }
                }
                Operation::Read => {
                    let length = consumer.read(&mut buffer);
                    prop_assert_eq!(length.map(|length| &buffer[..length]), queue.get(read).map(Vec::as_slice));
                    read += usize::from(length.is_some());
                }
                Operation::Commit => {
                    consumer.commit();
                    queue.drain(..std::mem::take(&mut read));
                }
                Operation::NewConsumer => {
                    consumer = file.consumer();
                    read = 0;
                }
                Operation::NewProducer => producer = file.producer(),
            }
        }
    }
}
