//! DPDK's `rte_hash` with lock-free read-write concurrency: one writer, readers in other threads.

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use anyhow::{Context, Result};
use dpdk::RteError;

use super::compact::CompactKey;
use super::contender::BURST;
use super::two_indexes::{Finder, Index};

const _: () = assert!(BURST <= dpdk_sys::RTE_HASH_LOOKUP_BULK_MAX as usize);

/// Slots of a bucket of `rte_hash`; their number is a power of two.
const BUCKET_SLOTS: u64 = 8;

/// Above this share of taken slots `rte_hash` moves much and then refuses: one gives it a table of twice the size.
const LOAD_MAX: f64 = 0.85;

/// The C object, freed when the writer and all readers are gone.
struct Handle(NonNull<dpdk_sys::rte_hash>);

// SAFETY: nothing in an rte_hash belongs to a thread.
unsafe impl Send for Handle {}
// SAFETY: made with RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF, so lookups may run beside each other and beside one writer.
unsafe impl Sync for Handle {}

impl Handle {
    fn as_ptr(&self) -> *mut dpdk_sys::rte_hash {
        self.0.as_ptr()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: `rte_hash_create` made it, and this is its last owner.
        unsafe { dpdk_sys::rte_hash_free(self.as_ptr()) };
    }
}

/// The table as its one writer has it.
pub struct RteHash<const WORDS: usize>(Arc<Handle>);

/// The table as a reader has it.
pub struct RteFinder<const WORDS: usize>(Arc<Handle>);

/// The place of a key that was removed.
#[derive(Debug)]
pub struct Position(i32);

/// Entries to ask for, so that `entries` go in without trouble.
pub fn entries_to_ask_for(entries: u32) -> u32 {
    let slots = u64::from(entries).next_power_of_two().max(BUCKET_SLOTS);
    if f64::from(entries) > LOAD_MAX * slots as f64 { slots as u32 + 1 } else { entries }
}

impl<const WORDS: usize> Index<WORDS> for RteHash<WORDS> {
    type Finder = RteFinder<WORDS>;
    type Remains = Position;

    /// EAL must have been started.
    fn create(name: &str, entries: u32) -> Result<Self> {
        let name = CString::new(name)?;
        let parameters = dpdk_sys::rte_hash_parameters {
            name: name.as_ptr(),
            entries: entries_to_ask_for(entries),
            reserved: 0,
            key_len: size_of::<CompactKey<WORDS>>() as u32,
            hash_func: Some(dpdk_sys::baton_hash_crc),
            hash_func_init_val: 0,
            socket_id: -1,
            extra_flag: dpdk_sys::RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF as u8,
        };
        // SAFETY: the parameters and the name live during the call, which copies them; EAL runs, or it fails.
        let made = unsafe { dpdk_sys::rte_hash_create(&parameters) };
        // SAFETY: no precondition; it reads a thread-local integer.
        let error = || RteError(unsafe { dpdk_sys::baton_errno() });
        let handle = NonNull::new(made).with_context(|| format!("rte_hash_create: {}", error()))?;
        Ok(RteHash(Arc::new(Handle(handle))))
    }

    fn finder(&self) -> Self::Finder {
        RteFinder(Arc::clone(&self.0))
    }

    fn add(&mut self, key: &CompactKey<WORDS>, record: u32) -> bool {
        let value = ptr::without_provenance_mut::<c_void>(record as usize);
        // SAFETY: the table is alive, the key has the length that it was made for, and `&mut self` is the only writer.
        let code =
            unsafe { dpdk_sys::rte_hash_add_key_data(self.0.as_ptr(), ptr::from_ref(key).cast(), value) };
        code == 0
    }

    fn take(&mut self, key: &CompactKey<WORDS>) -> Option<Position> {
        // SAFETY: as in `add`.
        let code = unsafe { dpdk_sys::rte_hash_del_key(self.0.as_ptr(), ptr::from_ref(key).cast()) };
        (code >= 0).then_some(Position(code))
    }

    unsafe fn clear(&mut self, remains: Position) {
        // SAFETY: `rte_hash_del_key` gave the position and it is given back once; no reader looks, by the caller's word.
        let code = unsafe { dpdk_sys::rte_hash_free_key_with_position(self.0.as_ptr(), remains.0) };
        assert_eq!(code, 0, "rte_hash does not take its own position back");
    }
}

impl<const WORDS: usize> Finder<WORDS> for RteFinder<WORDS> {
    #[inline]
    fn find(&self, key: &CompactKey<WORDS>) -> Option<u32> {
        let mut value = ptr::null_mut::<c_void>();
        // SAFETY: the table is alive and the key has the length that it was made for.
        let code =
            unsafe { dpdk_sys::rte_hash_lookup_data(self.0.as_ptr(), ptr::from_ref(key).cast(), &mut value) };
        (code >= 0).then(|| value.addr() as u32)
    }

    #[inline]
    fn find_all(&self, keys: &[CompactKey<WORDS>], records: &mut [Option<u32>; BURST]) {
        let count = keys.len().min(BURST);
        let mut pointers = [ptr::null::<c_void>(); BURST];
        for (pointer, key) in pointers.iter_mut().zip(keys) {
            *pointer = ptr::from_ref(key).cast();
        }
        let (mut hits, mut values) = (0, [ptr::null_mut::<c_void>(); BURST]);
        // SAFETY: the table is alive; the first `count` pointers are of keys of the right length, there is room for as many
        // values, and `count` is at most RTE_HASH_LOOKUP_BULK_MAX.
        unsafe {
            dpdk_sys::rte_hash_lookup_bulk_data(
                self.0.as_ptr(),
                pointers.as_mut_ptr(),
                count as u32,
                &mut hits,
                values.as_mut_ptr(),
            )
        };
        for (number, record) in records[..count].iter_mut().enumerate() {
            *record = (hits >> number & 1 == 1).then(|| values[number].addr() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::entries_to_ask_for;

    #[test]
    fn a_table_that_would_be_too_full_is_asked_for_larger() {
        assert_eq!(entries_to_ask_for(20_000_000), 20_000_000);
        assert_eq!(entries_to_ask_for(1_000_000), (1 << 20) + 1);
    }
}
