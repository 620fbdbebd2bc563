//! Results: the figures of all rounds, and the goals that they are held to.

use super::better;
use crate::report::{Goal, Measurement, median};

pub const INGEST: &str = "receive, fed from memory";
pub const SERVE: &str = "serve ranges, into memory";
pub const SYNC: &str = "full sync, over the port";
pub const SYNC_TIME: &str = "time to full sync";
pub const SYNC_DATAGRAMS: &str = "datagrams of a full sync";
pub const DATAGRAMS: &str = "datagrams";
pub const BUSY: &str = "receiver's time in datagrams";
pub const EVENTS: &str = "new sessions, from events";
pub const BYTES: &str = "bytes a session, full sync";
pub const EVENT_BYTES: &str = "bytes a session, events";
pub const ARRIVED: &str = "share of the bulk that arrived";

/// Whose figure it is.
pub fn who(sealed: bool) -> &'static str {
    if sealed { "Baton" } else { "Baton, in the clear" }
}

fn unit(what: &str) -> &'static str {
    match what {
        SYNC_TIME => "s",
        BYTES | EVENT_BYTES => "bytes",
        BUSY | ARRIVED => "",
        _ => "M/s",
    }
}

struct Series {
    case: String,
    what: &'static str,
    who: &'static str,
    rounds: Vec<f64>,
}

/// The figures.
#[derive(Default)]
pub struct Results {
    series: Vec<Series>,
}

impl Results {
    /// Adds a round's figure.
    pub fn add(&mut self, case: &str, what: &'static str, who: &'static str, value: f64) {
        let same = |one: &&mut Series| (&*one.case, one.what, one.who) == (case, what, who);
        match self.series.iter_mut().find(same) {
            Some(one) => one.rounds.push(value),
            None => self.series.push(Series { case: case.into(), what, who, rounds: vec![value] }),
        }
    }

    /// For the report.
    pub fn measurements(&self) -> Vec<Measurement> {
        let of = |one: &Series| {
            Measurement::of_rounds(
                &one.case,
                one.what,
                one.who,
                unit(one.what),
                better(one.what),
                &one.rounds,
            )
        };
        self.series.iter().map(of).collect()
    }

    /// The figure of the last case in which it was measured: the largest.
    fn last(&self, what: &str, who: &str) -> Option<f64> {
        let one = self.series.iter().rev().find(|one| (one.what, one.who) == (what, who))?;
        median(&one.rounds)
    }

    /// What was to be reached.
    pub fn goals(&self) -> Vec<Goal> {
        let ours = who(true);
        let ratio = |what, of: (&str, &str)| Some(self.last(what, ours)? / self.last(of.0, of.1)?);
        let mut goals = Vec::new();
        let mut add = |name: &str, value: Option<f64>, bound: f64, note: &str| {
            if let Some(value) = value {
                goals.push(Goal::at_least(name, value, bound).with_note(note));
            }
        };
        let worst = self.series.iter().filter(|one| (one.what, one.who) == (INGEST, ours));
        let worst = worst.filter_map(|one| median(&one.rounds)).min_by(f64::total_cmp);
        add("receive sealed datagrams from memory, M/s", worst, 12.0, "the worst of all sizes and families");
        add(
            "datagrams of a full sync, to those of the port alone",
            ratio(SYNC_DATAGRAMS, (DATAGRAMS, "the port alone")),
            0.8,
            "the largest size; limited by the port would be 1",
        );
        add("full sync, to conntrackd's bulk", ratio(SYNC, (SYNC, "conntrackd")), 15.0, "the largest size");
        add("new sessions, to conntrackd's events", ratio(EVENTS, (EVENTS, "conntrackd")), 100.0, "");
        add(
            "full sync, to Redis at its best pipeline",
            ratio(SYNC, (SYNC, "Redis, best pipeline")),
            15.0,
            "the largest size",
        );
        goals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_of_the_largest_case_and_of_the_median_round() {
        let mut results = Results::default();
        for (case, value) in [("1 M", 9.0), ("20 M", 30.0), ("20 M", 10.0), ("20 M", 20.0)] {
            results.add(case, SYNC, who(true), value);
        }
        results.add("200 k", SYNC, "conntrackd", 1.0);
        let goals = results.goals();
        assert_eq!(goals.len(), 1, "there is nothing to compare the others with");
        assert_eq!((goals[0].value, goals[0].met), (20.0, true));
    }
}
