//! The punt thread: carries frames between the workers and the kernel's interface, so that no worker makes a system call.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use baton_common::counter::{Counter, CounterBlock};
use baton_common::pipeline::{BURST_MAX, DropReason};
use baton_common::punt::PuntTap;
use dpdk::{Consumer, Mempool, Producer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::pulse::Pulse;
use crate::worker::FrameBurst;

/// Largest frame of the kernel's interface.
const FRAME_MAX: usize = 9216;

/// How long the thread waits for the kernel when the workers had nothing either.
const WAIT: Duration = Duration::from_micros(500);

/// Everything that the punt thread owns.
pub struct Punt {
    pub tap: PuntTap,
    /// From each worker, for the kernel.
    pub from_workers: Vec<Consumer>,
    /// To the first worker, for the port.
    pub to_port: Producer,
    pub pool: Mempool,
    /// This thread's own block.
    pub counters: &'static CounterBlock,
    pub pulse: Arc<Pulse>,
}

impl Punt {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(self) -> anyhow::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("punt".into())
            .spawn(move || self.run())
            .context("starting the punt thread")
    }

    fn run(mut self) {
        let mut burst = FrameBurst::new();
        while !self.pulse.is_stopped() {
            let wrote = self.write_frames(&mut burst);
            let read = self.read_frames();
            self.pulse.beat();
            if !wrote && !read {
                self.wait();
            }
        }
    }

    /// Gives the kernel what the workers punted.
    fn write_frames(&mut self, burst: &mut FrameBurst) -> bool {
        let mut work = false;
        for ring in &mut self.from_workers {
            work |= ring.burst(burst) > 0;
            for frame in burst.iter() {
                let counter = match self.tap.write(frame.data()) {
                    Ok(()) => Counter::Punted,
                    Err(_) => DropReason::PuntError.counter(),
                };
                self.counters.add(counter, 1);
            }
            burst.clear();
        }
        work
    }

    /// Takes what the kernel sends, at most a burst.
    fn read_frames(&mut self) -> bool {
        let mut bytes = [0; FRAME_MAX];
        let mut taken = 0;
        while taken < BURST_MAX {
            let Ok(Some(length)) = self.tap.read(&mut bytes) else { break };
            taken += 1;
            self.counters.add(Counter::PuntTx, 1);
            let dropped = match self.pool.alloc_with(&bytes[..length]) {
                Some(mbuf) => self.to_port.push(mbuf).err().map(|_| DropReason::PuntFull),
                None => Some(DropReason::NoBuffer),
            };
            if let Some(reason) = dropped {
                self.counters.add(reason.counter(), 1);
            }
        }
        taken > 0
    }

    /// Waits for the kernel to have something, or for the time to look at the workers' rings again.
    fn wait(&self) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: WAIT.subsec_nanos().into() };
        let mut tap = [PollFd::from_borrowed_fd(self.tap.as_fd(), PollFlags::IN)];
        if poll(&mut tap, Some(&timeout)).is_err() {
            std::thread::sleep(WAIT);
        }
    }
}
