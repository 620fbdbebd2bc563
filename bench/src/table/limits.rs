//! The machine's own limits: the memory accesses of a table, over as much memory, and nothing else.

use std::hint::black_box;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use baton_common::shm::index::prefetch_read;

use super::compact::{Line, hugepage_lines};
use super::population::{Population, Side, mix64};
use super::quantity::{Figure, Quantity};
use super::stopwatch::Stopwatch;

/// Sessions to a bucket, as in Baton's table.
const SESSIONS_PER_BUCKET: u32 = 3;

/// Distances between prefetch and access that are tried; the best one is the limit.
const DISTANCES: [usize; 4] = [8, 16, 24, 32];

/// Accesses of a lap.
const LAP: usize = 4096;

/// Bytes of memory that a population's limits are measured on: as much as Baton's table of it has.
pub fn bytes(sessions: u32) -> u64 {
    (u64::from(sessions) + u64::from(sessions.div_ceil(SESSIONS_PER_BUCKET))) * size_of::<Line>() as u64
}

/// Measures all of them; `slice` is the time for each.
///
/// # Errors
/// There are not enough free hugepages.
pub fn measure(population: &Population, slice: Duration) -> Result<Vec<Figure>> {
    let lines = hugepage_lines(bytes(population.sessions) as usize / size_of::<Line>())?;
    let best = |rate: &dyn Fn(usize) -> f64| DISTANCES.into_iter().map(rate).fold(0.0, f64::max);
    Ok([
        (Quantity::RandomReads, best(&|distance| random_reads(lines, distance, slice))),
        (
            Quantity::InsertAccesses,
            best(&|distance| insert_accesses(lines, population.sessions, distance, slice)),
        ),
        (Quantity::MakeKeys, make(slice, |number| population.key(number, Side::BOTH[number as usize & 1]))),
        (Quantity::MakeSessions, make(slice, |number| population.session(number))),
    ]
    .map(|(quantity, value)| Figure { quantity, value })
    .into())
}

/// A ring of things that were prefetched and wait for their turn.
struct Ahead<T> {
    ring: Vec<T>,
    next: usize,
}

impl<T: Copy> Ahead<T> {
    fn new(distance: usize, first: impl Fn(usize) -> T) -> Ahead<T> {
        Ahead { ring: (0..distance).map(first).collect(), next: 0 }
    }

    /// Puts one in and takes out what was put in `distance` times before.
    #[inline]
    fn exchange(&mut self, thing: T) -> T {
        let next = self.next;
        self.next = if next + 1 == self.ring.len() { 0 } else { next + 1 };
        std::mem::replace(&mut self.ring[next], thing)
    }
}

/// A number below `count` from 32 random bits.
#[inline]
fn below(bits: u32, count: usize) -> usize {
    ((u64::from(bits) * count as u64) >> 32) as usize
}

fn random_reads(lines: &[Line], distance: usize, slice: Duration) -> f64 {
    let mut ahead = Ahead::new(distance, |number| number % lines.len());
    let (mut watch, mut number, mut fold) = (Stopwatch::default(), 0_u64, 0);
    while watch.spent() < slice {
        watch.lap(LAP, || {
            for _ in 0..LAP {
                number += 1;
                let line = below(mix64(number) as u32, lines.len());
                prefetch_read(&lines[line]);
                let line = ahead.exchange(line);
                fold = lines[line].0.iter().fold(fold, |fold, word| fold ^ word.load(Ordering::Relaxed));
            }
        });
    }
    black_box(fold);
    watch.rate()
}

/// For each session: two random bucket lines are read, changed and written, and one record line is written.
fn insert_accesses(lines: &[Line], sessions: u32, distance: usize, slice: Duration) -> f64 {
    let (records, buckets) = lines.split_at(sessions as usize);
    let mut ahead = Ahead::new(distance, |number| [number % buckets.len(), 0, number % records.len()]);
    let (mut watch, mut number, mut record) = (Stopwatch::default(), 0_u64, 0);
    while watch.spent() < slice {
        watch.lap(LAP, || {
            for _ in 0..LAP {
                number += 1;
                let hash = mix64(number);
                let places =
                    [below(hash as u32, buckets.len()), below((hash >> 32) as u32, buckets.len()), record];
                record = if record + 1 == records.len() { 0 } else { record + 1 };
                prefetch_read(&buckets[places[0]]);
                prefetch_read(&buckets[places[1]]);
                prefetch_read(&records[places[2]]);
                let [first, second, record] = ahead.exchange(places);
                for bucket in [first, second] {
                    let word = &buckets[bucket].0[(hash & 7) as usize];
                    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
                for word in &records[record].0 {
                    word.store(hash, Ordering::Relaxed);
                }
            }
        });
    }
    watch.rate()
}

fn make<T>(slice: Duration, thing: impl Fn(u32) -> T) -> f64 {
    let (mut watch, mut number) = (Stopwatch::default(), 0);
    while watch.spent() < slice {
        watch.lap(LAP, || {
            for _ in 0..LAP {
                number = (number + 1) & 0xff_ffff;
                black_box(thing(number));
            }
        });
    }
    watch.rate()
}
