//! Reports: what a command found, printed as tables for people or as JSON for programs.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// What a command found. Its serialized form is what `--json` prints.
pub trait Report: Serialize {
    /// The same for people.
    fn text(&self) -> String;
}

/// Prints a report to standard output. That nobody reads it to its end is no error.
pub fn print(report: &impl Report, json: bool) -> io::Result<()> {
    let text = if json { serde_json::to_string_pretty(report)? } else { report.text() };
    print_text(&text)
}

/// Prints a text, with a newline at its end.
pub fn print_text(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A table with these column headings, without lines, so that `grep` and `awk` take it. A heading that begins with `#`
/// is of a column of numbers.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('#')));
    for (index, heading) in headings.iter().enumerate() {
        let column = table.column_mut(index).expect("there is a column for each heading");
        column.set_padding((0, 2));
        if heading.starts_with('#') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table's lines, without the blanks that pad the last column.
pub fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A span of time for people: the two largest units that are not zero.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 => format!("{milliseconds}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_no_lines_and_numbers_stand_right() {
        let mut table = table(&["name", "#count"]);
        table.add_row(["a", "1000"]);
        table.add_row(["bc", "1"]);

        assert_eq!(lines(&table), "name  count\na      1000\nbc        1\n");
    }

    #[test]
    fn durations_show_two_units() {
        let shown = [0, 999, 1_000, 61_000, 3_660_000, 90_000_000].map(duration);

        assert_eq!(shown, ["0ms", "999ms", "1s", "1m1s", "1h1m", "1d1h"]);
    }
}
