//! A ring that hands packets from one thread to another of the same process.
//!
//! Never between processes: what is in a ring when a process is killed would be lost to its pool.

use std::cell::Cell;
use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::rte_ring;

use crate::burst::Burst;
use crate::eal::Eal;
use crate::error::RteError;
use crate::mbuf::Mbuf;

/// Why a ring was not made.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// libdpdk could not create it.
    #[error(
        "cannot create ring {name} of {slots} slots; the name must be new and short, the slots a power of two"
    )]
    Create {
        /// The ring's name.
        name: String,
        /// Slots asked for.
        slots: u32,
        /// What libdpdk said.
        source: RteError,
    },
}

/// The ring; both ends refer to it.
#[derive(Debug)]
struct Ring {
    ring: NonNull<rte_ring>,
}

// SAFETY: rte_ring is made for one producer and one consumer in different threads; there is one of each type, neither
// is `Sync`, and only the last of both drops the ring.
unsafe impl Send for Ring {}
// SAFETY: as for Send.
unsafe impl Sync for Ring {}

impl Ring {
    /// Takes packets off the ring, into the free places of a burst. Only for the consumer, or the last owner.
    fn dequeue<const N: usize>(&self, burst: &mut Burst<N>) -> usize {
        let (free, room) = burst.free_slots();
        // SAFETY: the ring is valid and this is its only consumer; `free` has room for `room` pointers.
        let count =
            unsafe { dpdk_sys::baton_ring_dequeue_burst(self.ring.as_ptr(), free, room as u32) } as usize;
        // SAFETY: the ring gave out `count` buffers, which the producer had given up.
        unsafe { burst.grow(count) };
        count
    }

    /// Packets in the ring. A snapshot.
    fn len(&self) -> usize {
        // SAFETY: the ring is valid; any thread may count.
        (unsafe { dpdk_sys::baton_ring_count(self.ring.as_ptr()) }) as usize
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut burst = Burst::<32>::new();
        while self.dequeue(&mut burst) > 0 {
            burst.clear();
        }
        // SAFETY: both ends are gone, and the ring came from `rte_ring_create`.
        unsafe { dpdk_sys::rte_ring_free(self.ring.as_ptr()) };
    }
}

/// Makes a ring that holds `slots - 1` packets, and its two ends. `slots` is a power of two; `socket` a NUMA node or -1.
/// Only before traffic runs: it allocates from EAL's heap.
///
/// # Errors
/// [`RingError::Create`].
pub fn mbuf_ring(_eal: &Eal, name: &str, slots: u32, socket: i32) -> Result<(Producer, Consumer), RingError> {
    let error = |source| RingError::Create { name: name.to_owned(), slots, source };
    let c_name = CString::new(name).map_err(|_| error(RteError(libc::EINVAL)))?;
    let flags = dpdk_sys::RING_F_SP_ENQ | dpdk_sys::RING_F_SC_DEQ;
    // SAFETY: EAL is initialised, by `_eal`; the name is NUL-terminated and copied.
    let ring = unsafe { dpdk_sys::rte_ring_create(c_name.as_ptr(), slots, socket, flags) };
    let ring = NonNull::new(ring).ok_or_else(|| error(RteError::last()))?;
    let ring = Arc::new(Ring { ring });
    let producer = Producer { ring: Arc::clone(&ring), owner: PhantomData };
    Ok((producer, Consumer { ring, owner: PhantomData }))
}

/// The end of a ring that packets go into. One thread owns it.
#[derive(Debug)]
pub struct Producer {
    ring: Arc<Ring>,
    /// `Send`, but not `Sync`.
    owner: PhantomData<Cell<()>>,
}

impl Producer {
    /// Puts a burst into the ring and says how many packets, from the first on, found room. The rest stays in the burst.
    #[inline]
    pub fn burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let offered = burst.len() as u32;
        let packets = burst.as_raw();
        // SAFETY: the ring is valid and `self` is its only producer; `packets` holds `offered` buffers of the burst's.
        let count =
            unsafe { dpdk_sys::baton_ring_enqueue_burst(self.ring.ring.as_ptr(), packets, offered) } as usize;
        // SAFETY: the ring took over the first `count` buffers, at most `offered`.
        unsafe { burst.forget_front(count) };
        count
    }

    /// Puts one packet into the ring.
    ///
    /// # Errors
    /// The packet itself if the ring is full.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        let raw = packet.into_raw();
        // SAFETY: the ring is valid and `self` is its only producer; the array holds one buffer that `packet` owned.
        let count = unsafe { dpdk_sys::baton_ring_enqueue_burst(self.ring.ring.as_ptr(), &raw, 1) };
        if count == 1 {
            return Ok(());
        }
        let raw = NonNull::new(raw).expect("a buffer is not null");
        // SAFETY: the ring did not take the buffer, so the ownership from above is still here.
        Err(unsafe { Mbuf::from_raw(raw) })
    }

    /// Packets in the ring. A snapshot.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the ring is empty. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The end of a ring that packets come out of. One thread owns it.
#[derive(Debug)]
pub struct Consumer {
    ring: Arc<Ring>,
    /// `Send`, but not `Sync`.
    owner: PhantomData<Cell<()>>,
}

impl Consumer {
    /// Takes packets off the ring into the free places of a burst, and says how many were added.
    #[inline]
    pub fn burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        self.ring.dequeue(burst)
    }

    /// Packets in the ring. A snapshot.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether the ring is empty. A snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
