//! Registered readers: who is still in the middle of a burst, so that the writer knows when a record may be used again.
//!
//! Quiescent-state based: the writer counts epochs; a reader notes the epoch it sees between two bursts, when it holds no
//! record number. What was unlinked before epoch `e` began is through once every reader that is online has noted `e`.

use std::sync::Arc;

use thiserror::Error;

use super::atomic::{AtomicU64, Ordering, fence};
use super::process::ProcessName;
use super::region::{Region, RegionError};
use super::shared::{Mapped, shared_struct};

/// Readers that can be registered at a time.
pub const READERS_MAX: usize = 64;

shared_struct! {
    /// A reader's cache line: the reader writes it, the structural writer reads it.
    #[repr(C, align(64))]
    pub struct ReaderSlot {
        /// The epoch that the reader noted last; zero while it is offline.
        epoch: AtomicU64,
        /// The reader's process ([`ProcessName::to_word`]); zero if the slot is free.
        process: AtomicU64,
        reserved: [AtomicU64; 6],
    }
}

const _: () = assert!(size_of::<ReaderSlot>() == 64 && align_of::<ReaderSlot>() == 64);

/// Why a reader could not be registered.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReaderError {
    /// There is no such slot.
    #[error("reader slot {slot}, the last one is {}: use fewer workers", READERS_MAX - 1)]
    NoSuchSlot {
        /// The slot asked for.
        slot: usize,
    },
    /// A living process has it.
    #[error("reader slot {slot} belongs to process {pid}, which is running: stop that process first")]
    Taken {
        /// The slot asked for.
        slot: usize,
        /// Who has it.
        pid: u32,
    },
}

/// The epoch and the reader slots of one table.
pub struct Readers {
    epoch: Mapped<AtomicU64>,
    slots: Mapped<[ReaderSlot]>,
}

impl Readers {
    /// The readers whose epoch and slots lie at these offsets of `region`.
    ///
    /// # Errors
    /// They do not lie in the region.
    pub fn new(region: &Arc<Region>, epoch_offset: u64, slots_offset: u64) -> Result<Readers, RegionError> {
        Ok(Readers {
            epoch: Mapped::new(region, epoch_offset)?,
            slots: Mapped::slice(region, slots_offset, READERS_MAX as u64)?,
        })
    }

    /// Writer only: the epoch that began last.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Writer only: begins a new epoch. What was unlinked before is through when [`Readers::have_passed`] says so.
    pub fn advance(&self) -> u64 {
        let epoch = self.epoch.load(Ordering::Relaxed).wrapping_add(1).max(1);
        // SYNC epoch-begun: pairs with the acquire load of `quiesce`.
        self.epoch.store(epoch, Ordering::Release);
        // SYNC reader-online: pairs with the fence of `quiesce`. Either this writer sees that a reader came online, or that
        // reader sees all that was unlinked before.
        fence(Ordering::SeqCst);
        epoch
    }

    /// Writer only: whether every online reader has noted `epoch`.
    pub fn have_passed(&self, epoch: u64) -> bool {
        self.slots.iter().all(|slot| {
            // SYNC reader-quiet: pairs with the release stores of `quiesce` and `leave`.
            let noted = slot.epoch.load(Ordering::Acquire);
            noted == 0 || noted >= epoch
        })
    }

    /// Takes offline whatever reader's process is gone, and frees its slot; how many there were. System calls: not for the
    /// packet path.
    pub fn reset_dead(&self) -> u32 {
        let mut reset = 0;
        for slot in self.slots.iter() {
            let word = slot.process.load(Ordering::Relaxed);
            match ProcessName::from_word(word) {
                Some(process) if process.is_running() => continue,
                None if slot.epoch.load(Ordering::Relaxed) == 0 && word == 0 => continue,
                _ => {}
            }
            // The slot is taken over first, so that no successor comes online in it and is then taken offline.
            let own = ProcessName::own().to_word();
            if slot.process.compare_exchange(word, own, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                slot.epoch.store(0, Ordering::Release);
                slot.process.store(0, Ordering::Release);
                reset += 1;
            }
        }
        reset
    }

    /// Claims a slot for this process.
    ///
    /// # Errors
    /// There is no such slot, or a living process has it.
    fn claim(&self, number: usize) -> Result<(), ReaderError> {
        let slot = self.slots.get(number).ok_or(ReaderError::NoSuchSlot { slot: number })?;
        let mut found = slot.process.load(Ordering::Relaxed);
        loop {
            if let Some(process) = ProcessName::from_word(found).filter(|process| process.is_running()) {
                return Err(ReaderError::Taken { slot: number, pid: process.pid });
            }
            let own = ProcessName::own().to_word();
            match slot.process.compare_exchange(found, own, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => found = other,
            }
        }
    }
}

/// One registered reader. It goes offline when dropped; that of a killed process is reset by its successor or by
/// [`Readers::reset_dead`].
pub struct Registration {
    readers: Arc<Readers>,
    slot: usize,
    online: bool,
}

impl Registration {
    /// Registers this process in slot `slot`, online. What a dead process left in it is overwritten.
    ///
    /// # Errors
    /// There is no such slot, or a living process has it.
    pub fn new(readers: Arc<Readers>, slot: usize) -> Result<Registration, ReaderError> {
        readers.claim(slot)?;
        let mut registration = Registration { readers, slot, online: false };
        registration.quiesce();
        Ok(registration)
    }

    /// Says that this reader holds no record number now; comes online if it was not.
    #[inline]
    pub fn quiesce(&mut self) {
        // SYNC epoch-begun: pairs with the release store of `advance`.
        let epoch = self.readers.epoch.load(Ordering::Acquire).max(1);
        // SYNC reader-quiet: pairs with the acquire load of `have_passed`.
        self.readers.slots[self.slot].epoch.store(epoch, Ordering::Release);
        if !self.online {
            // SYNC reader-online: pairs with the fence of `advance`.
            fence(Ordering::SeqCst);
            self.online = true;
        }
    }

    /// Says that this reader holds no record number, and will hold none until it quiesces again.
    pub fn leave(&mut self) {
        // SYNC reader-quiet: pairs with the acquire load of `have_passed`.
        self.readers.slots[self.slot].epoch.store(0, Ordering::Release);
        self.online = false;
    }

    /// Whether the reader is online: only then do records that it found stay what they are.
    #[inline]
    pub fn is_online(&self) -> bool {
        self.online
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.leave();
        self.readers.slots[self.slot].process.store(0, Ordering::Release);
    }
}
