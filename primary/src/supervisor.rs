//! The supervisor of the sync secondaries: lets them attach one at a time, sees them die, and tidies up after them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_common::control::{Refusal, RefusalCode};
use baton_common::id::NumaId;
use baton_common::runtime::ProcessWatch;
use dpdk::{HeldLock, SharedConfig};

/// How long a secondary waits for its turn before it is told to come again.
const TURN_WAIT: Duration = Duration::from_secs(5);

/// How often a waiting secondary's turn is looked at.
const TURN_POLL: Duration = Duration::from_millis(5);

/// A lock that is held for so long is a dead process's.
const SETTLE: Duration = Duration::from_millis(20);

/// A secondary that was let in.
struct Secondary {
    process: ProcessWatch,
    ready: bool,
}

/// One sync domain's place.
struct Place {
    numa: NumaId,
    secondary: Option<Secondary>,
}

/// Watches the secondaries through their pidfds: the kernel says who is dead, never a heartbeat.
pub struct Supervisor {
    places: Mutex<Vec<Place>>,
    shared_config: SharedConfig,
}

impl Supervisor {
    /// A supervisor of one secondary for each of `domains`.
    pub fn new(domains: impl Iterator<Item = NumaId>, shared_config: SharedConfig) -> Supervisor {
        let places = domains.map(|numa| Place { numa, secondary: None }).collect();
        Supervisor { places: Mutex::new(places), shared_config }
    }

    /// Lets a secondary attach to DPDK: when its predecessor is dead and tidied up after, and no other one is attaching.
    ///
    /// # Errors
    /// There is no such sync domain or process, or the turn did not come in time.
    pub fn attach(&self, numa: NumaId, pid: u32) -> Result<(), Refusal> {
        let deadline = Instant::now() + TURN_WAIT;
        loop {
            match self.try_attach(numa, pid) {
                Err(refusal) if refusal.code == RefusalCode::Busy && Instant::now() < deadline => {
                    std::thread::sleep(TURN_POLL);
                }
                outcome => return outcome,
            }
        }
    }

    fn try_attach(&self, numa: NumaId, pid: u32) -> Result<(), Refusal> {
        self.reap();
        let mut places = self.lock();
        if let Some(other) = places.iter().find(|place| place.secondary.as_ref().is_some_and(|it| !it.ready))
        {
            return Err(Refusal::new(
                RefusalCode::Busy,
                format!("the secondary of NUMA node {} is attaching: try again", other.numa),
            ));
        }
        let place = places.iter_mut().find(|place| place.numa == numa).ok_or_else(|| {
            Refusal::new(
                RefusalCode::NotPossible,
                format!("no sync domain for NUMA node {numa} in the configuration"),
            )
        })?;
        if let Some(secondary) = &place.secondary {
            return Err(Refusal::new(
                RefusalCode::Busy,
                format!(
                    "process {} is the secondary of NUMA node {numa}: stop it first",
                    secondary.process.pid()
                ),
            ));
        }
        let process = ProcessWatch::open(pid).map_err(|error| {
            Refusal::new(RefusalCode::NotPossible, format!("cannot watch process {pid}: {error}"))
        })?;
        place.secondary = Some(Secondary { process, ready: false });
        Ok(())
    }

    /// Notes that a secondary has attached.
    ///
    /// # Errors
    /// It was not let in.
    pub fn ready(&self, numa: NumaId, pid: u32) -> Result<(), Refusal> {
        let mut places = self.lock();
        let secondary = places
            .iter_mut()
            .filter(|place| place.numa == numa)
            .filter_map(|place| place.secondary.as_mut())
            .find(|secondary| secondary.process.pid() == pid)
            .ok_or_else(|| {
                Refusal::new(
                    RefusalCode::NotPossible,
                    format!("process {pid} was not let in: ask to attach first"),
                )
            })?;
        secondary.ready = true;
        Ok(())
    }

    /// Forgets secondaries that have died, and frees locks of DPDK's shared configuration that they left held.
    ///
    /// Only one process attaches at a time, and only attaching takes those locks: while no living one attaches, a held
    /// lock is a dead one's.
    pub fn reap(&self) {
        let mut places = self.lock();
        let mut died = false;
        for place in places.iter_mut() {
            if let Some(secondary) = place.secondary.take_if(|secondary| !secondary.process.lives()) {
                tracing::warn!(numa = place.numa.0, pid = secondary.process.pid(), "sync secondary is gone");
                died = true;
            }
        }
        let attaching = places.iter().any(|place| place.secondary.as_ref().is_some_and(|it| !it.ready));
        if died && !attaching {
            self.free_locks();
        }
    }

    fn free_locks(&self) {
        let held = self.shared_config.clear(SETTLE);
        for lock in &held {
            tracing::warn!(lock = lock.name, "freed a lock that a dead secondary held");
        }
        if held.iter().any(HeldLock::makes_heap_suspect) {
            tracing::error!("a secondary died inside DPDK's heap: restart the primary when it suits");
        }
    }

    /// Each sync domain with its secondary's process, and whether that has attached.
    pub fn secondaries(&self) -> Vec<(NumaId, Option<u32>, bool)> {
        let describe = |place: &Place| {
            let secondary = place.secondary.as_ref();
            (place.numa, secondary.map(|it| it.process.pid()), secondary.is_some_and(|it| it.ready))
        };
        self.lock().iter().map(describe).collect()
    }

    /// A panic while the lock was held leaves the list whole: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Vec<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
