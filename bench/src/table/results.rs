//! What all trials found.

use super::contender::Kind;
use super::population::Family;
use super::quantity::{Figure, Quantity};
use crate::report::{Measurement, median};

/// A size and a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    /// Sessions in the table.
    pub sessions: u32,
    /// The address family.
    pub family: Family,
}

impl Case {
    /// For people: `20 M IPv4`.
    pub fn name(&self) -> String {
        let family = self.family.name();
        match self.sessions {
            sessions if sessions.is_multiple_of(1_000_000) => format!("{} M {family}", sessions / 1_000_000),
            sessions if sessions.is_multiple_of(1000) => format!("{} k {family}", sessions / 1000),
            sessions => format!("{sessions} {family}"),
        }
    }
}

/// A trial that was done.
#[derive(Debug)]
struct Done {
    case: Case,
    who: Kind,
    round: u32,
    figures: Vec<Figure>,
}

/// All trials, done and left out.
#[derive(Debug, Default)]
pub struct Results {
    done: Vec<Done>,
    skipped: Vec<(Case, Kind, String)>,
}

impl Results {
    /// Adds what a trial found.
    pub fn add(&mut self, case: Case, who: Kind, round: u32, figures: Vec<Figure>) {
        self.done.push(Done { case, who, round, figures });
    }

    /// Adds why a trial was not done.
    pub fn skip(&mut self, case: Case, who: Kind, why: String) {
        if !self.is_skipped(case, who) {
            self.skipped.push((case, who, why));
        }
    }

    /// Whether it was tried in vain.
    pub fn is_skipped(&self, case: Case, who: Kind) -> bool {
        self.skipped.iter().any(|(of, contender, _)| (*of, *contender) == (case, who))
    }

    /// All cases, the smallest first.
    pub fn cases(&self) -> Vec<Case> {
        let skipped = self.skipped.iter().map(|(case, ..)| *case);
        let mut cases: Vec<Case> = self.done.iter().map(|done| done.case).chain(skipped).collect();
        cases.sort();
        cases.dedup();
        cases
    }

    /// A figure: the median of all rounds.
    pub fn value(&self, case: Case, who: Kind, quantity: Quantity) -> Option<f64> {
        let rounds = self.rounds(case, who, quantity);
        median(&rounds.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    }

    /// One figure to another one: the median of the rounds' ratios, so that what slows a whole round down does not matter.
    pub fn ratio(&self, case: Case, ours: (Kind, Quantity), theirs: (Kind, Quantity)) -> Option<f64> {
        let theirs = self.rounds(case, theirs.0, theirs.1);
        let ours = self.rounds(case, ours.0, ours.1);
        let of_round = |round| theirs.iter().find(|(other, _)| *other == round).map(|(_, value)| *value);
        let ratios = ours.iter().filter_map(|(round, value)| Some(value / of_round(*round)?));
        median(&ratios.collect::<Vec<_>>())
    }

    /// All figures as they are reported.
    pub fn measurements(&self) -> Vec<Measurement> {
        let mut measurements = Vec::new();
        for case in self.cases() {
            for who in Kind::ALL {
                let mut quantities: Vec<Quantity> =
                    self.of(case, who).flat_map(|done| &done.figures).map(|figure| figure.quantity).collect();
                quantities.sort();
                quantities.dedup();
                for quantity in quantities {
                    let (what, unit, better) = quantity.shown();
                    let rounds = self.rounds(case, who, quantity);
                    let rounds: Vec<f64> = rounds.into_iter().map(|(_, value)| value).collect();
                    measurements.push(Measurement::of_rounds(
                        &case.name(),
                        what,
                        who.name(),
                        unit,
                        better,
                        &rounds,
                    ));
                }
                // Who was left out in later rounds only has figures; how many rounds they are of is told with them.
                let nothing = self.of(case, who).next().is_none();
                for (.., why) in
                    self.skipped.iter().filter(|(of, by, _)| nothing && (*of, *by) == (case, who))
                {
                    let (what, unit, better) = Quantity::Insert.shown();
                    measurements.push(Measurement::skipped(
                        &case.name(),
                        what,
                        who.name(),
                        unit,
                        better,
                        why,
                    ));
                }
            }
        }
        measurements
    }

    fn of(&self, case: Case, who: Kind) -> impl Iterator<Item = &Done> {
        self.done.iter().filter(move |done| (done.case, done.who) == (case, who))
    }

    /// A figure in each round in which it was measured.
    fn rounds(&self, case: Case, who: Kind, quantity: Quantity) -> Vec<(u32, f64)> {
        self.of(case, who)
            .flat_map(|done| done.figures.iter().map(|figure| (done.round, figure)))
            .filter(|(_, figure)| figure.quantity == quantity)
            .map(|(round, figure)| (round, figure.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case { sessions: 5_000_000, family: Family::V6 };

    fn figure(value: f64) -> Vec<Figure> {
        vec![Figure { quantity: Quantity::Insert, value }]
    }

    #[test]
    fn a_ratio_is_of_figures_of_the_same_round() {
        let mut results = Results::default();
        for (round, ours, theirs) in [(0, 10.0, 1.0), (1, 40.0, 2.0), (2, 30.0, 1.0)] {
            results.add(CASE, Kind::Baton, round, figure(ours));
            results.add(CASE, Kind::RteHash, round, figure(theirs));
        }
        let insert = Quantity::Insert;
        assert_eq!(results.ratio(CASE, (Kind::Baton, insert), (Kind::RteHash, insert)), Some(20.0));
        assert_eq!(results.value(CASE, Kind::Baton, insert), Some(30.0));
        assert_eq!(results.ratio(CASE, (Kind::Baton, insert), (Kind::Papaya, insert)), None);
    }

    #[test]
    fn what_was_skipped_is_reported_with_its_reason() {
        let mut results = Results::default();
        results.add(CASE, Kind::Baton, 0, figure(1.0));
        results.skip(CASE, Kind::Papaya, "no memory".into());
        results.skip(CASE, Kind::Papaya, "again".into());
        let measurements = results.measurements();
        assert_eq!(measurements.len(), 2);
        assert_eq!(
            (&*measurements[1].who, measurements[1].skipped.as_deref()),
            ("papaya", Some("no memory"))
        );
    }

    #[test]
    fn cases_are_named_by_size_and_family() {
        assert_eq!(CASE.name(), "5 M IPv6");
        assert_eq!(Case { sessions: 20_000, family: Family::V4 }.name(), "20 k IPv4");
    }
}
