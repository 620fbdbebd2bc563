//! A trial: one contender, one population, every operation; in a process of its own.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use baton_common::time::Millis;
use serde::{Deserialize, Serialize};

use super::beside::{self, BLOCK, Reading};
use super::churn::Churn;
use super::compact::{Line, hugepage_lines};
use super::contender::{BATCH, BURST, Contender, Kind, Reader, Tally};
use super::population::{Draws, Population, Side, mix64};
use super::quantity::{Figure, Quantity};
use super::stopwatch::Stopwatch;
use crate::host::cpus::Cpus;
use crate::host::hugepages::PAGE_BYTES;
use crate::host::memory::Footprint;

/// Times that a reader is measured alone and beside a writer, in turns.
const TURNS: u32 = 4;

/// Numbers of sessions whose keys are all looked up to see that the table is right.
const CHECKED_MAX: u32 = 1 << 18;

/// Lines of the memory that a reader's neighbour works on: 256 MiB.
const NEIGHBOUR_LINES: usize = 4 << 20;

/// Hugepages of that memory.
pub const NEIGHBOUR_PAGES: u64 = (NEIGHBOUR_LINES * size_of::<Line>()) as u64 / PAGE_BYTES;

/// A time after all times of the population.
const NOW: Millis = Millis(2_000_000);

/// What a child process is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Who.
    pub contender: Kind,
    /// With which sessions.
    pub population: Population,
    /// A hugetlbfs directory, empty.
    pub hugepages: PathBuf,
    /// Where it runs.
    pub cpus: Cpus,
    /// How long each rate is measured, milliseconds.
    pub slice_ms: u64,
}

impl Job {
    /// How long each rate is measured.
    pub fn slice(&self) -> Duration {
        Duration::from_millis(self.slice_ms)
    }
}

/// A table that is measured, and what was found.
pub struct Trial<'a, C: Contender> {
    job: &'a Job,
    /// The table.
    pub table: C,
    figures: Vec<Figure>,
    keys: Vec<C::Key>,
}

impl<'a, C: Contender> Trial<'a, C> {
    /// Makes the table, fills it and checks it.
    ///
    /// # Errors
    /// Memory is missing, or the table is wrong.
    pub fn begin(job: &'a Job) -> Result<Trial<'a, C>> {
        let before = Footprint::now()?;
        let table = C::create(&job.hugepages, &job.population)?;
        let mut trial = Trial { job, table, figures: Vec::new(), keys: Vec::with_capacity(BLOCK) };
        trial.insert_all()?;
        let shared = trial.table.hugepage_bytes(before)? as f64;
        let private = Footprint::now()?.anonymous.saturating_sub(before.anonymous) as f64;
        let sessions = f64::from(job.population.sessions);
        trial.note(Quantity::SharedBytes, shared / sessions);
        trial.note(Quantity::Bytes, (shared + private) / sessions);
        trial.check()?;
        Ok(trial)
    }

    /// What every contender is measured by.
    ///
    /// # Errors
    /// The table is wrong.
    pub fn measure(&mut self) -> Result<()> {
        self.lookups()?;
        self.refreshes()?;
        self.reader_beside()
    }

    /// Removes everything; what was found in all.
    ///
    /// # Errors
    /// The table is wrong.
    pub fn end(mut self) -> Result<Vec<Figure>> {
        self.remove_all()?;
        Ok(self.figures)
    }

    /// Adds a figure.
    pub fn note(&mut self, quantity: Quantity, value: f64) {
        self.figures.push(Figure { quantity, value });
    }

    fn insert_all(&mut self) -> Result<()> {
        let population = self.job.population;
        let mut watch = Stopwatch::default();
        let mut entries = Vec::with_capacity(BLOCK);
        let mut inserted = 0;
        for start in (0..population.sessions).step_by(BLOCK) {
            let end = population.sessions.min(start + BLOCK as u32);
            entries.clear();
            entries.extend((start..end).map(|number| C::entry(&population.session(number))));
            inserted += watch.lap(entries.len(), || {
                entries.chunks(BATCH).map(|batch| self.table.insert(batch)).sum::<u32>()
            });
        }
        ensure!(
            inserted == population.sessions && self.table.len() == inserted,
            "{inserted} of {} sessions were inserted, the table says {}",
            population.sessions,
            self.table.len()
        );
        self.note(Quantity::Insert, watch.rate());
        Ok(())
    }

    /// Looks up both keys of many sessions that are there, and as many keys that are not.
    fn check(&mut self) -> Result<()> {
        let population = self.job.population;
        let checked = population.sessions.min(CHECKED_MAX);
        let step = population.sessions / checked;
        let mut reader = self.table.reader()?;
        let mut found = |key: &dyn Fn(u32, Side) -> C::Key| {
            let mut tally = Tally::default();
            for place in 0..checked {
                for side in Side::BOTH {
                    reader.single(side, &key(place * step, side), &mut tally);
                    reader.bulk(side, &[key(place * step, side)], &mut tally);
                }
                reader.quiesce();
            }
            tally.hits
        };
        let present = found(&|number, side| C::key(&population.key(number, side)));
        let absent = found(&|number, side| C::key(&population.absent_key(number, side)));
        let expected = u64::from(checked) * 4;
        ensure!(
            (present, absent) == (expected, 0),
            "{present} lookups of {expected} found a session that is there, {absent} one that is not"
        );
        self.note(Quantity::Found, present as f64);
        self.note(Quantity::FoundAbsent, absent as f64);
        Ok(())
    }

    fn lookups(&mut self) -> Result<()> {
        for (quantity, hits, bulk) in [
            (Quantity::HitBulk, true, true),
            (Quantity::HitSingle, true, false),
            (Quantity::MissBulk, false, true),
            (Quantity::MissSingle, false, false),
        ] {
            let rate = self.lookup(hits, bulk)?;
            self.note(quantity, rate);
        }
        Ok(())
    }

    fn lookup(&mut self, hits: bool, bulk: bool) -> Result<f64> {
        let population = self.job.population;
        let mut reader = self.table.reader()?;
        let mut draws = Draws::new(population.sessions, population.seed);
        let (mut watch, mut tally) = (Stopwatch::default(), Tally::default());
        let mut side = Side::Client;
        while watch.spent() < self.job.slice() {
            self.keys.clear();
            self.keys.extend((0..BLOCK).map(|_| {
                let number = draws.next();
                C::key(&if hits { population.key(number, side) } else { population.absent_key(number, side) })
            }));
            watch.lap(BLOCK, || {
                for burst in self.keys.chunks(BURST) {
                    if bulk {
                        reader.bulk(side, burst, &mut tally);
                    } else {
                        burst.iter().for_each(|key| reader.single(side, key, &mut tally));
                    }
                    reader.quiesce();
                }
            });
            side = if side == Side::Client { Side::Server } else { Side::Client };
        }
        let expected = if hits { watch.done() } else { 0 };
        ensure!(
            tally.hits == expected && tally.contended == 0,
            "{} lookups of {} found a session instead of {expected}, {} came to no result",
            tally.hits,
            watch.done(),
            tally.contended
        );
        black_box(tally.fold);
        Ok(watch.rate())
    }

    fn refreshes(&mut self) -> Result<()> {
        let population = self.job.population;
        for (quantity, each) in [(Quantity::Refresh, false), (Quantity::RefreshEach, true)] {
            let mut draws = Draws::new(population.sessions, !population.seed);
            let (mut watch, mut found) = (Stopwatch::default(), 0);
            while watch.spent() < self.job.slice() {
                self.keys.clear();
                let key = |number| C::key(&population.key(number, Side::Client));
                self.keys.extend((0..BLOCK).map(|_| key(draws.next())));
                found += watch.lap(BLOCK, || {
                    let refresh = |batch: &[C::Key]| match each {
                        true => self.table.refresh_each(batch, NOW),
                        false => self.table.refresh(batch, NOW),
                    };
                    self.keys.chunks(BATCH).map(refresh).map(u64::from).sum::<u64>()
                });
            }
            ensure!(found == watch.done(), "{found} of {} sessions were found to refresh", watch.done());
            self.note(quantity, watch.rate());
        }
        Ok(())
    }

    fn reader_beside(&mut self) -> Result<()> {
        let population = self.job.population;
        let (slice, cpu) = (self.job.slice(), self.job.cpus.writer);
        let mut churn = Churn::of(population);
        churn.prepare(&mut self.table)?;
        let mut reading = Reading::new(&self.table, population, churn.stable())?;
        let mut with_writer =
            beside::measure(&mut reading, TURNS, slice, cpu, || churn.step(&mut self.table))?;
        let neighbour = beside::measure(&mut reading, TURNS, slice, cpu, neighbour()?)?;
        drop(reading);
        churn.restore(&mut self.table)?;

        let (alone, beside) = (&mut with_writer.alone, &mut with_writer.beside);
        self.note(Quantity::ReaderAlone, alone.rate());
        self.note(Quantity::ReaderBeside, beside.rate());
        self.note(Quantity::ReaderKept, with_writer.kept);
        self.note(Quantity::ReaderKeptNeighbour, neighbour.kept);
        self.note(Quantity::WriterBeside, with_writer.company);
        self.note(Quantity::AloneP50, alone.percentile(0.5));
        self.note(Quantity::AloneP99, alone.percentile(0.99));
        self.note(Quantity::AloneP999, alone.percentile(0.999));
        self.note(Quantity::BesideP50, beside.percentile(0.5));
        self.note(Quantity::BesideP99, beside.percentile(0.99));
        self.note(Quantity::BesideP999, beside.percentile(0.999));
        self.note(Quantity::Contended, beside.contended as f64);
        Ok(())
    }

    fn remove_all(&mut self) -> Result<()> {
        let population = self.job.population;
        let mut order = Strides::over(population.sessions);
        let (mut watch, mut removed, mut left) = (Stopwatch::default(), 0, population.sessions as usize);
        while left > 0 {
            let count = left.min(BLOCK);
            left -= count;
            self.keys.clear();
            self.keys.extend((0..count).map(|_| C::key(&population.key(order.next(), Side::Client))));
            removed += watch
                .lap(count, || self.keys.chunks(BATCH).map(|batch| self.table.remove(batch)).sum::<u32>());
        }
        ensure!(
            removed == population.sessions && self.table.len() == 0,
            "{removed} of {} sessions were removed, the table says {} are left",
            population.sessions,
            self.table.len()
        );
        self.note(Quantity::Remove, watch.rate());
        Ok(())
    }
}

/// Work like an insert's on memory that is not the table's: what a reader loses beside it, it loses to the machine.
fn neighbour() -> Result<impl FnMut() -> u32 + Send> {
    let lines = hugepage_lines(NEIGHBOUR_LINES)?;
    let mut number = 0;
    Ok(move || {
        for _ in 0..BATCH {
            number += 1;
            let line = &lines[mix64(number) as usize % NEIGHBOUR_LINES];
            for word in &line.0 {
                word.store(number, std::sync::atomic::Ordering::Relaxed);
            }
        }
        BATCH as u32
    })
}

/// Every number below a bound once, far from the one before.
struct Strides {
    count: u32,
    stride: u32,
    next: u32,
}

impl Strides {
    fn over(count: u32) -> Strides {
        let coprime = |stride: &u32| {
            let (mut a, mut b) = (count, *stride);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a == 1
        };
        let golden = (f64::from(count) * 0.618_034) as u32;
        Strides { count, stride: (golden..).find(coprime).unwrap_or(1), next: 0 }
    }

    #[inline]
    fn next(&mut self) -> u32 {
        let number = self.next;
        self.next = ((u64::from(number) + u64::from(self.stride)) % u64::from(self.count)) as u32;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_come_to_every_number_once() {
        for count in [1, 2, 1000, 1024, 12_345] {
            let mut strides = Strides::over(count);
            let mut seen: Vec<u32> = (0..count).map(|_| strides.next()).collect();
            seen.sort();
            assert!(seen.into_iter().eq(0..count), "{count}");
        }
    }
}
