//! The link: how sync datagrams come in and go out.
//!
//! Either by queues of the port that are this secondary's own, or by rings to and from the workers, which receive and send
//! for it. Datagrams that reached a worker though the secondary has a queue come by the rings too.

use std::net::IpAddr;

use baton_common::counter::{Counter, CounterBlock};
use baton_common::flow::Endpoint;
use baton_common::packet::{open_udp_frame, open_udp_packet};
use baton_common::shm::ring::{Consumer, Producer};
use dpdk::{Burst, Mbuf, Mempool, RxQueue, TxQueue};

use crate::attachment::OwnQueues;
use crate::foreign::accept;

/// Packets taken at a time from the queue, and from each ring. A secondary that is killed takes no more with it; and what
/// its pool has to spare lasts for hundreds of kills.
const BURST: usize = 8;

/// This secondary's way in.
pub struct Inlet<'q> {
    queue: Option<&'q mut RxQueue>,
    from_workers: Vec<Consumer>,
    /// One packet of a ring.
    packet: Vec<u8>,
    own: Endpoint,
    counters: &'static CounterBlock,
}

/// This secondary's way out.
pub enum Outlet<'q> {
    /// A queue of its own, and the buffers for it.
    Queue(&'q mut TxQueue, &'q Mempool),
    /// A ring to a worker.
    Ring(Producer),
}

/// The way in and out: by `queues` if the port gives any, else by the rings. `own` is the address and port that peers
/// send to.
pub fn open<'q>(
    queues: Option<&'q mut OwnQueues>,
    to_worker: Producer,
    from_workers: Vec<Consumer>,
    own: Endpoint,
    counters: &'static CounterBlock,
) -> (Inlet<'q>, Outlet<'q>) {
    let longest = from_workers.iter().map(Consumer::item_bytes).max().unwrap_or_default();
    let (queue, outlet) = match queues {
        Some(OwnQueues { rx, tx, pool, .. }) => (Some(rx), Outlet::Queue(tx, pool)),
        None => (None, Outlet::Ring(to_worker)),
    };
    (Inlet { queue, from_workers, packet: vec![0; longest], own, counters }, outlet)
}

impl Inlet<'_> {
    /// Gives `take` the sender and the payload of each sync datagram that has come, a bounded number of them. Says whether
    /// anything had come at all.
    pub fn receive(&mut self, mut take: impl FnMut(IpAddr, &[u8])) -> bool {
        let mut work = self.receive_from_queue(&mut take);
        for ring in &mut self.from_workers {
            for _ in 0..BURST {
                let Some(length) = ring.pop(&mut self.packet) else { break };
                work = true;
                match accept(open_udp_packet(&self.packet[..length]), self.own) {
                    Ok(datagram) => take(datagram.source.address.into(), datagram.payload),
                    Err(refused) => refuse(self.counters, refused.counter()),
                }
            }
        }
        work
    }

    fn receive_from_queue(&mut self, take: &mut impl FnMut(IpAddr, &[u8])) -> bool {
        let Some(queue) = &mut self.queue else { return false };
        let mut burst = Burst::<BURST>::new();
        let received = queue.burst(&mut burst);
        for mbuf in burst.iter() {
            match accept(open_udp_frame(whole_frame(mbuf)), self.own) {
                Ok(datagram) => take(datagram.source.address.into(), datagram.payload),
                Err(refused) => refuse(self.counters, refused.counter()),
            }
        }
        received > 0
    }
}

impl Outlet<'_> {
    /// Sends a frame; `false` if there is no room for it now.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        match self {
            Outlet::Ring(ring) => ring.try_push(frame),
            Outlet::Queue(queue, pool) => {
                let Some(mbuf) = pool.alloc_with(frame) else { return false };
                let mut burst = Burst::<1>::new();
                // There is room for one.
                let _ = burst.push(mbuf);
                queue.burst(&mut burst) == 1
            }
        }
    }
}

fn refuse(counters: &CounterBlock, counter: Counter) {
    if counter == Counter::SyncRejectChecksum {
        counters.add(Counter::SyncRxDatagrams, 1);
    }
    counters.add(counter, 1);
}

/// The bytes of a frame that lies in one segment; none of one that does not, which is no datagram then: the buffers hold
/// the largest.
fn whole_frame(mbuf: &Mbuf) -> &[u8] {
    if mbuf.segments() == 1 { mbuf.data() } else { &[] }
}
