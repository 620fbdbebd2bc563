//! The supervisor of the sync secondaries: lets them attach one at a time, sees them die, and tidies up after them.
//!
//! A secondary may be killed at any instruction. What it then leaves behind in DPDK is put right here: lock words, what it had
//! allocated or was just allocating, and its files. Its packet buffers its successor puts right, whose pool it is then.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_common::control::{Refusal, RefusalCode};
use baton_common::id::NumaId;
use baton_common::runtime::ProcessWatch;
use dpdk::{HeapImage, HeapShare, HeapUse, HeldLock, SharedHeap, remove_leftovers};

/// How long a secondary waits for its turn before it is told to come again.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// How often a waiting secondary's turn is looked at.
const TURN_POLL: Duration = Duration::from_millis(5);

/// A lock that is held for so long is a dead process's.
const SETTLE: Duration = Duration::from_millis(20);

/// How far a secondary that was let in has come.
enum Stage {
    /// It attaches; the copy shows the heap as it was before.
    Attaching(HeapImage),
    /// It has attached, and holds this.
    Ready(HeapShare),
}

/// A secondary that was let in.
struct Secondary {
    process: ProcessWatch,
    stage: Stage,
}

impl Secondary {
    fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready(_))
    }
}

/// One sync domain's place.
struct Place {
    numa: NumaId,
    secondary: Option<Secondary>,
    /// Who is to take the secondary's part, while that still has it.
    successor: Option<Secondary>,
}

impl Place {
    fn all(&self) -> impl Iterator<Item = &Secondary> {
        self.secondary.iter().chain(&self.successor)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Secondary> {
        self.secondary.iter_mut().chain(&mut self.successor)
    }

    /// Takes out those that are dead. A successor moves up.
    fn take_dead(&mut self) -> Vec<Secondary> {
        let mut dead = Vec::new();
        for part in [&mut self.successor, &mut self.secondary] {
            dead.extend(part.take_if(|secondary| !secondary.process.lives()));
        }
        if self.secondary.is_none() {
            self.secondary = self.successor.take();
        }
        dead
    }
}

/// What is under the supervisor's lock.
struct Books {
    places: Vec<Place>,
    /// What dead secondaries held. It is freed when nobody attaches.
    left: Vec<HeapShare>,
    /// What was in use when it was last looked at.
    heap_use: HeapUse,
}

impl Books {
    fn attaching(&self) -> Option<NumaId> {
        let attaching = |place: &&Place| place.all().any(|secondary| !secondary.is_ready());
        self.places.iter().find(attaching).map(|place| place.numa)
    }
}

/// How a sync domain's secondary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceReport {
    /// Which domain.
    pub numa: NumaId,
    /// The secondary's process.
    pub pid: Option<u32>,
    /// Whether it has attached.
    pub attached: bool,
    /// The process that is to take its part.
    pub successor: Option<u32>,
}

/// Watches the secondaries through their pidfds: the kernel says who is dead, never a heartbeat.
pub struct Supervisor {
    books: Mutex<Books>,
    heap: SharedHeap,
    runtime_dir: PathBuf,
    file_prefix: String,
}

impl Supervisor {
    /// A supervisor of the secondaries of `domains`.
    pub fn new(
        domains: impl Iterator<Item = NumaId>,
        heap: SharedHeap,
        runtime_dir: PathBuf,
        file_prefix: String,
    ) -> Supervisor {
        let places = domains.map(|numa| Place { numa, secondary: None, successor: None }).collect();
        let books = Books { places, left: Vec::new(), heap_use: HeapUse::default() };
        Supervisor { books: Mutex::new(books), heap, runtime_dir, file_prefix }
    }

    /// Lets a secondary attach to DPDK: when its predecessor is dead and tidied up after, and no other one is attaching. With
    /// `succeeds` the predecessor may live: it is to give its part up to this one.
    ///
    /// # Errors
    /// There is no such sync domain or process, or the turn did not come in time.
    pub fn attach(&self, numa: NumaId, pid: u32, succeeds: bool) -> Result<(), Refusal> {
        let deadline = Instant::now() + TURN_WAIT;
        loop {
            match self.try_attach(numa, pid, succeeds) {
                Err(refusal) if refusal.code == RefusalCode::Busy && Instant::now() < deadline => {
                    std::thread::sleep(TURN_POLL);
                }
                outcome => return outcome,
            }
        }
    }

    fn try_attach(&self, numa: NumaId, pid: u32, succeeds: bool) -> Result<(), Refusal> {
        let mut books = self.lock();
        self.tidy(&mut books);
        if let Some(other) = books.attaching() {
            let message = format!("the secondary of NUMA node {other} is attaching: try again");
            return Err(Refusal::new(RefusalCode::Busy, message));
        }
        let not_possible = |message| Refusal::new(RefusalCode::NotPossible, message);
        let place = books.places.iter_mut().find(|place| place.numa == numa).ok_or_else(|| {
            not_possible(format!("no sync domain for NUMA node {numa} in the configuration"))
        })?;
        let occupant = if succeeds { &place.successor } else { &place.secondary };
        if let Some(secondary) = occupant {
            let what = if succeeds { "the successor of the secondary" } else { "the secondary" };
            let pid = secondary.process.pid();
            let message = format!("process {pid} is {what} of NUMA node {numa}: stop it first");
            return Err(Refusal::new(RefusalCode::Busy, message));
        }
        let process = ProcessWatch::open(pid)
            .map_err(|error| not_possible(format!("cannot watch process {pid}: {error}")))?;
        let before = self.heap.image().map_err(|error| not_possible(error.to_string()))?;
        let secondary = Secondary { process, stage: Stage::Attaching(before) };
        // A successor of nobody is the secondary.
        if succeeds && place.secondary.is_some() {
            place.successor = Some(secondary);
        } else {
            place.secondary = Some(secondary);
        }
        Ok(())
    }

    /// Notes that a secondary has attached.
    ///
    /// # Errors
    /// It was not let in.
    pub fn ready(&self, numa: NumaId, pid: u32) -> Result<(), Refusal> {
        let mut books = self.lock();
        let places = books.places.iter_mut().filter(|place| place.numa == numa);
        let secondary = places
            .flat_map(Place::all_mut)
            .find(|secondary| secondary.process.pid() == pid)
            .ok_or_else(|| {
                let message = format!("process {pid} was not let in: ask to attach first");
                Refusal::new(RefusalCode::NotPossible, message)
            })?;
        if let Stage::Attaching(before) = &secondary.stage {
            let share = self.heap.since(before).unwrap_or_else(|error| {
                tracing::error!(pid, error = %error, "what the secondary holds of DPDK's heap is not known");
                HeapShare::default()
            });
            secondary.stage = Stage::Ready(share);
        }
        self.tidy(&mut books);
        Ok(())
    }

    /// Forgets secondaries that have died, and puts right what they left behind.
    pub fn reap(&self) {
        self.tidy(&mut self.lock());
    }

    /// Puts right what the dead left behind.
    ///
    /// Only one process attaches at a time, and only attaching takes DPDK's locks and allocates: while no living one
    /// attaches, a held lock is a dead one's, and the heap stands still.
    fn tidy(&self, books: &mut Books) {
        let mut died_attaching = None;
        let mut died = false;
        for place in &mut books.places {
            for dead in place.take_dead() {
                let pid = dead.process.pid();
                tracing::warn!(
                    numa = place.numa.0,
                    pid,
                    attached = dead.is_ready(),
                    "sync secondary is gone"
                );
                self.remove_files(pid);
                died = true;
                match dead.stage {
                    Stage::Attaching(before) => died_attaching = Some(before),
                    Stage::Ready(share) => books.left.push(share),
                }
            }
        }
        if books.attaching().is_some() {
            return;
        }
        if died {
            self.free_locks();
        }
        if let Some(before) = died_attaching
            && let Err(error) = self.heap.restore(&before)
        {
            tracing::error!(error = %error, "a secondary died inside DPDK's heap, which could not be put right");
        }
        for share in books.left.drain(..) {
            self.heap.free(share);
        }
    }

    fn free_locks(&self) {
        for lock in self.heap.config().clear(SETTLE) {
            let in_heap = HeldLock::makes_heap_suspect(&lock);
            tracing::warn!(lock = lock.name, in_heap, "freed a lock that a dead secondary held");
        }
    }

    fn remove_files(&self, pid: u32) {
        if let Err(error) = remove_leftovers(&self.runtime_dir, &self.file_prefix, pid) {
            tracing::warn!(pid, error = %error, "files of a dead secondary stay in DPDK's runtime directory");
        }
    }

    /// Each sync domain's secondary.
    pub fn secondaries(&self) -> Vec<PlaceReport> {
        let report = |place: &Place| PlaceReport {
            numa: place.numa,
            pid: place.secondary.as_ref().map(|it| it.process.pid()),
            attached: place.secondary.as_ref().is_some_and(Secondary::is_ready),
            successor: place.successor.as_ref().map(|it| it.process.pid()),
        };
        self.lock().places.iter().map(report).collect()
    }

    /// What of DPDK's heap is in use; while a secondary attaches, what was before.
    pub fn heap_use(&self) -> HeapUse {
        let mut books = self.lock();
        self.tidy(&mut books);
        if books.attaching().is_none() {
            match self.heap.image() {
                Ok(image) => books.heap_use = image.in_use(),
                Err(error) => tracing::error!(error = %error, "DPDK's heap cannot be looked at"),
            }
        }
        books.heap_use
    }

    /// A panic while the lock was held leaves the books usable: what is forgotten then is memory at most.
    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
