//! Prometheus' text format, version 0.0.4: families with their samples, written one after the other.

use std::fmt::{Display, Write};

/// What kind of number a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only ever grows, but begins anew with what it counts. Its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making. [`Exposition::family`] begins a family, the samples after it are that family's.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: String,
}

impl Exposition {
    /// An empty one.
    pub fn new() -> Exposition {
        Exposition::default()
    }

    /// Begins a family: its name, kind, and help in one sentence.
    pub fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        self.family.clear();
        self.family.push_str(name);
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
    }

    /// A sample of the family: its labels, and a whole number.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.line(labels, &value);
    }

    /// A sample of the family: its labels, and a number.
    pub fn sample_f64(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line(labels, &value);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, labels: &[(&str, &str)], value: &dyn Display) {
        self.text.push_str(&self.family);
        for (position, (name, value)) in labels.iter().enumerate() {
            self.text.push(if position == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(&mut self.text, value, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing into a string cannot fail.
        let _ = writeln!(self.text, " {value}");
    }
}

/// Appends a text with what the format escapes: `\` and line ends, and quotes in a label's value.
fn escape(to: &mut String, text: &str, quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '"' if quotes => to.push_str("\\\""),
            other => to.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_its_help_its_type_and_its_samples() {
        let mut exposition = Exposition::new();
        exposition.family("a_total", MetricKind::Counter, "Things of \"A\".");
        exposition.sample(&[("worker", "0"), ("reason", "no_session")], u64::MAX);
        exposition.sample(&[], 0);
        exposition.family("b_seconds", MetricKind::Gauge, "B.");
        exposition.sample_f64(&[("peer", "2")], 0.25);

        assert_eq!(
            exposition.into_text(),
            "# HELP a_total Things of \"A\".\n# TYPE a_total counter\n\
             a_total{worker=\"0\",reason=\"no_session\"} 18446744073709551615\na_total 0\n\
             # HELP b_seconds B.\n# TYPE b_seconds gauge\nb_seconds{peer=\"2\"} 0.25\n"
        );
    }

    #[test]
    fn what_a_name_holds_ends_no_line_and_no_label() {
        let mut exposition = Exposition::new();
        exposition.family("a", MetricKind::Gauge, "one\\two\nthree");
        exposition.sample(&[("name", "x\"} 7\ny\\")], 1);

        assert_eq!(
            exposition.into_text(),
            "# HELP a one\\\\two\\nthree\n# TYPE a gauge\na{name=\"x\\\"} 7\\ny\\\\\"} 1\n"
        );
    }
}
