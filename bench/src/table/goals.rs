//! The goals of the session tables.

use super::contender::Kind;
use super::population::Family;
use super::quantity::Quantity;
use super::results::{Case, Results};
use crate::report::Goal;

/// What a goal is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Baton's figure to another one's.
    Ratio(Quantity, Kind, Quantity),
    /// A figure of Baton's that is a ratio already, or needs none.
    Own(Quantity),
}

impl Subject {
    const fn to_rte_hash(quantity: Quantity) -> Subject {
        Subject::Ratio(quantity, Kind::RteHash, quantity)
    }

    fn value(self, results: &Results, case: Case) -> Option<f64> {
        match self {
            Subject::Ratio(ours, whose, theirs) => results.ratio(case, (Kind::Baton, ours), (whose, theirs)),
            Subject::Own(quantity) => results.value(case, Kind::Baton, quantity),
        }
    }
}

const AT_LEAST: [(&str, Subject, f64); 10] = [
    ("insert, to rte_hash", Subject::to_rte_hash(Quantity::Insert), 8.0),
    (
        "insert, to its memory accesses alone",
        Subject::Ratio(Quantity::Insert, Kind::Machine, Quantity::InsertAccesses),
        0.7,
    ),
    // Four times what rte_hash's bulk lookups with prefetched records reach is more than memory gives: a refresh takes two
    // random reads. So this is against one by one; the other ratio is in the note.
    (
        "refresh in batches, to rte_hash one by one",
        Subject::Ratio(Quantity::Refresh, Kind::RteHash, Quantity::RefreshEach),
        4.0,
    ),
    ("look up in bulk, hit, to rte_hash", Subject::to_rte_hash(Quantity::HitBulk), 1.1),
    ("look up one, hit, to rte_hash", Subject::to_rte_hash(Quantity::HitSingle), 1.2),
    ("look up in bulk, miss, to rte_hash", Subject::to_rte_hash(Quantity::MissBulk), 1.2),
    ("look up one, miss, to rte_hash", Subject::to_rte_hash(Quantity::MissSingle), 1.2),
    ("reader beside a writer at full speed, to alone", Subject::Own(Quantity::ReaderKept), 0.95),
    ("reader beside a stopped writer, to alone", Subject::Own(Quantity::ReaderKeptStopped), 0.95),
    ("reader beside a killed writer, to alone", Subject::Own(Quantity::ReaderKeptKilled), 0.95),
];

/// What is said of a goal besides.
const BESIDES: [(Subject, Subject, &str); 2] = [
    (
        AT_LEAST[2].1,
        Subject::to_rte_hash(Quantity::Refresh),
        "to rte_hash's bulk lookups with prefetched records",
    ),
    (AT_LEAST[7].1, Subject::Own(Quantity::ReaderKeptNeighbour), "beside foreign memory traffic"),
];

/// Most bytes a session, index and all.
const BYTES_MAX: f64 = 96.0;

/// All goals, for both families, at the largest size that was measured; the note has the worst value of all sizes. A goal
/// that could not be measured is missed.
pub fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for family in Family::ALL {
        let cases: Vec<Case> = results.cases().into_iter().filter(|case| case.family == family).collect();
        let measured = |case: &&Case| results.value(**case, Kind::Baton, Quantity::Insert).is_some();
        let Some(largest) = cases.iter().rev().find(measured) else { continue };
        let name = |what: &str| format!("{what}, {}", largest.name());
        let value = |subject: Subject, case: Case| subject.value(results, case);
        let worst = |subject: Subject, better: fn(f64, f64) -> bool| {
            let all = cases.iter().filter_map(|case| Some((value(subject, *case)?, *case)));
            let worst = all.reduce(|worst, one| if better(worst.0, one.0) { one } else { worst });
            worst.map_or("not measured".into(), |(value, case)| {
                format!("worst of all sizes {value:.3}, {}", case.name())
            })
        };
        for (what, subject, bound) in AT_LEAST {
            let value = value(subject, *largest).unwrap_or(f64::NAN);
            let mut note = worst(subject, |worst, one| one < worst);
            for (_, other, what) in BESIDES.iter().filter(|(of, ..)| *of == subject) {
                if let Some(value) = other.value(results, *largest) {
                    note += &format!("; {what} {value:.3}");
                }
            }
            goals.push(Goal::at_least(name(what), value, bound).with_note(note));
        }
        let bytes = Subject::Own(Quantity::Bytes);
        let worst = worst(bytes, |worst, one| one > worst);
        let value = value(bytes, *largest).unwrap_or(f64::NAN);
        goals.push(Goal::at_most(name("bytes a session"), value, BYTES_MAX).with_note(worst));
    }
    goals
}
