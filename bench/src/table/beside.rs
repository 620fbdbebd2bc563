//! A reader beside something: its speed and the time of its bursts, in turns alone and with company.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::contender::{BURST, Contender, Reader, Tally};
use super::population::{Draws, Population, Side};
use crate::host::cpus;
use crate::report::median;

/// Keys that are made in advance: few enough to stay in the second level cache.
pub const BLOCK: usize = 1024;

/// A reader that looks up, in bursts, sessions that are always there.
pub struct Reading<C: Contender> {
    reader: C::Reader,
    population: Population,
    draws: Draws,
    keys: Vec<C::Key>,
    bursts: u32,
}

/// What a slice of reading came to.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Nanoseconds of each burst.
    pub bursts: Vec<u32>,
    /// Lookups that came to no result.
    pub contended: u64,
    /// How long it took, and how much of that others had the CPU.
    length: Duration,
    waited: Duration,
}

impl Slice {
    /// Millions of lookups a second, without the time for which others had the CPU. (Their share of all bursts' time is
    /// taken to be their share of the slice.)
    pub fn rate(&self) -> f64 {
        let nanoseconds: u64 = self.bursts.iter().map(|burst| u64::from(*burst)).sum();
        let own = 1.0 - self.waited.as_secs_f64() / self.length.as_secs_f64();
        (self.bursts.len() * BURST) as f64 / (nanoseconds as f64 * own) * 1e3
    }

    /// The time below which a share of the bursts lies, nanoseconds.
    pub fn percentile(&mut self, share: f64) -> f64 {
        let place = ((self.bursts.len() - 1) as f64 * share) as usize;
        f64::from(*self.bursts.select_nth_unstable(place).1)
    }

    fn extend(&mut self, other: &Slice) {
        self.bursts.extend(&other.bursts);
        self.contended += other.contended;
        self.length += other.length;
        self.waited += other.waited;
    }
}

impl<C: Contender> Reading<C> {
    /// A reader of the sessions 0 to `stable` of a population.
    ///
    /// # Errors
    /// The table cannot be attached.
    pub fn new(table: &C, population: Population, stable: u32) -> Result<Reading<C>> {
        let draws = Draws::new(stable, population.seed ^ 0x5eed);
        Ok(Reading { reader: table.reader()?, population, draws, keys: Vec::with_capacity(BLOCK), bursts: 0 })
    }

    /// Reads for so long.
    ///
    /// # Errors
    /// A session was not found.
    pub fn slice(&mut self, length: Duration) -> Result<Slice> {
        let mut slice = Slice::default();
        let mut tally = Tally::default();
        let (start, waited) = (Instant::now(), cpus::waited());
        while start.elapsed() < length || slice.bursts.is_empty() {
            self.make_keys();
            let mut last = Instant::now();
            for burst in self.keys.chunks(BURST) {
                self.reader.bulk(self.side(), burst, &mut tally);
                self.reader.quiesce();
                let now = Instant::now();
                slice.bursts.push(now.duration_since(last).as_nanos().min(u128::from(u32::MAX)) as u32);
                last = now;
            }
            self.bursts += 1;
        }
        let lookups = (slice.bursts.len() * BURST) as u64;
        ensure!(
            tally.hits + tally.contended == lookups,
            "{} of {lookups} lookups found their session, {} came to no result",
            tally.hits,
            tally.contended
        );
        std::hint::black_box(tally.fold);
        slice.contended = tally.contended;
        (slice.length, slice.waited) = (start.elapsed(), cpus::waited().saturating_sub(waited));
        Ok(slice)
    }

    /// A whole block is of one side: a table of each has its own index.
    fn side(&self) -> Side {
        Side::BOTH[self.bursts as usize & 1]
    }

    fn make_keys(&mut self) {
        self.keys.clear();
        for _ in 0..BLOCK {
            self.keys.push(C::key(&self.population.key(self.draws.next(), self.side())));
        }
    }
}

/// What a reader came to, alone and with company, in turns.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Alone.
    pub alone: Slice,
    /// With company.
    pub beside: Slice,
    /// What it keeps of its speed: the median of all pairs of turns.
    pub kept: f64,
    /// What the company did, millions of things a second.
    pub company: f64,
}

const PAUSE: u8 = 0;
const GO: u8 = 1;
const END: u8 = 2;

/// Reads in turns alone and beside `company`, which runs on another CPU and says how many things it did.
///
/// # Errors
/// A session was not found, or no thread can run on that CPU.
pub fn measure<C: Contender>(
    reading: &mut Reading<C>,
    turns: u32,
    length: Duration,
    cpu: usize,
    mut company: impl FnMut() -> u32 + Send,
) -> Result<Beside> {
    let (order, done) = (AtomicU8::new(PAUSE), AtomicU64::new(0));
    thread::scope(|scope| {
        let companion = scope.spawn(|| -> Result<()> {
            cpus::pin(cpu)?;
            loop {
                match order.load(Ordering::Relaxed) {
                    END => return Ok(()),
                    GO => done.store(done.load(Ordering::Relaxed) + u64::from(company()), Ordering::Relaxed),
                    _ => thread::sleep(Duration::from_micros(200)),
                }
            }
        });
        let measured = in_turns(reading, turns, length, &order, &done);
        order.store(END, Ordering::Relaxed);
        companion.join().expect("the writer does not panic")?;
        measured
    })
}

fn in_turns<C: Contender>(
    reading: &mut Reading<C>,
    turns: u32,
    length: Duration,
    order: &AtomicU8,
    done: &AtomicU64,
) -> Result<Beside> {
    let (mut alone, mut beside, mut kept, mut spent) = (Slice::default(), Slice::default(), Vec::new(), 0.0);
    let switch = |to| {
        order.store(to, Ordering::Relaxed);
        // Until the companion has noticed.
        thread::sleep(Duration::from_millis(2));
    };
    for _ in 0..turns {
        switch(PAUSE);
        let slice = reading.slice(length)?;
        switch(GO);
        let (start, before) = (Instant::now(), done.load(Ordering::Relaxed));
        let with_company = reading.slice(length)?;
        spent += start.elapsed().as_secs_f64() / (done.load(Ordering::Relaxed) - before).max(1) as f64;
        kept.push(with_company.rate() / slice.rate());
        alone.extend(&slice);
        beside.extend(&with_company);
    }
    let company = f64::from(turns) / spent / 1e6;
    Ok(Beside { alone, beside, kept: median(&kept).unwrap_or(f64::NAN), company })
}
