//! Shared addresses: the virtual, local and real-server addresses of a table's sessions, each stored once.
//!
//! There are few of them and many sessions, so a record has 16-bit numbers in their place: with the client's address, the
//! only one that is different for each session, it fits into one cache line for both families.

use std::sync::Arc;

use crate::flow::{Address, address_from_words, address_words};
use crate::shm::atomic::{AtomicU64, Ordering, fence};
use crate::shm::readers::Readers;
use crate::shm::region::{Region, RegionError};
use crate::shm::shared::{Mapped, shared_struct};

/// Most addresses that a table's sessions can share.
pub const ADDRESSES_MAX: u64 = 1 << 16;

/// Slots that an address is looked for in, before the writer gives up.
const PROBES_MAX: usize = 64;

shared_struct! {
    /// One address, network byte order; all zeros is a slot never used, and the unspecified address in slot 0.
    #[repr(C, align(16))]
    pub struct AddressSlot {
        words: [AtomicU64; 2],
    }
}

const _: () = assert!(size_of::<AddressSlot>() == 16 && align_of::<AddressSlot>() == 16);

/// The addresses as every process sees them: number to address.
pub struct Addresses {
    slots: Mapped<[AddressSlot]>,
}

impl Addresses {
    /// The `count` addresses (a power of two, at most [`ADDRESSES_MAX`]) that lie at `offset` of `region`.
    ///
    /// # Errors
    /// They do not lie in the region.
    pub fn new(region: &Arc<Region>, offset: u64, count: u64) -> Result<Addresses, RegionError> {
        Ok(Addresses { slots: Mapped::slice(region, offset, count)? })
    }

    /// The address with a number, as [`address_words`] does; `None` if there is no such number. That it belongs to the record
    /// which has the number is for the caller to make sure of: as the record itself, it is used again only when registered
    /// readers are through.
    #[inline]
    pub fn words(&self, number: u16) -> Option<[u64; 2]> {
        let slot = self.slots.get(usize::from(number))?;
        Some([slot.words[0].load(Ordering::Relaxed), slot.words[1].load(Ordering::Relaxed)])
    }

    /// Whether a session may name this address. Once one has been removed it may be said of its addresses for a while still.
    pub fn may_have(&self, address: Address) -> bool {
        let words = address_words(address);
        let mask = self.slots.len().saturating_sub(1);
        let start = if self.slots.is_empty() { 0 } else { first_probe(self, words) };
        for slot in (start..start + PROBES_MAX).map(|slot| slot & mask) {
            if slot >= self.slots.len() || holds(self, slot, words) {
                return true;
            }
            // The writer takes the first slot that was never used; slot 0 is no slot.
            if slot != 0 && holds(self, slot, [0, 0]) {
                return false;
            }
        }
        true
    }

    /// The address with a number.
    #[inline]
    pub fn address(&self, number: u16) -> Option<Address> {
        self.words(number).map(address_from_words)
    }
}

/// The addresses as their writer keeps them: address to number, and who is still using it.
///
/// An address stays where it was found first, at one of a few slots that its bytes lead to, and is overwritten when no
/// session names it any more, readers are through with it and another one needs the slot. Rebuilt by each new writer.
pub struct SharedAddresses {
    /// How often sessions name each. Close together: three are counted up for every session.
    sessions: Vec<u32>,
    /// The epoch in which the last session that named each was removed.
    unused_since: Vec<u64>,
}

impl SharedAddresses {
    /// The uses of these addresses: none so far.
    pub fn new(addresses: &Addresses, readers: &Readers) -> SharedAddresses {
        let count = addresses.slots.len();
        SharedAddresses { sessions: vec![0; count], unused_since: vec![readers.epoch(); count] }
    }

    /// The number of an address, which one more session names from now on. `None` if there is no room for it.
    #[inline(always)]
    pub fn acquire(&mut self, addresses: &Addresses, readers: &Readers, address: Address) -> Option<u16> {
        let words = address_words(address);
        let number = match first_probe(addresses, words) {
            slot if holds(addresses, slot, words) => slot,
            _ => self.find_or_add(addresses, readers, words)?,
        };
        self.acquire_number(number as u16);
        Some(number as u16)
    }

    /// Notes that one more session names the address with this number.
    #[inline]
    pub fn acquire_number(&mut self, number: u16) {
        if let Some(sessions) = self.sessions.get_mut(usize::from(number)) {
            *sessions += 1;
        }
    }

    /// Notes that one session less names the address with this number.
    #[inline]
    pub fn release(&mut self, readers: &Readers, number: u16) {
        let number = usize::from(number);
        let Some(sessions) = self.sessions.get_mut(number) else { return };
        *sessions = sessions.saturating_sub(1);
        if *sessions == 0 {
            self.unused_since[number] = readers.epoch();
        }
    }

    #[cold]
    fn find_or_add(&mut self, addresses: &Addresses, readers: &Readers, words: [u64; 2]) -> Option<usize> {
        if words == [0, 0] {
            return Some(0);
        }
        let mask = addresses.slots.len() - 1;
        let start = first_probe(addresses, words);
        let mut vacant = None;
        for slot in (start..start + PROBES_MAX).map(|slot| slot & mask).filter(|slot| *slot != 0) {
            if holds(addresses, slot, words) {
                return Some(slot);
            }
            let never_used = holds(addresses, slot, [0, 0]);
            if vacant.is_none() && (never_used || self.may_overwrite(readers, slot)) {
                vacant = Some(slot);
            }
            if never_used {
                break;
            }
        }
        let slot = vacant?;
        // SYNC record-reused: who reads a word of the new address and is not registered also sees that the record which had
        // the old one is not what it was.
        fence(Ordering::Release);
        for (word, value) in addresses.slots[slot].words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        Some(slot)
    }

    /// Whether nobody can be reading a slot's address any more.
    fn may_overwrite(&self, readers: &Readers, slot: usize) -> bool {
        if self.sessions[slot] != 0 {
            return false;
        }
        let unused_since = self.unused_since[slot];
        if readers.epoch() == unused_since {
            readers.advance();
        }
        readers.have_passed(unused_since.wrapping_add(1).max(1))
    }
}

/// Where an address is looked for first. Who chooses these addresses is the operator, so the mixing need not be keyed.
#[inline(always)]
fn first_probe(addresses: &Addresses, words: [u64; 2]) -> usize {
    let folded = words[0].rotate_left(29) ^ words[1];
    // The last bytes of an address, in which most differ, stand in the highest bits.
    let mixed = (folded ^ folded >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize & addresses.slots.len().wrapping_sub(1)
}

#[inline(always)]
fn holds(addresses: &Addresses, slot: usize, words: [u64; 2]) -> bool {
    let Some(slot) = addresses.slots.get(slot) else { return false };
    let [high, low] = [0, 1].map(|word| slot.words[word].load(Ordering::Relaxed));
    (high ^ words[0]) | (low ^ words[1]) == 0
}
