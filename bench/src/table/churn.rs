//! The writer at full speed: it inserts and removes sessions of the last eighth of the population for ever.

use anyhow::{Result, ensure};

use super::contender::{BATCH, Contender, Reader, Tally};
use super::population::{Population, Side};

/// Sessions of a population that are there, in turns: half of them at any time.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    population: Population,
    /// The first session that comes and goes.
    first: u32,
    /// How many come and go: an even number of batches.
    count: u32,
    /// Batches done so far.
    turn: u32,
}

impl Churn {
    /// What comes and goes of a population.
    pub fn of(population: Population) -> Churn {
        let pair = 2 * BATCH as u32;
        let count = population.sessions / 8 / pair * pair;
        Churn { population, first: population.sessions - count, count, turn: 0 }
    }

    /// Sessions 0 to this are always there.
    pub fn stable(&self) -> u32 {
        self.first
    }

    /// Makes the table what [`Churn::step`] expects at first, whatever an earlier writer left of these sessions: the first
    /// half of them is not there, the second is.
    ///
    /// # Errors
    /// The table does not do what it is told.
    pub fn prepare<C: Contender>(&mut self, table: &mut C) -> Result<()> {
        self.turn = 0;
        self.settle(table, |offset, count| offset >= count / 2)
    }

    /// Brings all of the sessions back.
    ///
    /// # Errors
    /// The table does not do what it is told.
    pub fn restore<C: Contender>(&self, table: &mut C) -> Result<()> {
        self.settle(table, |_, _| true)
    }

    fn settle<C: Contender>(&self, table: &mut C, wanted: impl Fn(u32, u32) -> bool) -> Result<()> {
        let mut reader = table.reader()?;
        let mut present = Vec::with_capacity(self.count as usize);
        for offset in 0..self.count {
            let mut tally = Tally::default();
            reader.single(Side::Client, &C::key(&self.key(offset)), &mut tally);
            present.push(tally.hits == 1);
        }
        drop(reader);
        // First what goes, so that there is room for what comes.
        for (offset, present) in (0..self.count).zip(&present) {
            if *present && !wanted(offset, self.count) {
                ensure!(table.remove(&[C::key(&self.key(offset))]) == 1, "a session cannot be removed");
            }
        }
        for (offset, present) in (0..self.count).zip(&present) {
            if !*present && wanted(offset, self.count) {
                let entry = C::entry(&self.population.session(self.first + offset));
                ensure!(table.insert(&[entry]) == 1, "a session cannot be inserted");
            }
        }
        Ok(())
    }

    /// Inserts the next batch and removes the oldest one; how many sessions that were.
    pub fn step<C: Contender>(&mut self, table: &mut C) -> u32 {
        let comes = self.turn * BATCH as u32 % self.count;
        let goes = (comes + self.count / 2) % self.count;
        // The turn's product must not overflow, so it begins anew after each round.
        self.turn = (self.turn + 1) % (self.count / BATCH as u32);
        let entries: [C::Entry; BATCH] = std::array::from_fn(|place| {
            C::entry(&self.population.session(self.first + comes + place as u32))
        });
        let keys: [C::Key; BATCH] = std::array::from_fn(|place| C::key(&self.key(goes + place as u32)));
        table.insert(&entries) + table.remove(&keys)
    }

    fn key(&self, offset: u32) -> baton_common::flow::FlowKey {
        self.population.key(self.first + offset, Side::Client)
    }
}
