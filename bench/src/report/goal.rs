//! Goals: a figure and the bound that it is held to.

use serde::Serialize;

/// Which side of the bound is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The value is to be the bound or more.
    AtLeast,
    /// The value is to be the bound or less.
    AtMost,
}

/// A figure that was to be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What it is about.
    pub name: String,
    /// What was measured.
    pub value: f64,
    /// What was wanted.
    pub bound: f64,
    /// Which side of it.
    pub kind: Bound,
    /// Whether it was reached.
    pub met: bool,
    /// What a reader should know besides, for example the worst value of other cases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Goal {
    /// `value` is to be `bound` or more.
    pub fn at_least(name: impl Into<String>, value: f64, bound: f64) -> Goal {
        Goal { name: name.into(), value, bound, kind: Bound::AtLeast, met: value >= bound, note: None }
    }

    /// `value` is to be `bound` or less.
    pub fn at_most(name: impl Into<String>, value: f64, bound: f64) -> Goal {
        Goal { name: name.into(), value, bound, kind: Bound::AtMost, met: value <= bound, note: None }
    }

    /// The goal with a note.
    pub fn with_note(self, note: impl Into<String>) -> Goal {
        Goal { note: Some(note.into()), ..self }
    }

    /// The bound for people.
    pub(super) fn bound_text(&self) -> String {
        let sign = match self.kind {
            Bound::AtLeast => "≥",
            Bound::AtMost => "≤",
        };
        format!("{sign} {}", self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_is_just_reached_is_met() {
        assert!(Goal::at_least("", 8.0, 8.0).met && Goal::at_most("", 8.0, 8.0).met);
        assert!(!Goal::at_least("", 7.99, 8.0).met && !Goal::at_most("", 8.01, 8.0).met);
    }

    #[test]
    fn what_is_no_number_meets_nothing() {
        assert!(!Goal::at_least("", f64::NAN, 8.0).met && !Goal::at_most("", f64::NAN, 8.0).met);
    }
}
