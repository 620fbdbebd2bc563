//! The buffers of a tap's receive queue, dealt anew after the queue's owner was killed.
//!
//! [`Mempool::take_over`] makes a pool usable again, but what the dead process held in its hands is in no list. For most drivers
//! these buffers cannot be told from their own. net_tap is different: its receive queue holds one chain of buffers, its
//! transmit side none between two calls. So if the pool serves this queue alone, every buffer has one of two places, and
//! all of them can be given out again, as at the start: the chain of the queue, and the rest to the pool.
//!
//! The layout is that of `struct rx_queue` in DPDK 22.11 (drivers/net/tap/rte_eth_tap.h, x86-64).

use std::ffi::{c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, compiler_fence};

use dpdk_sys::{rte_mbuf, rte_mempool, rte_ring};

use crate::device::capabilities;
use crate::mempool::Mempool;
use crate::port::{Port, PortError};
use crate::queue::RxQueue;

/// The driver whose queues these are.
const DRIVER: &str = "net_tap";

/// The driver's receive queue, as far as it is used here.
#[repr(C)]
struct DriverQueue {
    pool: *mut rte_mempool,
    trigger_seen: u32,
    port: u16,
    queue: u16,
    statistics: [u64; 7],
    descriptors: u16,
    mode: *mut c_void,
    /// The first buffer of the chain.
    chain: *mut rte_mbuf,
    /// One for the packet's own header, then one for each buffer.
    vectors: *mut libc::iovec,
}

const _: () = {
    assert!(std::mem::offset_of!(DriverQueue, descriptors) == 72);
    assert!(std::mem::offset_of!(DriverQueue, chain) == 88);
    assert!(std::mem::offset_of!(DriverQueue, vectors) == 96);
};

/// The receive queue of a tap, with the pool that serves it and nothing else.
#[derive(Debug)]
pub struct TapQueue {
    queue: NonNull<DriverQueue>,
    pool: Mempool,
}

// SAFETY: the queue lies in shared memory that is never freed, and belongs to the thread that owns the `RxQueue`; whoever
// calls a method answers for that, as its contract says.
unsafe impl Send for TapQueue {}

impl TapQueue {
    /// The queue, if the port is a tap and `pool` serves this queue. Another release's layout is not taken for this one: the
    /// pool, the port's and the queue's numbers have to be where they are expected.
    ///
    /// # Errors
    /// The driver does not say what it is.
    pub fn find(port: &Port, rx: &RxQueue, pool: &Mempool) -> Result<Option<TapQueue>, PortError> {
        if capabilities(port.id(), port.name())?.driver != DRIVER {
            return Ok(None);
        }
        let ops = ptr::addr_of!(dpdk_sys::rte_eth_fp_ops).cast::<dpdk_sys::rte_eth_fp_ops>();
        // SAFETY: the array has one entry for each port, and the port exists.
        let ops = unsafe { ops.add(usize::from(port.id())) };
        // SAFETY: the entry was filled in when the port was started, or attached to; a copy of it is made.
        let queues = unsafe { ops.read() }.rxq.data;
        if queues.is_null() {
            return Ok(None);
        }
        // SAFETY: the array has an entry for each queue, and `rx` is one of them.
        let queue = unsafe { queues.add(usize::from(rx.queue())) };
        // SAFETY: as above; the entry is a pointer.
        let Some(queue) = NonNull::new(unsafe { queue.read() }.cast::<DriverQueue>()) else {
            return Ok(None);
        };
        // SAFETY: net_tap keeps a structure there that is larger than the part which is read.
        let found = unsafe { queue.read() };
        let is_expected = found.pool == pool.as_ptr()
            && (found.port, found.queue) == (port.id(), rx.queue())
            && found.descriptors > 0
            && !found.vectors.is_null();
        Ok(is_expected.then(|| TapQueue { queue, pool: pool.clone() }))
    }

    /// Deals the pool's buffers anew if any is not where it should be, and says how many were nowhere.
    ///
    /// For the new owner of queue and pool, before it uses them, when its predecessor is dead or has given them up and holds
    /// no buffer. If it is killed in here, the next one begins again.
    pub fn deal_anew(&mut self) -> u32 {
        let ring = self.pool.ring();
        // SAFETY: the ring lives as long as the pool; by this method's contract nobody else uses it.
        let ends = Ends::of(unsafe { ring.as_ref() });
        // SAFETY: the queue is valid (`find`), and nobody else uses it, by this method's contract.
        let queue = unsafe { self.queue.as_mut() };
        let size = self.pool.capacity();
        let expected = size.saturating_sub(queue.descriptors.into());
        if ends.are_whole() && ends.count() == expected && !queue.chain.is_null() {
            return 0;
        }
        let lost = expected.saturating_sub(ends.count());
        // Until the end it is seen by this that the work is not done.
        queue.chain = ptr::null_mut();
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as above.
        Ends::empty(unsafe { &mut *ring.as_ptr() });
        // SAFETY: the pool is valid, and so is the function for each of its objects.
        unsafe { dpdk_sys::rte_mempool_obj_iter(self.pool.as_ptr(), Some(give_back), ring.as_ptr().cast()) };
        let chain = deal_chain(&self.pool, queue);
        compiler_fence(Ordering::SeqCst);
        queue.chain = chain;
        lost
    }
}

/// Takes the queue's buffers from the pool, links them, and returns the first.
fn deal_chain(pool: &Mempool, queue: &DriverQueue) -> *mut rte_mbuf {
    let mut first: *mut rte_mbuf = ptr::null_mut();
    // From the last to the first, so that each knows the one behind it. Only the first leaves room before the packet.
    for position in (1..=usize::from(queue.descriptors)).rev() {
        // A pool that is too small for its queue would not have started.
        let Some(mbuf) = pool.alloc() else { return ptr::null_mut() };
        let mbuf = mbuf.into_raw();
        // SAFETY: the buffer was just allocated and has no other owner.
        let header = unsafe { &mut *mbuf };
        header.next = first;
        let room = if position == 1 { header.data_off } else { 0 };
        let vector = libc::iovec {
            // SAFETY: the offset of the data lies inside the buffer (libdpdk's invariant).
            iov_base: unsafe { header.buf_addr.cast::<u8>().add(room.into()) }.cast(),
            iov_len: usize::from(header.buf_len - room),
        };
        // SAFETY: the driver has one more of them than descriptors.
        let place = unsafe { queue.vectors.add(position) };
        // SAFETY: as above.
        unsafe { place.write(vector) };
        first = mbuf;
    }
    first
}

/// Puts a buffer of a pool into the ring of its free ones, as one that nobody holds.
unsafe extern "C" fn give_back(
    _pool: *mut rte_mempool,
    ring: *mut c_void,
    mbuf: *mut c_void,
    _number: c_uint,
) {
    let mbuf = mbuf.cast::<rte_mbuf>();
    // SAFETY: the pool's objects are packet buffers that nobody holds now, by `deal_anew`'s contract.
    unsafe { dpdk_sys::baton_mbuf_make_free(mbuf) };
    // SAFETY: the ring is the pool's, and has room for all its objects; this thread is its only user.
    unsafe { dpdk_sys::baton_ring_enqueue_burst(ring.cast::<rte_ring>(), &mbuf, 1) };
}

/// Where the ends of a pool's ring stand.
#[derive(Clone, Copy, Debug)]
struct Ends {
    producer: (u32, u32),
    consumer: (u32, u32),
}

impl Ends {
    fn of(ring: &rte_ring) -> Ends {
        // SAFETY: the operations for a single thread use this view of the union (rte_ring_elem_pvt.h).
        let producer = unsafe { ring.__bindgen_anon_1.prod };
        // SAFETY: as above.
        let consumer = unsafe { ring.__bindgen_anon_2.cons };
        Ends { producer: (producer.head, producer.tail), consumer: (consumer.head, consumer.tail) }
    }

    /// Whether no move is half done.
    fn are_whole(self) -> bool {
        self.producer.0 == self.producer.1 && self.consumer.0 == self.consumer.1
    }

    fn count(self) -> u32 {
        self.producer.1.wrapping_sub(self.consumer.1)
    }

    /// Makes the ring empty.
    fn empty(ring: &mut rte_ring) {
        // SAFETY: as in `of`.
        let producer = unsafe { &mut ring.__bindgen_anon_1.prod };
        // SAFETY: as in `of`.
        let consumer = unsafe { &mut ring.__bindgen_anon_2.cons };
        (producer.head, producer.tail) = (0, 0);
        (consumer.head, consumer.tail) = (0, 0);
    }
}
