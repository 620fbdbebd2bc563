//! A report as tables on the screen.

use comfy_table::{CellAlignment, Table, presets};

use super::Report;
use super::measurement::number;

/// The text.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n{}\n", report.title, report.machine.sentence());
    for case in report.cases() {
        let contenders = report.contenders(case);
        let mut headings = vec![case];
        headings.extend(&contenders);
        let mut table = table(&headings);
        for quantity in report.quantities(case) {
            let figure = |who: &&str| {
                report.find(case, &quantity.what, who).map_or(String::new(), |figure| figure.text())
            };
            let mut row = vec![quantity.heading()];
            row.extend(contenders.iter().map(figure));
            table.add_row(row);
        }
        text += &format!("\n{table}\n");
    }
    let mut goals = table(&["goal", "value", "bound", ""]);
    for goal in &report.goals {
        let met = if goal.met { "met" } else { "MISSED" };
        let note = goal.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        goals.add_row([&goal.name, &number(goal.value), &goal.bound_text(), &format!("{met}{note}")]);
    }
    if let Some(column) = goals.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Left);
    }
    text + &format!("\n{goals}")
}

/// A table without lines; all columns but the first are of numbers.
fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
