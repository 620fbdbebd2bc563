//! Shared files: made whole or not at all, checked when attached, written by one process at a time.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use baton_common::session::table::{SessionTable, TableError, TableWriter};
use baton_common::shm::header::{FileKind, FileSpec, HEADER_BYTES, HeaderError};
use baton_common::shm::region::{Region, RegionError};
use baton_common::shm::ring::{self, Consumer, RingError};
use baton_common::shm::slab::Record;

const KIND: FileKind = FileKind::SyncState;
const SPEC: FileSpec = FileSpec { kind: KIND, geometry: [1, 2, 3, 4], bytes: HEADER_BYTES + 100 };

fn create(directory: &Path) -> PathBuf {
    let path = KIND.path(directory, 0);
    Region::create(&path, &SPEC).unwrap();
    path
}

fn overwrite(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn header_error(path: &Path) -> HeaderError {
    match Region::open(path, KIND).err().expect("the header is wrong") {
        RegionError::Header { mismatch, .. } => mismatch,
        other => panic!("{other}"),
    }
}

#[test]
fn a_new_file_is_zeros_after_its_header() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let region = Region::open(&path, KIND).unwrap();
    assert_eq!(region.bytes(), 8192);
    assert_eq!(region.header().geometry(), [1, 2, 3, 4]);
    let words = region.slice::<AtomicU64>(HEADER_BYTES, 512).unwrap();
    assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

#[test]
fn a_file_that_is_not_what_the_config_asks_for_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let region = Region::open(&create(directory.path()), KIND).unwrap();
    assert_eq!(region.header().check_geometry(&SPEC), Ok(()));
    let error = region.header().check_geometry(&FileSpec { geometry: [1, 9, 3, 4], ..SPEC }).unwrap_err();
    assert_eq!(error, HeaderError::Geometry { word: "geometry word 1", found: 2, expected: 9 });
}

#[test]
fn every_file_has_a_hash_key_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let path = directory.path().join(name);
        Region::create(&path, &SPEC).unwrap().header().hash_key().0
    };
    assert_ne!(key("one"), key("two"));
}

#[test]
fn an_existing_file_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let before = fs::read(&path).unwrap();
    assert!(matches!(Region::create(&path, &SPEC), Err(RegionError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_a_killed_creator_left_is_no_obstacle_and_no_content() {
    let directory = tempfile::tempdir().unwrap();
    let path = KIND.path(directory.path(), 0);
    fs::write(directory.path().join(".sync-state-0.new"), vec![0xff; 10_000]).unwrap();
    Region::create(&path, &SPEC).unwrap();
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["sync-state-0"]);
    assert!(fs::read(&path).unwrap()[HEADER_BYTES as usize..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_file_that_cannot_be_made_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = KIND.path(directory.path(), 0);
    let error = Region::create(&path, &FileSpec { bytes: 1 << 62, ..SPEC }).err().unwrap();
    assert!(matches!(error, RegionError::Create { .. }), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let missing = Region::create(Path::new("/nonexistent/local-0"), &SPEC).err().unwrap();
    assert!(missing.to_string().starts_with("cannot create /nonexistent/local-0: open"), "{missing}");
}

#[test]
fn each_wrong_header_field_is_an_error_of_its_own() {
    let check = |offset: u64, bytes: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        let path = create(directory.path());
        overwrite(&path, offset, bytes);
        header_error(&path)
    };
    assert_eq!(check(0, b"NOTBATON"), HeaderError::Magic { found: u64::from_le_bytes(*b"NOTBATON") });
    assert_eq!(check(8, &99u32.to_ne_bytes()), HeaderError::LayoutVersion { found: 99 });
    assert_eq!(check(12, &3u32.to_ne_bytes()), HeaderError::Kind { found: 3, expected: KIND });
    assert_eq!(check(12, &77u32.to_ne_bytes()), HeaderError::Kind { found: 77, expected: KIND });
    assert_eq!(check(16, &4096u64.to_ne_bytes()), HeaderError::Size { header: 4096, file: 8192 });
    assert_eq!(check(24, &[0; 16]), HeaderError::HashKey);
    assert_eq!(check(72, &[0; 4]), HeaderError::NotReady { found: 0 });
}

#[test]
fn a_file_of_the_wrong_length_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(16_384).unwrap();
    assert_eq!(header_error(&path), HeaderError::Size { header: 8192, file: 16_384 });
    file.set_len(4095).unwrap();
    assert_eq!(header_error(&path), HeaderError::TooShort { found: 4095 });
    file.set_len(0).unwrap();
    assert_eq!(header_error(&path), HeaderError::TooShort { found: 0 });
}

#[test]
fn messages_say_what_was_found_expected_and_what_to_do() {
    let message = HeaderError::LayoutVersion { found: 7 }.to_string();
    assert_eq!(
        message,
        "layout version 7, this build needs 2: stop both services, then run `baton-hugepages apply`"
    );
    let message = HeaderError::Kind { found: 2, expected: FileKind::LocalTable }.to_string();
    assert!(message.starts_with("file kind 2 (remote), expected 1 (local): "), "{message}");
}

#[test]
fn only_one_holds_the_lock_and_the_error_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = create(directory.path());
    let first = Region::open(&path, KIND).unwrap();
    let second = Region::open(&path, KIND).unwrap();
    first.lock_exclusive().unwrap();
    let error = second.lock_exclusive().unwrap_err().to_string();
    assert!(error.contains(&format!("is held by process {}", std::process::id())), "{error}");
    drop(first);
    second.lock_exclusive().unwrap();
}

#[test]
fn a_creator_does_not_keep_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = KIND.path(directory.path(), 0);
    let created = Region::create(&path, &SPEC).unwrap();
    Region::open(&path, KIND).unwrap().lock_exclusive().unwrap();
    drop(created);
}

#[test]
fn nothing_outside_the_file_can_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let region = Region::open(&create(directory.path()), KIND).unwrap();
    assert!(region.at::<AtomicU64>(8184).is_ok());
    for offset in [8188, 8192, u64::MAX, u64::MAX - 7, 4097] {
        assert!(matches!(region.at::<AtomicU64>(offset), Err(RegionError::Bounds { .. })), "{offset}");
    }
    for (offset, count) in [(0, 1025), (8, 1024), (8, u64::MAX / 8), (0, u64::MAX), (u64::MAX - 7, 2)] {
        assert!(
            matches!(region.slice::<AtomicU64>(offset, count), Err(RegionError::Bounds { .. })),
            "{offset}"
        );
    }
    assert!(matches!(region.at::<Record>(8192), Err(RegionError::Bounds { .. })));
    assert_eq!(region.slice::<AtomicU32>(8192, 0).unwrap().len(), 0);
}

#[test]
fn a_table_whose_geometry_does_not_add_up_is_refused() {
    let check = |offset: u64, value: u64| {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::LocalTable.path(directory.path(), 0);
        SessionTable::create(&path, FileKind::LocalTable, 100).unwrap();
        overwrite(&path, offset, &value.to_ne_bytes());
        TableWriter::attach(&path, FileKind::LocalTable).err().expect("the geometry is wrong")
    };
    for capacity in [0, u64::from(u32::MAX), u64::MAX, 1 << 32 | 100] {
        assert!(matches!(check(40, capacity), TableError::Capacity { asked } if asked == capacity));
    }
    let geometry = |error| match error {
        TableError::Region(RegionError::Header {
            mismatch: HeaderError::Geometry { word, found, expected },
            ..
        }) => (word, found, expected),
        other => panic!("{other}"),
    };
    assert_eq!(geometry(check(48, 1 << 20)), ("number of buckets", 1 << 20, 34));
    assert_eq!(geometry(check(40, 10_000)), ("number of buckets", 34, 3334));
}

#[test]
fn a_ring_whose_geometry_does_not_add_up_is_refused() {
    let check = |offset: u64, value: u64| {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::EventRing.path(directory.path(), 0);
        ring::create(&path, FileKind::EventRing, 8, 128).unwrap();
        overwrite(&path, offset, &value.to_ne_bytes());
        Consumer::attach(&path, FileKind::EventRing).err().expect("the geometry is wrong")
    };
    assert!(matches!(check(40, 7), RingError::Shape { slots: 7, .. }));
    assert!(matches!(check(48, u64::MAX), RingError::Shape { item_bytes: u64::MAX, .. }));
    assert!(matches!(check(40, 1 << 31), RingError::Region(RegionError::Header { .. })));
    assert!(matches!(check(48, 65_536), RingError::Region(RegionError::Header { .. })));
}
