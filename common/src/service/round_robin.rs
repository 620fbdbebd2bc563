//! Smooth weighted round robin: in turn, in proportion to the weights, evenly interleaved.

/// A smooth weighted round robin over a list of weights.
///
/// The algorithm is nginx's: each turn every entry's credit grows by its weight, the entry with the most credit is taken
/// and pays the sum of all weights. Over as many turns as that sum, each entry is taken exactly its weight's number of
/// times, spread as evenly as can be, and the credits are back where they were. One turn looks at every entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeightedRoundRobin {
    entries: Vec<Entry>,
    total: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    weight: u16,
    /// The sum over all entries is zero between turns.
    credit: i64,
}

impl WeightedRoundRobin {
    /// A round robin at its start.
    pub fn new(weights: impl IntoIterator<Item = u16>) -> WeightedRoundRobin {
        let entries: Vec<Entry> = weights.into_iter().map(|weight| Entry { weight, credit: 0 }).collect();
        let total = entries.iter().map(|entry| i64::from(entry.weight)).sum();
        WeightedRoundRobin { entries, total }
    }

    /// The position of the entry whose turn it is; none if no weight is above zero. Ties go to the first.
    #[inline]
    pub fn turn(&mut self) -> Option<usize> {
        let mut best: Option<(usize, i64)> = None;
        for (position, entry) in self.entries.iter_mut().enumerate().filter(|(_, entry)| entry.weight > 0) {
            entry.credit += i64::from(entry.weight);
            if best.is_none_or(|(_, credit)| entry.credit > credit) {
                best = Some((position, entry.credit));
            }
        }
        let (position, _) = best?;
        self.entries[position].credit -= self.total;
        Some(position)
    }

    /// Gives one entry another weight; nothing happens if there is no such entry or it has that weight already.
    ///
    /// All credits start again from zero: credit earned under other weights would bend the first cycle.
    pub fn set_weight(&mut self, position: usize, weight: u16) {
        let Some(entry) = self.entries.get_mut(position) else { return };
        if entry.weight == weight {
            return;
        }
        self.total += i64::from(weight) - i64::from(entry.weight);
        entry.weight = weight;
        for entry in &mut self.entries {
            entry.credit = 0;
        }
    }

    /// The weights in order.
    pub fn weights(&self) -> impl Iterator<Item = u16> {
        self.entries.iter().map(|entry| entry.weight)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::testing::cases;

    fn turns(robin: &mut WeightedRoundRobin, count: usize) -> Vec<usize> {
        (0..count).map_while(|_| robin.turn()).collect()
    }

    #[test]
    fn heavy_entry_is_interleaved_with_the_light_ones() {
        let mut robin = WeightedRoundRobin::new([5, 1, 1]);
        assert_eq!(turns(&mut robin, 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&mut robin, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_plain_turns() {
        let mut robin = WeightedRoundRobin::new([3, 3, 3]);
        assert_eq!(turns(&mut robin, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weight_zero_gets_no_turn() {
        let mut robin = WeightedRoundRobin::new([0, 2, 0, 1]);
        assert_eq!(turns(&mut robin, 6), [1, 3, 1, 1, 3, 1]);
    }

    #[test]
    fn nothing_to_choose_from_gives_none() {
        assert_eq!(WeightedRoundRobin::new([]).turn(), None);
        assert_eq!(WeightedRoundRobin::new([0, 0]).turn(), None);
    }

    #[test]
    fn changed_weight_holds_from_the_next_turn_on() {
        let mut robin = WeightedRoundRobin::new([5, 1, 1]);
        turns(&mut robin, 3);
        robin.set_weight(0, 0);
        assert_eq!(turns(&mut robin, 4), [1, 2, 1, 2]);
        robin.set_weight(0, 2);
        assert_eq!(turns(&mut robin, 4), [0, 1, 2, 0]);
        robin.set_weight(9, 1);
        assert_eq!(robin.weights().collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn weight_set_to_what_it_is_does_not_disturb_the_cycle() {
        let mut robin = WeightedRoundRobin::new([5, 1, 1]);
        turns(&mut robin, 3);
        robin.set_weight(0, 5);
        assert_eq!(turns(&mut robin, 4), [0, 2, 0, 0]);
    }

    #[test]
    fn largest_weights_do_not_overflow() {
        let mut robin = WeightedRoundRobin::new([u16::MAX; 1000]);
        assert_eq!(turns(&mut robin, 1000), (0..1000).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(cases(256))]

        #[test]
        fn every_cycle_is_exactly_in_proportion(
            weights in proptest::collection::vec(0..20u16, 1..12),
            start in 0..100usize,
        ) {
            let mut robin = WeightedRoundRobin::new(weights.iter().copied());
            turns(&mut robin, start);
            let total = weights.iter().map(|weight| usize::from(*weight)).sum();
            let mut counts = vec![0; weights.len()];
            for position in turns(&mut robin, total) {
                counts[position] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        /// After each turn an entry has had at most one turn more than its share: the one that is taken has at least the
        /// average credit before it pays. All together it can then lack at most what the others are ahead.
        #[test]
        fn no_entry_runs_ahead_of_its_share(weights in proptest::collection::vec(1..20u16, 2..8)) {
            let mut robin = WeightedRoundRobin::new(weights.iter().copied());
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            let mut counts = vec![0u32; weights.len()];
            for turn in 1..=total {
                counts[robin.turn().unwrap()] += 1;
                for (count, weight) in counts.iter().zip(&weights) {
                    let ahead = f64::from(*count) - (turn * usize::from(*weight)) as f64 / total as f64;
                    prop_assert!(ahead < 1.0 && ahead > 1.0 - weights.len() as f64);
                }
            }
        }
    }
}
