//! The drawing of a frame on a terminal of any size.

use ratatui::Frame as Canvas;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::frame::Frame;
use super::grid::{Column, Grid, Sorting};
use super::ui::{HELP, Ui};
use super::views::View;

/// Blanks between two columns.
const GAP: usize = 2;
/// Widest column, characters; only the last shown one may be cut there.
const COLUMN_MAX: usize = 60;

/// What happened to processes, and how long ago.
pub type News = [(String, u64)];

/// Draws everything. `news` is told above the rows.
pub fn draw(canvas: &mut Canvas<'_>, ui: &Ui, frame: &Frame, news: &News) {
    let area = canvas.area();
    let mut above = heading(frame);
    let told = news.iter().map(|(text, seconds)| format!("{text} ({seconds}s ago)"));
    above.extend(
        told.chain(frame.troubles.iter().cloned()).map(|text| Line::styled(text, Modifier::REVERSED)),
    );
    above.push(tabs(ui));
    // The rows come first: on a small screen the words around them give way, from the top.
    let room = usize::from(area.height).saturating_sub(4);
    above.drain(..above.len().saturating_sub(room.max(1)).min(above.len()));
    if area.height < 3 {
        above.clear();
    }
    let below = u16::from(area.height > 4);
    let parts = [Constraint::Length(above.len() as u16), Constraint::Min(0), Constraint::Length(below)];
    let [top, middle, bottom] = Layout::vertical(parts).areas(area);
    canvas.render_widget(Paragraph::new(above), top);
    match ui.shows_help {
        true => canvas.render_widget(Paragraph::new(help()), middle),
        false => draw_grid(canvas, middle, ui, &ui.grid(ui.view, frame)),
    }
    canvas.render_widget(Paragraph::new(footer(ui)), bottom);
}

fn heading(frame: &Frame) -> Vec<Line<'static>> {
    let summary = &frame.summary;
    vec![
        Line::styled(summary.node.clone(), Modifier::BOLD),
        Line::raw(format!("{}  {}", summary.states, summary.sessions())),
        Line::raw(summary.rates()),
    ]
}

fn tabs(ui: &Ui) -> Line<'static> {
    let tab = |(number, view): (usize, View)| {
        let style = if view == ui.view { Modifier::REVERSED } else { Modifier::DIM };
        [Span::styled(format!("{} {}", number + 1, view.name()), style), Span::raw("  ")]
    };
    Line::from_iter(View::ALL.into_iter().enumerate().flat_map(tab))
}

fn help() -> Vec<Line<'static>> {
    HELP.iter().map(|(keys, what)| Line::raw(format!("{keys:<24}{what}"))).collect()
}

fn footer(ui: &Ui) -> Line<'static> {
    let filter = match (ui.is_typing, ui.filter.as_str()) {
        (true, text) => format!("filter: {text}_  "),
        (false, "") => String::new(),
        (false, text) => format!("filter: {text}  "),
    };
    let paused = if ui.is_paused { "PAUSED  " } else { "" };
    let pace = format!("every {:.1}s  ", ui.interval.as_secs_f64());
    Line::styled(format!("{paused}{filter}{pace}h help  q quit"), Modifier::DIM)
}

fn draw_grid(canvas: &mut Canvas<'_>, area: Rect, ui: &Ui, grid: &Grid) {
    let sorting = ui.sorting(ui.view);
    let titles: Vec<String> = titles(grid, sorting);
    let widths = widths(grid, &titles);
    let columns = columns_that_fit(&widths, usize::from(area.width), sorting.column);
    let mut lines = vec![heading_line(grid, &titles, &widths, &columns)];
    if grid.rows.is_empty() {
        let why = if ui.filter.is_empty() { "nothing yet" } else { "nothing with this filter" };
        lines.push(Line::styled(why, Modifier::DIM));
    }
    let rows = grid.rows.iter().skip(ui.scrolled).take(usize::from(area.height).saturating_sub(1));
    lines.extend(rows.map(|row| {
        let cell = |&column: &usize| padded(&row[column].shown(), widths[column], row[column].is_number());
        Line::raw(columns.iter().map(cell).collect::<String>())
    }));
    canvas.render_widget(Paragraph::new(lines), area);
}

/// The headings; the column that the rows are ordered by has an arrow.
fn titles(grid: &Grid, sorting: Sorting) -> Vec<String> {
    let arrow = if sorting.is_descending { '▼' } else { '▲' };
    let title = |(position, column): (usize, &Column)| match position == sorting.column {
        true => format!("{}{arrow}", column.title),
        false => column.title.to_owned(),
    };
    grid.columns.iter().enumerate().map(title).collect()
}

fn heading_line(grid: &Grid, titles: &[String], widths: &[usize], columns: &[usize]) -> Line<'static> {
    let is_number = |column: usize| grid.rows.first().is_some_and(|row| row[column].is_number());
    let cell = |&column: &usize| padded(&titles[column], widths[column], is_number(column));
    Line::styled(columns.iter().map(cell).collect::<String>(), Style::new().add_modifier(Modifier::BOLD))
}

fn widths(grid: &Grid, titles: &[String]) -> Vec<usize> {
    let width = |text: &str| text.chars().count();
    let cells = |column: usize| grid.rows.iter().map(move |row| row[column].shown());
    let widest = |(column, title): (usize, &String)| {
        cells(column).map(|cell| width(&cell)).fold(width(title), usize::max).min(COLUMN_MAX)
    };
    titles.iter().enumerate().map(widest).collect()
}

/// The columns that there is room for, from the left; the one that rows are ordered by is among them.
fn columns_that_fit(widths: &[usize], room: usize, sorted_by: usize) -> Vec<usize> {
    let mut columns: Vec<usize> = Vec::new();
    let mut left = room + GAP;
    let reserved = widths.get(sorted_by).filter(|_| sorted_by > 0).map_or(0, |width| width + GAP);
    left = left.saturating_sub(reserved);
    for (column, width) in widths.iter().enumerate() {
        let taken = if column == sorted_by && sorted_by > 0 { 0 } else { width + GAP };
        // The first one names the row: it is shown, however little there is of it.
        if taken > left && column > 0 {
            if column <= sorted_by {
                columns.push(sorted_by);
            }
            break;
        }
        left = left.saturating_sub(taken);
        columns.push(column);
    }
    columns.dedup();
    columns
}

fn padded(text: &str, width: usize, is_number: bool) -> String {
    let cut: String = text.chars().take(width).collect();
    let gap = " ".repeat(GAP);
    if is_number { format!("{cut:>width$}{gap}") } else { format!("{cut:<width$}{gap}") }
}

#[cfg(test)]
mod tests;
