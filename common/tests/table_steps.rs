//! A table survives its writer's death at every single instruction: a child is stepped through an insert that has to move
//! another session's entry, a remove and a plain insert, and through recovery itself, and every state of the memory that ever was is recovered from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use baton_common::flow::{Address, Endpoint, FlowKey, Protocol};
use baton_common::id::{Generation, NodeId, RecordIndex};
use baton_common::session::table::{Lookup, SessionTable, TableReader, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::{FileKind, FileSpec, HEADER_BYTES};
use baton_common::shm::region::Region;
use baton_common::time::Millis;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, gettid};

const KIND: FileKind = FileKind::LocalTable;
const CAPACITY: u32 = 48;
const BUCKETS: u64 = 16;
const BUCKET_SLOTS: usize = 10;
const DIRECTORY_VARIABLE: &str = "BATON_TEST_STEP_DIRECTORY";
const TASK_VARIABLE: &str = "BATON_TEST_STEP_TASK";
/// More than any task takes.
const STEPS_MAX: u32 = 2_000_000;

/// Where the intent stands in the file, and what it is in its upper half while an entry is moved.
const INTENT_WORD: usize = 4096 / 8;
const MOVE: u64 = 3;

/// The sessions of a run, by their numbers.
#[derive(Clone)]
struct Cast {
    /// Nobody touches these, but an entry of the first is moved. They fill two buckets.
    bystanders: Vec<u16>,
    /// Added first. Both buckets of its client-side key are full.
    added: u16,
    /// Removed then. It stands in the second bucket of its client-side key, because the first is full.
    removed: u16,
    /// Added last.
    added_last: u16,
}

impl Cast {
    /// Chooses sessions whose keys stand where they are wanted in this table.
    fn choose(table: &SessionTable) -> Cast {
        let bucket = |half: u64| ((half & 0xffff_ffff) * BUCKETS) >> 32;
        let both = |key: FlowKey| {
            let hash = table.hash(&key).0;
            (bucket(hash), bucket(hash >> 32))
        };
        let client = |number: u16| both(session(number).client_key());
        // The two buckets are kept free of everything else.
        let apart = |number: &u16| {
            let (first, second) = both(session(*number).server_key());
            first > 1 && second > 1
        };
        let with = |wanted: &dyn Fn((u64, u64)) -> bool, count: usize| -> Vec<u16> {
            (1..u16::MAX).filter(|number| wanted(client(*number))).filter(apart).take(count).collect()
        };
        let mut first = with(&|(first, second)| first == 0 && second > 1, BUCKET_SLOTS + 1);
        let second = with(&|(first, second)| first == 1 && second > 1, BUCKET_SLOTS);
        let removed = first.pop().unwrap();
        Cast {
            bystanders: first.into_iter().chain(second).collect(),
            added: with(&|buckets| buckets == (0, 1), 1)[0],
            removed,
            added_last: with(&|(first, second)| first > 1 && second > 1, 1)[0],
        }
    }

    /// What is in the table before, after each of the three changes.
    fn stages(&self) -> [Vec<u16>; 4] {
        let with = |others: &[u16]| {
            let mut all: Vec<u16> = self.bystanders.iter().chain(others).copied().collect();
            all.sort_unstable();
            all
        };
        [
            with(&[self.removed]),
            with(&[self.added, self.removed]),
            with(&[self.added]),
            with(&[self.added, self.added_last]),
        ]
    }
}

fn session(number: u16) -> Session {
    let endpoint = |net: u8| Endpoint { address: Address::v4([10, net, 0, number as u8]), port: number };
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(1),
        vip: endpoint(2),
        local: endpoint(3),
        server: endpoint(4),
        owner: NodeId(number),
        generation: Generation(u32::from(number)),
        state: SessionState::TcpEstablished,
        last_seen: Millis(u64::from(number)),
        last_sent: Millis(0),
    }
}

/// What child and parent tell each other: the child's thread, "begin", "done".
struct Signals(Arc<Region>);

impl Signals {
    fn open(directory: &Path) -> Signals {
        let path = directory.join("signals");
        if !path.exists() {
            let spec = FileSpec { kind: FileKind::SyncState, geometry: [0; 4], bytes: HEADER_BYTES + 24 };
            Region::create(&path, &spec).unwrap();
        }
        Signals(Region::open(&path, FileKind::SyncState).unwrap())
    }

    fn word(&self, word: u64) -> &AtomicU64 {
        self.0.at(HEADER_BYTES + 8 * word).unwrap()
    }

    fn thread(&self) -> &AtomicU64 {
        self.word(0)
    }

    fn begin(&self) -> &AtomicU64 {
        self.word(1)
    }

    fn done(&self) -> &AtomicU64 {
        self.word(2)
    }
}

/// The child: not a test of its own, but what the tests below run in another process.
#[test]
fn stepped_child() {
    let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from) else { return };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    let signals = Signals::open(&directory);
    let path = KIND.path(&directory, 0);
    let changes = std::env::var_os(TASK_VARIABLE).is_some_and(|task| task == "change");
    let writer = changes.then(|| TableWriter::attach(&path, KIND).unwrap());
    let cast = Cast::choose(&SessionTable::open_read_only(&path, KIND).unwrap());
    signals.thread().store(gettid().as_raw() as u64, Ordering::SeqCst);
    while signals.begin().load(Ordering::SeqCst) == 0 {
        std::hint::spin_loop();
    }
    match writer {
        Some(mut writer) => {
            let Lookup::Hit { index, .. } = writer.lookup(&session(cast.removed).client_key()) else {
                panic!("not there")
            };
            writer.insert(&session(cast.added)).unwrap();
            assert!(writer.remove(index));
            writer.insert(&session(cast.added_last)).unwrap();
        }
        None => {
            TableWriter::attach(&path, KIND).unwrap();
        }
    }
    signals.done().store(1, Ordering::SeqCst);
    loop {
        std::hint::spin_loop();
    }
}

/// A child that does not outlive a panic.
struct Stepped {
    child: Child,
    thread: Pid,
}

impl Stepped {
    /// A child, stopped at the beginning of its task.
    fn start(directory: &Path, task: &str) -> (Stepped, Signals) {
        let signals = Signals::open(directory);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stepped_child", "--nocapture"])
            .env(DIRECTORY_VARIABLE, directory)
            .env(TASK_VARIABLE, task)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stepped = Stepped { child, thread: Pid::from_raw(0) };
        while signals.thread().load(Ordering::SeqCst) == 0 {
            assert_eq!(stepped.child.try_wait().unwrap(), None, "the child ended by itself");
            std::thread::yield_now();
        }
        stepped.thread = Pid::from_raw(signals.thread().load(Ordering::SeqCst) as i32);
        ptrace::attach(stepped.thread).unwrap();
        stepped.wait();
        signals.begin().store(1, Ordering::SeqCst);
        (stepped, signals)
    }

    fn step(&self) {
        ptrace::step(self.thread, None).unwrap();
        self.wait();
    }

    fn wait(&self) {
        let status = waitpid(self.thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP)), "{status:?}");
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL));
        let _ = self.child.wait();
    }
}

/// The whole file, as it is now.
fn image_of(table: &Region) -> Vec<u64> {
    let words = table.slice::<AtomicU64>(0, table.bytes() / 8).unwrap();
    words.iter().map(|word| word.load(Ordering::SeqCst)).collect()
}

/// Steps a child through its task in `directory` and calls `check` with each image that differs from the one before.
fn step_through(directory: &Path, task: &str, mut check: impl FnMut(&[u64])) -> u32 {
    let (stepped, signals) = Stepped::start(directory, task);
    let table = Region::open_read_only(&KIND.path(directory, 0), KIND).unwrap();
    let mut last = image_of(&table);
    check(&last);
    for steps in 0..STEPS_MAX {
        if signals.done().load(Ordering::SeqCst) == 1 {
            return steps;
        }
        stepped.step();
        let words = table.slice::<AtomicU64>(0, table.bytes() / 8).unwrap();
        if words.iter().zip(&last).any(|(word, last)| word.load(Ordering::Relaxed) != *last) {
            last = image_of(&table);
            check(&last);
        }
    }
    panic!("the child is not done after {STEPS_MAX} steps");
}

fn write_image(path: &Path, image: &[u64]) {
    fs::write(path, image.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()).unwrap();
}

/// Takes an image over as a successor would; how far the dead writer's task had come, and whether it died in a change.
fn recover(path: &Path, image: &[u64], cast: &Cast) -> (usize, bool) {
    write_image(path, image);
    let reader = TableReader::attach(path, KIND, 0).unwrap();
    for number in cast.bystanders.iter().copied() {
        for key in [session(number).client_key(), session(number).server_key()] {
            let Lookup::Hit { session: found, .. } = reader.lookup(&key) else {
                panic!("{number} is out of sight")
            };
            assert_eq!(found, session(number));
        }
    }
    drop(reader);

    let writer = TableWriter::attach(path, KIND).unwrap();
    assert_eq!(writer.len() + writer.free_slots(), CAPACITY, "a slot is lost");
    let mut found: Vec<u16> = Vec::new();
    let scanned = writer.scan(0, CAPACITY, |index: RecordIndex, held| {
        assert_eq!(held, session(held.client.port), "torn");
        for key in [held.client_key(), held.server_key()] {
            assert!(matches!(writer.lookup(&key), Lookup::Hit { index: at, .. } if at == index));
        }
        found.push(held.client.port);
    });
    assert_eq!((scanned.sessions, scanned.unreadable), (writer.len(), 0));
    found.sort_unstable();
    let stages = cast.stages();
    let stage = stages.iter().position(|stage| *stage == found);
    (stage.unwrap_or_else(|| panic!("{found:?}")), writer.recovery().change_interrupted)
}

#[test]
fn a_writer_may_die_at_any_instruction_of_a_change_and_of_recovery() {
    let directory = tempfile::tempdir().unwrap();
    let path = KIND.path(directory.path(), 0);
    SessionTable::create(&path, KIND, CAPACITY).unwrap();
    let mut writer = TableWriter::attach(&path, KIND).unwrap();
    let cast = Cast::choose(&writer);
    for number in cast.bystanders.iter().chain([&cast.removed]) {
        writer.insert(&session(*number)).unwrap();
    }
    drop(writer);

    let copy = directory.path().join("copy");
    let mut stage = 0;
    let (mut images, mut in_move, mut interrupted) = (0, 0, Vec::new());
    let steps = step_through(directory.path(), "change", |image| {
        let (now, in_change) = recover(&copy, image, &cast);
        assert!(now == stage || now == stage + 1, "from stage {stage} to {now}");
        stage = now;
        images += 1;
        if in_change {
            in_move += u32::from(image[INTENT_WORD] >> 32 == MOVE);
            interrupted.push((stage, image.to_vec()));
        }
    });
    assert_eq!(stage, 3);
    println!(
        "{steps} instructions, {images} images, {} inside a change, {in_move} of them a move",
        interrupted.len()
    );
    assert!(interrupted.len() > 30 && in_move > 5);

    // Recovery may die too: stepped through from a few of the images that need it most.
    for (stage, image) in interrupted.iter().step_by(interrupted.len() / 6) {
        let directory = tempfile::tempdir().unwrap();
        write_image(&KIND.path(directory.path(), 0), image);
        let mut images = 0;
        let steps = step_through(directory.path(), "recover", |image| {
            assert_eq!(recover(&copy, image, &cast).0, *stage);
            images += 1;
        });
        println!("recovery at stage {stage}: {steps} instructions, {images} images");
    }
}
