//! A report as a Markdown page.

use std::fmt::Write;

use super::Report;
use super::measurement::number;

/// The page.
pub fn text(report: &Report) -> String {
    let mut page = format!("# {}\n\n{}.\n", report.title, report.machine.sentence());
    for paragraph in &report.method {
        let _ = write!(page, "\n{paragraph}\n");
    }
    page += "\n## Goals\n\n| Goal | Value | Bound | |\n|---|---:|---:|---|\n";
    for goal in &report.goals {
        let met = if goal.met { "met" } else { "**missed**" };
        let note = goal.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        let _ = writeln!(
            page,
            "| {} | {} | {} | {met}{note} |",
            goal.name,
            number(goal.value),
            goal.bound_text()
        );
    }
    for case in report.cases() {
        page += &of_case(report, case);
    }
    let _ = write!(page, "\n![{}]({}.svg)\n", report.title, report.name);
    page
}

fn of_case(report: &Report, case: &str) -> String {
    let contenders = report.contenders(case);
    let mut section = format!("\n## {case}\n\n| | {} |\n|---|", contenders.join(" | "));
    section += &"---:|".repeat(contenders.len());
    section.push('\n');
    let mut reasons: Vec<String> = Vec::new();
    for quantity in report.quantities(case) {
        let _ = write!(section, "| {} |", quantity.heading());
        for who in &contenders {
            let figure = report.find(case, &quantity.what, who);
            let _ = write!(section, " {} |", figure.map_or(String::new(), |figure| figure.text()));
            if let Some(why) = figure.and_then(|figure| figure.skipped.as_ref()) {
                reasons.push(format!("{who}: {why}"));
            }
        }
        section.push('\n');
    }
    reasons.dedup();
    for reason in reasons {
        let _ = write!(section, "\nSkipped: {reason}.\n");
    }
    section
}
