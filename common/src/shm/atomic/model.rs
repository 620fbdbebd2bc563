//! Atomics that are what the standard library's are, until a model runs: then loom decides what each load sees.
//!
//! They have the layout of the real ones and lie in the same mapped files, so that what is modelled is the code that runs in
//! production, down to the file. While a model runs the files are not written: every word that any thread writes has an
//! atomic of loom's in its place, which begins with what the file holds; words that nobody writes are read from the file.
//! Which are written is found out by running, see [`check`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::mutation::{self, Kind};

type Watched = loom::sync::atomic::AtomicU64;

/// A word's place: which file, and where in it. The same for every mapping of the file.
type Place = (u64, usize);

/// Executions in which other words may turn out to be written than in those before.
const PASSES_MAX: usize = 50;

/// The mappings of this process: their first address, their bytes, and the file's number.
static MAPPINGS: Mutex<Vec<(usize, usize, u64)>> = Mutex::new(Vec::new());

thread_local! {
    // Loom runs all threads of a model on one thread of the system's.
    static WORLD: RefCell<World> = RefCell::default();
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// What a model knows of its words.
#[derive(Default)]
struct World {
    /// Words that are written, with what the file holds.
    written: BTreeMap<Place, u64>,
    /// In this execution, loom's atomics for them.
    watched: HashMap<Place, Rc<Watched>>,
    /// Words that were written for the first time in this execution, with the last value: the execution counts for nothing.
    discovered: BTreeMap<Place, u64>,
    /// What each thread loaded last from a word, where a mutation wants to know.
    loaded: HashMap<(usize, Place), u64>,
    /// A store that a mutation holds back, by thread.
    deferred: HashMap<usize, (Place, u64, Ordering)>,
    /// The thread that dies, and how many stores it has until then.
    mortal: Option<(usize, u32)>,
}

/// How an access to a word is done.
enum Access {
    /// As a value that no other thread changes.
    Alone(u64),
    /// By loom.
    Watched(Rc<Watched>),
}

/// Notes a mapping of a file, for as long as the process lives.
pub fn mapped(address: usize, bytes: usize, file: u64) {
    let mut mappings = MAPPINGS.lock().unwrap();
    mappings.retain(|(start, length, _)| address + bytes <= *start || start + length <= address);
    mappings.push((address, bytes, file));
}

fn place_of(address: usize) -> Place {
    let mappings = MAPPINGS.lock().unwrap();
    let mapping = mappings.iter().find(|(start, length, _)| (*start..start + length).contains(&address));
    let (start, _, file) = mapping.expect("a model's words all lie in mapped files");
    (*file, address - start)
}

/// Runs `model` in all the ways that loom finds, with at most `preemptions` involuntary switches of threads in each.
///
/// `model` leaves no thread behind. The files that it maps exist before, and are as they were when it is through.
pub fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let model = std::sync::Arc::new(model);
    WORLD.with_borrow_mut(|world| *world = World::default());
    for _ in 0..PASSES_MAX {
        let known = WORLD.with_borrow(|world| world.written.len());
        // Once to find out what is written; then in earnest, if that was known already.
        explore(Some(1), preemptions, &model);
        if known == WORLD.with_borrow(|world| world.written.len())
            && catch_unwind(AssertUnwindSafe(|| explore(None, preemptions, &model)))
                .map_err(|panic| if panic.is::<Discovery>() { Discovery } else { resume_unwind(panic) })
                .is_ok()
        {
            return;
        }
    }
    panic!("every pass over the model found other words that are written");
}

/// An execution wrote a word for the first time.
struct Discovery;

fn explore(
    executions: Option<usize>,
    preemptions: usize,
    model: &std::sync::Arc<impl Fn() + Send + Sync + 'static>,
) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = Some(preemptions);
    builder.max_permutations = executions;
    builder.checkpoint_interval = if executions.is_some() { 1 } else { usize::MAX };
    let model = std::sync::Arc::clone(model);
    builder.check(move || {
        World::begin();
        RUNNING.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| model()));
        RUNNING.set(false);
        let discovery = WORLD.with_borrow(|world| !world.discovered.is_empty());
        if discovery && executions.is_none() {
            resume_unwind(Box::new(Discovery));
        }
        if let Err(panic) = result
            && !discovery
        {
            resume_unwind(panic);
        }
    });
}

impl World {
    /// A new execution. Called before the model spawns threads: they all see the first values.
    fn begin() {
        let written: Vec<_> = WORLD.with_borrow_mut(|world| {
            world.watched.clear();
            world.loaded.clear();
            world.deferred.clear();
            world.discovered.clear();
            world.mortal = None;
            world.written.iter().map(|(place, value)| (*place, *value)).collect()
        });
        for (place, value) in written {
            let watched = Rc::new(Watched::new(value));
            WORLD.with_borrow_mut(|world| world.watched.insert(place, watched));
        }
    }

    fn access(place: Place, memory: u64, writes: bool) -> Access {
        WORLD.with_borrow_mut(|world| {
            if let Some(watched) = world.watched.get(&place) {
                return Access::Watched(Rc::clone(watched));
            }
            if writes {
                world.written.entry(place).or_insert(memory);
                world.discovered.entry(place).or_insert(memory);
            }
            Access::Alone(world.discovered.get(&place).copied().unwrap_or(memory))
        })
    }

    fn set_alone(place: Place, value: u64) {
        WORLD.with_borrow_mut(|world| world.discovered.insert(place, value));
    }
}

fn thread() -> usize {
    // The only name that loom gives a thread: `ThreadId(1)`.
    let name = format!("{:?}", loom::thread::current().id());
    name.chars()
        .filter(char::is_ascii_digit)
        .fold(0, |number, digit| 10 * number + digit as usize - '0' as usize)
}

/// The end of a thread that died.
struct Death;

/// Runs `change` as a process that is killed just before its store number `stores` (from 0): `None` if it was. What it
/// changed in files stays, and nothing that it does when it unwinds changes any more.
pub fn killed_at<T>(stores: u32, change: impl FnOnce() -> T) -> Option<T> {
    WORLD.with_borrow_mut(|world| world.mortal = Some((thread(), stores)));
    let result = catch_unwind(AssertUnwindSafe(change));
    WORLD.with_borrow_mut(|world| world.mortal = None);
    match result {
        Ok(value) => Some(value),
        Err(panic) if panic.is::<Death>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

/// Whether this thread's store happens; it does not return if the thread dies of it.
fn survives() -> bool {
    let dies = WORLD.with_borrow_mut(|world| match &mut world.mortal {
        Some((mortal, stores)) if *mortal == thread() => match stores.checked_sub(1) {
            Some(left) => {
                *stores = left;
                false
            }
            None => true,
        },
        _ => false,
    });
    if dies && !std::thread::panicking() {
        resume_unwind(Box::new(Death));
    }
    !dies
}

fn load(place: Place, memory: u64, order: Ordering, at: &Location<'_>) -> u64 {
    let order = match mutation::of(at) {
        Some(Kind::Relax) => Ordering::Relaxed,
        Some(Kind::Value(value)) => return value,
        Some(Kind::Repeat) => {
            let loaded = WORLD.with_borrow(|world| world.loaded.get(&(thread(), place)).copied());
            return loaded.expect("a load that repeats another");
        }
        _ => order,
    };
    let value = match World::access(place, memory, false) {
        Access::Alone(value) => value,
        Access::Watched(watched) => watched.load(order),
    };
    if mutation::is_on() {
        WORLD.with_borrow_mut(|world| world.loaded.insert((thread(), place), value));
    }
    value
}

fn store(place: Place, memory: u64, value: u64, order: Ordering, at: &Location<'_>) {
    if !survives() {
        return;
    }
    match mutation::of(at) {
        Some(Kind::Skip) => return,
        Some(Kind::Defer) => {
            WORLD.with_borrow_mut(|world| world.deferred.insert(thread(), (place, value, order)));
            return;
        }
        Some(Kind::Relax) => store_now(place, memory, value, Ordering::Relaxed),
        _ => store_now(place, memory, value, order),
    }
    let deferred = WORLD.with_borrow_mut(|world| world.deferred.remove(&thread()));
    if let Some((place, value, order)) = deferred {
        store_now(place, memory, value, order);
    }
}

fn store_now(place: Place, memory: u64, value: u64, order: Ordering) {
    match World::access(place, memory, true) {
        Access::Alone(_) => World::set_alone(place, value),
        Access::Watched(watched) => watched.store(value, order),
    }
}

/// Reads a word and replaces it by what `change` makes of it, if anything; what it was.
fn modify(
    place: Place,
    memory: u64,
    order: Ordering,
    at: &Location<'_>,
    change: impl Fn(u64) -> Option<u64>,
) -> Result<u64, u64> {
    if !survives() {
        return Err(memory);
    }
    let order = match mutation::of(at) {
        Some(Kind::Skip) => return Ok(load(place, memory, Ordering::Relaxed, Location::caller())),
        Some(Kind::Relax) => Ordering::Relaxed,
        _ => order,
    };
    match World::access(place, memory, true) {
        Access::Alone(value) => {
            let changed = change(value).ok_or(value)?;
            World::set_alone(place, changed);
            Ok(value)
        }
        Access::Watched(watched) => watched.fetch_update(order, Ordering::Relaxed, change),
    }
}

/// As [`std::sync::atomic::fence`].
#[track_caller]
pub fn fence(order: Ordering) {
    if !RUNNING.get() || std::thread::panicking() {
        return std::sync::atomic::fence(order);
    }
    match mutation::of(Location::caller()) {
        Some(Kind::Relax) => {}
        Some(Kind::AcqRel) => loom::sync::atomic::fence(Ordering::AcqRel),
        _ => loom::sync::atomic::fence(order),
    }
}

macro_rules! watched_atomic {
    ($name:ident, $int:ty) => {
        /// As the atomic of that name in [`std::sync::atomic`].
        #[derive(Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes)]
        #[repr(transparent)]
        pub struct $name(std::sync::atomic::$name);

        #[allow(missing_docs, reason = "as in std")]
        impl $name {
            pub const fn new(value: $int) -> $name {
                $name(std::sync::atomic::$name::new(value))
            }

            /// The word's place and what memory holds, if a model runs.
            fn modelled(&self) -> Option<(Place, u64)> {
                let runs = RUNNING.get() && !std::thread::panicking();
                runs.then(|| {
                    (place_of(std::ptr::from_ref(self).addr()), u64::from(self.0.load(Ordering::Relaxed)))
                })
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $int {
                match self.modelled() {
                    Some((place, memory)) => load(place, memory, order, Location::caller()) as $int,
                    None => self.0.load(order),
                }
            }

            #[track_caller]
            pub fn store(&self, value: $int, order: Ordering) {
                match self.modelled() {
                    Some((place, memory)) => store(place, memory, value.into(), order, Location::caller()),
                    None if RUNNING.get() => {}
                    None => self.0.store(value, order),
                }
            }

            #[track_caller]
            fn modify(&self, order: Ordering, change: impl Fn($int) -> Option<$int>) -> Result<$int, $int> {
                let wide = |value: u64| change(value as $int).map(u64::from);
                match self.modelled() {
                    Some((place, memory)) => modify(place, memory, order, Location::caller(), wide)
                        .map(|value| value as $int)
                        .map_err(|value| value as $int),
                    None if RUNNING.get() => Ok(0),
                    None => self.0.fetch_update(order, Ordering::Relaxed, change),
                }
            }

            #[track_caller]
            pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                self.modify(order, |value| Some(value | bits)).unwrap_or_else(|value| value)
            }

            #[track_caller]
            pub fn fetch_and(&self, bits: $int, order: Ordering) -> $int {
                self.modify(order, |value| Some(value & bits)).unwrap_or_else(|value| value)
            }

            #[track_caller]
            pub fn compare_exchange(
                &self,
                expected: $int,
                new: $int,
                order: Ordering,
                _failure: Ordering,
            ) -> Result<$int, $int> {
                self.modify(order, |value| (value == expected).then_some(new))
            }
        }
    };
}

watched_atomic!(AtomicU32, u32);
watched_atomic!(AtomicU64, u64);
