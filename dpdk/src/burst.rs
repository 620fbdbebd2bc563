//! A burst of packets: what a queue or a ring gives and takes at once.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::slice;

use dpdk_sys::rte_mbuf;

use crate::mbuf::Mbuf;

/// Up to `N` packets, in place. Derefs to a slice of them. What is left in it when it is dropped is freed.
#[derive(Debug)]
pub struct Burst<const N: usize> {
    /// The first `len` slots are initialised.
    slots: [MaybeUninit<Mbuf>; N],
    len: usize,
}

impl<const N: usize> Burst<N> {
    /// A burst's size is a 16-bit number in libdpdk.
    const FITS: () = assert!(N > 0 && N <= u16::MAX as usize);

    /// An empty burst.
    pub const fn new() -> Self {
        let () = Self::FITS;
        Self { slots: [const { MaybeUninit::uninit() }; N], len: 0 }
    }

    /// Whether no further packet fits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == N
    }

    /// Free places.
    #[inline]
    pub fn room(&self) -> usize {
        N - self.len
    }

    /// Adds a packet at the end.
    ///
    /// # Errors
    /// The packet itself if the burst is full.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        if self.is_full() {
            return Err(packet);
        }
        self.slots[self.len].write(packet);
        self.len += 1;
        Ok(())
    }

    /// Takes the last packet.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        // SAFETY: the slot was initialised, as it lay below `len`; it no longer does, so nobody reads it again.
        Some(unsafe { self.slots[self.len].assume_init_read() })
    }

    /// Takes all packets, first to last. What the iterator has not given out when it is dropped is freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_, N> {
        let end = self.len;
        self.len = 0;
        Drain { slots: &self.slots, next: 0, end }
    }

    /// Frees all packets.
    #[inline]
    pub fn clear(&mut self) {
        if self.len > 0 {
            let count = self.len as u32;
            self.len = 0;
            // SAFETY: the first `count` slots were initialised and are no longer below `len`: freed once. `Mbuf` is
            // transparent over the pointer that the call expects.
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(self.slots.as_mut_ptr().cast(), count) };
        }
    }

    /// Where further buffers may be written, and how many. They count after [`Burst::grow`].
    #[inline]
    pub(crate) fn free_slots(&mut self) -> (*mut *mut rte_mbuf, usize) {
        let room = self.room();
        (self.slots[self.len..].as_mut_ptr().cast(), room)
    }

    /// Takes over buffers that were written to [`Burst::free_slots`].
    ///
    /// # Safety
    /// The first `count` free slots hold valid buffers that nobody else owns.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        self.len += count;
    }

    /// The buffers, for a call that takes over the first few of them. See [`Burst::forget_front`].
    #[inline]
    pub(crate) fn as_raw(&mut self) -> *mut *mut rte_mbuf {
        self.slots.as_mut_ptr().cast()
    }

    /// Forgets the first `count` packets without freeing them; the others move up.
    ///
    /// # Safety
    /// `count` is at most the length, and somebody else took over these buffers.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        let rest = self.len - count;
        if rest > 0 && count > 0 {
            let start = self.slots.as_mut_ptr();
            // SAFETY: `count` is below the length here.
            let from = unsafe { start.add(count) };
            // SAFETY: `rest` initialised slots lie behind `count`; the regions may overlap, `copy` allows that. The old
            // places are at or above the new `len`, or were written anew.
            unsafe { start.copy_from(from, rest) };
        }
        self.len = rest;
    }
}

impl<const N: usize> Default for Burst<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Burst<N> {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` slots are initialised, and `MaybeUninit<Mbuf>` has the layout of `Mbuf`.
        unsafe { slice::from_raw_parts(self.slots.as_ptr().cast(), self.len) }
    }
}

impl<const N: usize> DerefMut for Burst<N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.slots.as_mut_ptr().cast(), self.len) }
    }
}

impl<const N: usize> Drop for Burst<N> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The packets of a burst, taken out first to last. See [`Burst::drain`].
#[derive(Debug)]
pub struct Drain<'a, const N: usize> {
    /// The slots from `next` to `end` are initialised and belong to the iterator; the burst counts none of them.
    slots: &'a [MaybeUninit<Mbuf>; N],
    next: usize,
    end: usize,
}

impl<const N: usize> Iterator for Drain<'_, N> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let slot = &self.slots[self.next];
        self.next += 1;
        // SAFETY: the slot lay between `next` and `end`; it no longer does, so nobody reads it again.
        Some(unsafe { slot.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl<const N: usize> ExactSizeIterator for Drain<'_, N> {}

impl<const N: usize> Drop for Drain<'_, N> {
    fn drop(&mut self) {
        for packet in self {
            drop(packet);
        }
    }
}
