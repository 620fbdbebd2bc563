//! The queues of a started port.

use crate::burst::Burst;
use crate::claim::{Claim, Part};

/// The receive side of one queue. One thread of one process owns it.
#[derive(Debug)]
pub struct RxQueue {
    claim: Claim,
    queue: u16,
}

impl RxQueue {
    /// Takes the queue of a started port; `None` if somebody in this process has it. `queue` is below the number of
    /// receive queues that the port was configured with.
    pub(crate) fn take(port: u16, queue: u16) -> Option<Self> {
        Claim::new(port, Part::Receive(queue)).map(|claim| Self { claim, queue })
    }

    /// Its number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Receives into the free places of a burst, and says how many packets were added.
    #[inline]
    pub fn burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let (free, room) = burst.free_slots();
        // SAFETY: the port is started with this queue (`take`), which nobody else polls: `self` is the only claim and
        // borrowed mutably. `free` has room for `room` pointers; a burst's size fits 16 bits.
        let count = unsafe { dpdk_sys::baton_rx_burst(self.claim.port, self.queue, free, room as u16) };
        let count = usize::from(count);
        // SAFETY: the driver wrote `count` buffers, at most `room`, and gave up their ownership.
        unsafe { burst.grow(count) };
        count
    }
}

/// The transmit side of one queue. One thread of one process owns it.
#[derive(Debug)]
pub struct TxQueue {
    claim: Claim,
    queue: u16,
}

impl TxQueue {
    /// Takes the queue of a started port; `None` if somebody in this process has it. `queue` is below the number of
    /// transmit queues that the port was configured with.
    pub(crate) fn take(port: u16, queue: u16) -> Option<Self> {
        Claim::new(port, Part::Transmit(queue)).map(|claim| Self { claim, queue })
    }

    /// Its number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// Offers a burst to the port and says how many packets, from the first on, it took: these belong to it now. The
    /// rest stays in the burst, in order, for the caller to offer again or to drop.
    #[inline]
    pub fn burst<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let offered = burst.len() as u16;
        if offered == 0 {
            return 0;
        }
        let packets = burst.as_raw();
        // SAFETY: the port is started with this queue (`take`), which nobody else uses: `self` is the only claim and
        // borrowed mutably. `packets` holds `offered` buffers that the burst owns.
        let count = unsafe { dpdk_sys::baton_tx_burst(self.claim.port, self.queue, packets, offered) };
        let count = usize::from(count);
        // SAFETY: the driver took over the first `count` buffers, at most `offered`.
        unsafe { burst.forget_front(count) };
        count
    }
}
