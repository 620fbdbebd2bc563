//! A grid: rows of texts and numbers under columns, sorted and filtered, for any way of showing it.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::report::{self, duration};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name for programs, and for `--sort`.
    pub key: &'static str,
    /// Its heading for people.
    pub title: &'static str,
}

/// What a number is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, counted.
    Count,
    /// Things, or bits, a second.
    PerSecond,
    /// A part of one.
    Share,
    /// Milliseconds.
    Time,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A word.
    Text(String),
    /// A number; none if it is not known.
    Number(Option<f64>, Unit),
}

impl Cell {
    /// A word.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Text(text.into())
    }

    /// So many things.
    pub fn count(count: impl Into<u64>) -> Cell {
        Cell::Number(Some(count.into() as f64), Unit::Count)
    }

    /// So many things a second, if that is known.
    pub fn rate(rate: Option<f64>) -> Cell {
        Cell::Number(rate, Unit::PerSecond)
    }

    /// As people read it.
    pub fn shown(&self) -> String {
        match self {
            Cell::Text(text) => text.clone(),
            Cell::Number(None, _) => "-".into(),
            Cell::Number(Some(number), Unit::Count) => format!("{number:.0}"),
            Cell::Number(Some(number), Unit::PerSecond) => short(*number),
            Cell::Number(Some(number), Unit::Share) => format!("{:.1}%", number * 100.0),
            Cell::Number(Some(number), Unit::Time) => duration(*number as u64),
        }
    }

    /// Whether it stands at the right.
    pub fn is_number(&self) -> bool {
        matches!(self, Cell::Number(..))
    }

    fn json(&self) -> Value {
        match self {
            Cell::Text(text) => text.clone().into(),
            Cell::Number(Some(number), Unit::Count | Unit::Time) => (*number as u64).into(),
            Cell::Number(number, _) => (*number).into(),
        }
    }

    /// Texts by their letters and the number at their end, numbers by their size, what is not known first.
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Text(one), Cell::Text(other)) => natural(one).cmp(&natural(other)),
            (Cell::Number(one, _), Cell::Number(other, _)) => {
                let size = |number: &Option<f64>| number.unwrap_or(f64::NEG_INFINITY);
                size(one).total_cmp(&size(other))
            }
            (Cell::Text(_), Cell::Number(..)) => Ordering::Less,
            (Cell::Number(..), Cell::Text(_)) => Ordering::Greater,
        }
    }
}

/// A text and the number at its end, so that `worker-10` comes behind `worker-2`.
fn natural(text: &str) -> (&str, u64) {
    let letters = text.trim_end_matches(|c: char| c.is_ascii_digit());
    (letters, text[letters.len()..].parse().unwrap_or_default())
}

/// A number in at most six characters: `0`, `0.25`, `12`, `1.23k`, `45.6M`.
fn short(number: f64) -> String {
    let (mut value, mut suffix) = (number, "");
    for next in ["k", "M", "G", "T"] {
        if value.abs() < 999.5 {
            break;
        }
        (value, suffix) = (value / 1000.0, next);
    }
    let digits = match value.abs() {
        _ if value == 0.0 => 0,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{suffix}")
}

/// How a grid is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorting {
    /// By which column.
    pub column: usize,
    /// Whether the greatest stands first.
    pub is_descending: bool,
}

/// Rows under columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grid {
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

impl Grid {
    /// A grid without rows.
    pub fn new(columns: &[(&'static str, &'static str)]) -> Grid {
        let columns = columns.iter().map(|&(key, title)| Column { key, title });
        Grid { columns: columns.collect(), rows: Vec::new() }
    }

    /// Orders the rows. Equal ones stay as they are.
    pub fn sort(&mut self, sorting: Sorting) {
        self.rows.sort_by(|one, other| match (one.get(sorting.column), other.get(sorting.column)) {
            (Some(one), Some(other)) if sorting.is_descending => other.order(one),
            (Some(one), Some(other)) => one.order(other),
            _ => Ordering::Equal,
        });
    }

    /// Keeps the rows with a cell that contains the text, in capitals or not.
    pub fn filter(&mut self, text: &str) {
        let text = text.to_lowercase();
        self.rows.retain(|row| row.iter().any(|cell| cell.shown().to_lowercase().contains(&text)));
    }

    /// The rows as objects.
    pub fn json(&self) -> Value {
        let row = |row: &Vec<Cell>| {
            let fields =
                self.columns.iter().zip(row).map(|(column, cell)| (column.key.to_owned(), cell.json()));
            Value::Object(fields.collect::<Map<_, _>>())
        };
        self.rows.iter().map(row).collect()
    }

    /// The rows as a table for people.
    pub fn text(&self) -> String {
        let is_number = |column: usize| self.rows.first().is_some_and(|row| row[column].is_number());
        let headings: Vec<String> = (self.columns.iter().enumerate())
            .map(|(position, column)| {
                format!("{}{}", if is_number(position) { "#" } else { "" }, column.title)
            })
            .collect();
        let mut table = report::table(&headings.iter().map(String::as_str).collect::<Vec<_>>());
        for row in &self.rows {
            table.add_row(row.iter().map(Cell::shown));
        }
        report::lines(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(&[("name", "name"), ("rate", "rx/s"), ("count", "count")]);
        for (name, rate, count) in [("b", Some(2.0), 10u64), ("a", None, 9), ("C", Some(30.0), 10)] {
            grid.rows.push(vec![Cell::text(name), Cell::rate(rate), Cell::count(count)]);
        }
        grid
    }

    fn names(grid: &Grid) -> String {
        grid.rows.iter().map(|row| row[0].shown()).collect()
    }

    fn sorted(column: usize, is_descending: bool) -> String {
        let mut grid = grid();
        grid.sort(Sorting { column, is_descending });
        names(&grid)
    }

    #[test]
    fn numbers_are_sorted_by_size_and_equal_ones_stay() {
        assert_eq!(sorted(1, true), "Cba", "what is not known comes last");
        assert_eq!(sorted(1, false), "abC");
        assert_eq!(sorted(2, true), "bCa");
        assert_eq!(sorted(0, false), "Cab");
        assert_eq!(sorted(9, true), "baC", "a column that is not there orders nothing");
    }

    #[test]
    fn numbered_names_are_in_the_order_of_their_numbers() {
        let mut grid = Grid::new(&[("name", "name")]);
        grid.rows.extend(["worker-10", "worker-2", "punt"].map(|name| vec![Cell::text(name)]));
        grid.sort(Sorting { column: 0, is_descending: false });
        assert_eq!(names(&grid), "puntworker-2worker-10");
    }

    #[test]
    fn a_filter_looks_at_what_is_shown() {
        let filtered = |text: &str| {
            let mut grid = grid();
            grid.filter(text);
            names(&grid)
        };
        assert_eq!(filtered("c"), "C");
        assert_eq!(filtered("10"), "bC");
        assert_eq!(filtered(""), "baC");
        assert_eq!(filtered("nobody"), "");
    }

    #[test]
    fn rates_are_short() {
        let shown =
            [0.0, 0.25, 9.999, 12.34, 999.4, 999.6, 1234.0, 99_950.0, 45_600_000.0, 1.5e13].map(short);
        assert_eq!(shown, ["0", "0.25", "10.0", "12.3", "999", "1.00k", "1.23k", "100k", "45.6M", "15.0T"]);
    }

    #[test]
    fn programs_get_numbers_and_people_a_table() {
        assert_eq!(grid().json()[1], serde_json::json!({"name": "a", "rate": null, "count": 9}));
        assert_eq!(grid().text().lines().nth(2), Some("a        -      9"));
    }
}
