//! A forwarding worker: one thread on one lcore, one receive and one transmit queue, one local table.

use std::sync::Arc;

use baton_common::counter::{Counter, CounterBlock};
use baton_common::idle::Backoff;
use baton_common::packet::ethernet;
use baton_common::pipeline::{BURST_MAX, DropReason, Pipeline, Verdict};
use baton_common::shm::ring;
use baton_common::time::Millis;
use dpdk::{Burst, Consumer, Mbuf, Mempool, Producer, RxQueue, TxQueue};

use crate::pulse::Pulse;

/// A burst as large as the pipeline takes.
pub type FrameBurst = Burst<BURST_MAX>;

/// Largest frame that the secondary may have sent on its behalf, bytes.
const SYNC_FRAME_MAX: usize = 9216;

/// The rings between a worker and the threads and processes beside it.
pub struct Rings {
    /// To each other worker, by its number; `None` for itself.
    pub handoff_out: Vec<Option<Producer>>,
    /// From each other worker.
    pub handoff_in: Vec<Consumer>,
    /// To the punt thread.
    pub punt_out: Producer,
    /// From the punt thread; the first worker has it.
    pub punt_in: Option<Consumer>,
    /// To the secondary of each sync domain: datagrams that reached this worker.
    pub sync_rx: Option<ring::Producer>,
    /// From the secondary, which has no transmit queue of its own; the first worker of the NUMA node has it.
    pub sync_tx: Option<ring::Consumer>,
}

/// A forwarding worker.
pub struct Worker {
    pub rx: RxQueue,
    pub tx: TxQueue,
    pub pool: Mempool,
    pub pipeline: Pipeline,
    pub rings: Rings,
    pub counters: &'static CounterBlock,
    pub backoff: Backoff,
    pub pulse: Arc<Pulse>,
}

impl Worker {
    /// Forwards until it is told to stop.
    pub fn run(mut self) {
        let mut burst = FrameBurst::new();
        let mut out = FrameBurst::new();
        while !self.pulse.is_stopped() {
            let now = Millis::now();
            let mut work = self.poll_port(now, &mut burst, &mut out);
            work |= self.poll_handoffs(now, &mut burst, &mut out);
            work |= self.poll_punt(&mut burst);
            work |= self.poll_sync_tx(&mut out);
            self.pipeline.age(now);
            self.pipeline.quiesce();
            self.pulse.beat();
            if !work {
                self.counters.add(Counter::EmptyPolls, 1);
            }
            self.backoff.after_poll(work);
        }
    }

    /// Takes a burst from the port.
    fn poll_port(&mut self, now: Millis, burst: &mut FrameBurst, out: &mut FrameBurst) -> bool {
        let received = self.rx.burst(burst);
        if received == 0 {
            return false;
        }
        let bytes = bytes_of(burst);
        self.counters.add(Counter::RxPackets, received as u64);
        self.counters.add(Counter::RxBytes, bytes);
        self.forward(now, burst, out);
        true
    }

    /// Takes what other workers steered here.
    fn poll_handoffs(&mut self, now: Millis, burst: &mut FrameBurst, out: &mut FrameBurst) -> bool {
        let mut work = false;
        for ring in 0..self.rings.handoff_in.len() {
            let received = self.rings.handoff_in[ring].burst(burst);
            if received > 0 {
                self.counters.add(Counter::HandoffIn, received as u64);
                self.forward(now, burst, out);
                work = true;
            }
        }
        work
    }

    /// Sends what the kernel has to send, as it is.
    fn poll_punt(&mut self, burst: &mut FrameBurst) -> bool {
        let Some(ring) = &mut self.rings.punt_in else { return false };
        if ring.burst(burst) == 0 {
            return false;
        }
        self.transmit(burst);
        true
    }

    /// Sends what the secondary has to send, if it has no transmit queue of its own.
    fn poll_sync_tx(&mut self, out: &mut FrameBurst) -> bool {
        let Some(ring) = &mut self.rings.sync_tx else { return false };
        let mut frame = [0; SYNC_FRAME_MAX];
        let mut taken = 0;
        while !out.is_full() {
            let Some(length) = ring.pop(&mut frame) else { break };
            taken += 1;
            match self.pool.alloc_with(&frame[..length]) {
                Some(mbuf) => keep(out, mbuf),
                None => self.counters.add(DropReason::NoBuffer.counter(), 1),
            }
        }
        if taken == 0 {
            return false;
        }
        self.counters.add(Counter::SyncTxOnBehalf, taken);
        self.transmit(out);
        true
    }

    /// Passes a burst through the pipeline and moves every buffer as its verdict says.
    fn forward(&mut self, now: Millis, burst: &mut FrameBurst, out: &mut FrameBurst) {
        let mut verdicts = [Verdict::Drop(DropReason::Malformed); BURST_MAX];
        let mut frames: [&mut [u8]; BURST_MAX] = std::array::from_fn(|_| Default::default());
        let count = burst.len();
        for (frame, mbuf) in frames.iter_mut().zip(burst.iter_mut()) {
            *frame = whole_frame(mbuf);
        }
        self.pipeline.process(now, &mut frames[..count], &mut verdicts[..count]);
        for (mbuf, verdict) in burst.drain().zip(verdicts) {
            self.carry_out(mbuf, verdict, out);
        }
        self.transmit(out);
    }

    /// Moves one buffer as its verdict says.
    fn carry_out(&mut self, mbuf: Mbuf, verdict: Verdict, out: &mut FrameBurst) {
        let dropped = match verdict {
            Verdict::Transmit => return keep(out, mbuf),
            Verdict::Punt => self.rings.punt_out.push(mbuf).err().map(|_| DropReason::PuntFull),
            Verdict::Handoff(worker) => {
                let ring = self.rings.handoff_out.get_mut(usize::from(worker.0)).and_then(Option::as_mut);
                let taken = ring.is_some_and(|ring| ring.push(mbuf).is_ok());
                self.counters.add(Counter::HandoffOut, taken.into());
                (!taken).then_some(DropReason::HandoffFull)
            }
            Verdict::Sync => {
                let packet = mbuf.data().get(ethernet::HEADER_LEN..).unwrap_or_default();
                let taken = self.rings.sync_rx.as_mut().is_some_and(|ring| ring.try_push(packet));
                self.counters.add(Counter::SyncHandoff, taken.into());
                (!taken).then_some(DropReason::SyncRingFull)
            }
            Verdict::Drop(reason) => Some(reason),
        };
        if let Some(reason) = dropped {
            self.counters.add(reason.counter(), 1);
        }
    }

    /// Sends a burst; what the queue does not take is dropped and counted.
    fn transmit(&mut self, burst: &mut FrameBurst) {
        if burst.is_empty() {
            return;
        }
        let offered_bytes = bytes_of(burst);
        let sent = self.tx.burst(burst);
        self.counters.add(Counter::TxPackets, sent as u64);
        self.counters.add(Counter::TxBytes, offered_bytes - bytes_of(burst));
        self.counters.add(DropReason::TxFull.counter(), burst.len() as u64);
        burst.clear();
    }
}

/// The bytes of a frame that lies in one segment; none of one that does not, which then counts as malformed.
fn whole_frame(mbuf: &mut Mbuf) -> &mut [u8] {
    if mbuf.segments() == 1 { mbuf.data_mut() } else { &mut [] }
}

/// Adds to a burst that has room: it never gets more than one received burst's packets.
fn keep(burst: &mut FrameBurst, mbuf: Mbuf) {
    let kept = burst.push(mbuf);
    debug_assert!(kept.is_ok());
}

fn bytes_of(burst: &FrameBurst) -> u64 {
    burst.iter().map(|mbuf| u64::from(mbuf.packet_len())).sum()
}
