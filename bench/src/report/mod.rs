//! Reports: what a benchmark measured, the goals it was held to, and the machine it ran on.
//!
//! Every benchmark fills one [`Report`]; how it is shown and stored is decided here for all of them.

mod goal;
mod machine;
mod markdown;
mod measurement;
mod plot;
mod screen;

pub use goal::{Bound, Goal};
pub use machine::Machine;
pub use measurement::{Better, Measurement, median};

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

/// What a benchmark found. Its serialized form is `<name>.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The name of its files.
    #[serde(skip)]
    pub name: String,
    /// Its heading.
    pub title: String,
    /// How it was measured: what a reader needs to read the figures right. A paragraph each.
    pub method: Vec<String>,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured, in the order in which it is shown.
    pub results: Vec<Measurement>,
    /// What was to be reached.
    pub goals: Vec<Goal>,
}

impl Report {
    /// Prints the report's tables to standard output.
    pub fn print(&self) {
        println!("{}", screen::text(self));
    }

    /// Writes `<name>.json`, `<name>.md` and `<name>.svg` into a directory, which is made if it is missing; their paths.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<[PathBuf; 3]> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = |extension| directory.join(format!("{}.{extension}", self.name));
        let paths = [path("json"), path("md"), path("svg")];
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (path, text) in paths.iter().zip([json, markdown::text(self), plot::svg(self)?]) {
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(paths)
    }

    /// Goals that were missed.
    pub fn missed(&self) -> impl Iterator<Item = &Goal> {
        self.goals.iter().filter(|goal| !goal.met)
    }

    /// The cases, in the order in which they were first measured.
    fn cases(&self) -> Vec<&str> {
        distinct(self.results.iter().map(|result| result.case.as_str()))
    }

    /// The contenders of a case, likewise.
    fn contenders<'a>(&'a self, case: &str) -> Vec<&'a str> {
        distinct(self.of_case(case).map(|result| result.who.as_str()))
    }

    /// What was measured of a case, likewise.
    fn quantities<'a>(&'a self, case: &str) -> Vec<&'a Measurement> {
        let mut quantities: Vec<&Measurement> = Vec::new();
        for result in self.of_case(case) {
            if !quantities.iter().any(|known| known.what == result.what) {
                quantities.push(result);
            }
        }
        quantities
    }

    /// One figure.
    fn find(&self, case: &str, what: &str, who: &str) -> Option<&Measurement> {
        self.of_case(case).find(|result| result.what == what && result.who == who)
    }

    fn of_case<'a>(&'a self, case: &str) -> impl Iterator<Item = &'a Measurement> {
        self.results.iter().filter(move |result| result.case == case)
    }
}

/// The distinct ones, in the order in which they come first.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Report {
        let measured = |case: &str, what: &str, who: &str, rounds: &[f64]| {
            Measurement::of_rounds(case, what, who, "M/s", Better::More, rounds)
        };
        Report {
            name: "sample".into(),
            title: "A sample".into(),
            method: vec!["By hand.".into()],
            machine: Machine::this(),
            results: vec![
                measured("small", "insert", "ours", &[3.0, 1.0, 2.0]),
                measured("small", "insert", "theirs & co", &[0.5]),
                measured("small", "remove", "ours", &[4.0]),
                Measurement::skipped(
                    "large",
                    "insert",
                    "theirs & co",
                    "M/s",
                    Better::More,
                    "no memory <for it>",
                ),
            ],
            goals: vec![
                Goal::at_least("insert, to theirs", 4.0, 8.0),
                Goal::at_most("bytes", 90.0, 96.0).with_note("small"),
            ],
        }
    }

    #[test]
    fn a_report_is_written_as_json_markdown_and_a_plot() {
        let directory = tempfile::tempdir().unwrap();
        let [json, markdown, plot] = sample().write(&directory.path().join("results")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!(json["results"][0]["value"], 2.0);
        assert_eq!(json["results"][3]["skipped"], "no memory <for it>");
        assert_eq!(json["goals"][0]["name"], "insert, to theirs");
        assert_eq!((&json["goals"][0]["met"], &json["goals"][1]["met"]), (&false.into(), &true.into()));
        assert!(json["machine"]["cores"].as_u64().unwrap() >= 1);
        let markdown = fs::read_to_string(markdown).unwrap();
        assert!(markdown.contains("| insert, M/s | 2 | 0.500 |"), "{markdown}");
        assert!(markdown.contains("**missed**") && markdown.contains("no memory <for it>"), "{markdown}");
        let plot = fs::read_to_string(plot).unwrap();
        assert!(plot.starts_with("<svg") && plot.contains("theirs &amp; co"), "{plot}");
    }

    #[test]
    fn the_machine_is_told_without_its_name() {
        let told = serde_json::to_string(&sample()).unwrap();
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(!told.contains(&format!("\"{}\"", name.trim())));
    }

    #[test]
    fn goals_that_were_missed_are_named() {
        let report = sample();
        assert_eq!(report.missed().map(|goal| &*goal.name).collect::<Vec<_>>(), ["insert, to theirs"]);
    }
}
