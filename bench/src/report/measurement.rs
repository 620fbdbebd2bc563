//! Measurements: one figure of one contender in one case.

use serde::Serialize;

/// Whether a larger figure is a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Rates.
    More,
    /// Times and sizes.
    Less,
    /// Neither: a figure to know the others by.
    Neither,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// Under which circumstances, for example "20 M sessions, IPv4".
    pub case: String,
    /// What was measured, for example "insert".
    pub what: String,
    /// Whose figure it is.
    pub who: String,
    /// The figure's unit.
    pub unit: String,
    /// Whether more is better.
    pub better: Better,
    /// The median of the rounds; nothing if it was not measured.
    pub value: Option<f64>,
    /// Each round's figure, in the order in which they were run.
    pub rounds: Vec<f64>,
    /// Why it was not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Measurement {
    /// A figure that was measured in one round or more.
    pub fn of_rounds(
        case: &str,
        what: &str,
        who: &str,
        unit: &str,
        better: Better,
        rounds: &[f64],
    ) -> Measurement {
        Measurement {
            case: case.into(),
            what: what.into(),
            who: who.into(),
            unit: unit.into(),
            better,
            value: median(rounds),
            rounds: rounds.to_vec(),
            skipped: None,
        }
    }

    /// A figure that could not be measured.
    pub fn skipped(case: &str, what: &str, who: &str, unit: &str, better: Better, why: &str) -> Measurement {
        Measurement {
            skipped: Some(why.into()),
            ..Measurement::of_rounds(case, what, who, unit, better, &[])
        }
    }

    /// What was measured, with its unit.
    pub(super) fn heading(&self) -> String {
        if self.unit.is_empty() { self.what.clone() } else { format!("{}, {}", self.what, self.unit) }
    }

    /// The figure for people.
    pub(super) fn text(&self) -> String {
        match self.value {
            Some(value) => number(value),
            None => "skipped".into(),
        }
    }
}

/// A number with three significant digits, or all of those before the point; "none" if it is none.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match () {
        () if value.is_nan() => "none".into(),
        () if size >= 100.0 || (size >= 1.0 && value.fract() == 0.0) || size == 0.0 => format!("{value:.0}"),
        () if size >= 10.0 => format!("{value:.1}"),
        () if size >= 1.0 => format!("{value:.2}"),
        () => format!("{value:.3}"),
    }
}

/// The median; of an even number of values the mean of the middle two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [1234.5, 28.94, 2.346, 0.9871, 3.0, 2.0004, 0.0, f64::NAN].map(number);
        assert_eq!(shown, ["1234", "28.9", "2.35", "0.987", "3", "2.00", "0", "none"]);
    }
}
