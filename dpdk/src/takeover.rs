//! Taking over a pool whose owner was killed.
//!
//! A [`PoolOps::SingleThread`] pool keeps its free buffers in an `rte_ring` with one producer and one consumer. Its owner
//! moves a `head` first, then copies pointers, then lets `tail` follow. If it is killed in between, nobody blocks, but the
//! next user would take the half-made move for done and hand out pointers that are not there. Both heads go back to their
//! tails: what the dead process was giving back is lost, what it was taking is free again.

use std::ffi::CStr;
use std::ptr::NonNull;

use dpdk_sys::rte_ring;

use crate::mempool::{Mempool, PoolOps};

/// What was found of a dead owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeOver {
    /// Buffers that it was just giving back: lost until the primary starts anew.
    pub giving: u32,
    /// Buffers that it was just taking: free again.
    pub taking: u32,
}

impl Mempool {
    /// Puts right what a killed owner of this pool left half done. For the new owner, before it uses the pool.
    ///
    /// Buffers that the dead process held are not found again: a driver's own look the same. A tap's are
    /// ([`TapQueue::deal_anew`](crate::TapQueue::deal_anew)).
    ///
    /// # Panics
    /// The pool is not a [`PoolOps::SingleThread`] one: others have many owners, and their living ones may be in the
    /// middle of something.
    pub fn take_over(&self) -> TakeOver {
        let ring = self.ring();
        // SAFETY: the ring lives as long as the pool. By this method's contract its only user is this thread, which is here.
        repair(unsafe { &mut *ring.as_ptr() })
    }

    /// The ring of the free buffers.
    ///
    /// # Panics
    /// The pool is not a [`PoolOps::SingleThread`] one.
    pub(crate) fn ring(&self) -> NonNull<rte_ring> {
        let pool = self.as_ptr();
        // SAFETY: the pool is valid for the life of the process.
        let ops = unsafe { dpdk_sys::baton_mempool_ops_name(pool) };
        // SAFETY: the name is a NUL-terminated constant of libdpdk.
        let ops = unsafe { CStr::from_ptr(ops) };
        assert_eq!(
            ops.to_str(),
            Ok(PoolOps::SingleThread.name()),
            "only a pool for a single thread can be taken over"
        );
        // SAFETY: the pool is valid for the life of the process.
        let data = unsafe { (*pool).__bindgen_anon_1 };
        // SAFETY: both fields of the union are the same eight bytes; ring-based operations keep the pointer there.
        let data = unsafe { data.pool_data };
        NonNull::new(data.cast::<rte_ring>()).expect("a pool has a ring from its creation on")
    }
}

/// Makes both heads equal to their tails.
fn repair(ring: &mut rte_ring) -> TakeOver {
    // SAFETY: the operations for a single thread use this view of the union (rte_ring_elem_pvt.h).
    let producer = unsafe { &mut ring.__bindgen_anon_1.prod };
    // SAFETY: as above.
    let consumer = unsafe { &mut ring.__bindgen_anon_2.cons };
    let taken = TakeOver {
        giving: producer.head.wrapping_sub(producer.tail),
        taking: consumer.head.wrapping_sub(consumer.tail),
    };
    producer.head = producer.tail;
    consumer.head = consumer.tail;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Head and tail of producer and consumer.
    fn ends(ring: &rte_ring) -> [u32; 4] {
        // SAFETY: the tests' rings are of this view.
        let producer = unsafe { ring.__bindgen_anon_1.prod };
        // SAFETY: as above.
        let consumer = unsafe { ring.__bindgen_anon_2.cons };
        [producer.head, producer.tail, consumer.head, consumer.tail]
    }

    #[test]
    fn half_made_moves_are_undone() {
        let mut ring = rte_ring::default();
        ring.__bindgen_anon_1.prod.head = 3;
        ring.__bindgen_anon_1.prod.tail = u32::MAX;
        ring.__bindgen_anon_2.cons.head = 70;
        ring.__bindgen_anon_2.cons.tail = 38;

        assert_eq!(repair(&mut ring), TakeOver { giving: 4, taking: 32 });

        assert_eq!(ends(&ring), [u32::MAX, u32::MAX, 38, 38]);
        assert_eq!(repair(&mut ring), TakeOver { giving: 0, taking: 0 });
    }
}
