use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent};

use super::*;
use crate::top::grid::{Cell, Unit};

/// A frame with workers that differ in everything, and nothing else.
fn frame(workers: u64) -> Frame {
    let mut grid = Grid::new(&[("worker", "worker"), ("rx", "rx/s"), ("tx", "tx/s"), ("full", "full")]);
    for number in 0..workers {
        grid.rows.push(vec![
            Cell::text(format!("worker-{number}")),
            Cell::rate(Some(1000.0 * (number + 1) as f64)),
            Cell::rate(None),
            Cell::Number(Some(0.5), Unit::Share),
        ]);
    }
    let mut frame = Frame::default();
    frame.summary.node = "node 1 (lb1)".into();
    frame.grids.insert(View::Workers, grid);
    frame
}

fn ui() -> Ui {
    Ui::new(View::Workers, Duration::from_secs(1))
}

fn drawn(size: (u16, u16), ui: &Ui, frame: &Frame, news: &News) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|canvas| draw(canvas, ui, frame, news)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..size.0).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
    (0..size.1).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn a_screen_has_the_node_its_views_rows_and_keys() {
    let screen = drawn((70, 9), &ui(), &frame(2), &[]);
    assert_eq!(screen[0], "node 1 (lb1)");
    assert_eq!(screen[3], "1 workers  2 services  3 servers  4 peers  5 drops  6 sync");
    assert_eq!(
        screen[4..7],
        ["worker▲    rx/s  tx/s   full", "worker-0  1.00k     -  50.0%", "worker-1  2.00k     -  50.0%"]
    );
    assert_eq!(screen[8], "every 1.0s  h help  q quit");
}

#[test]
fn what_happened_and_what_cannot_be_read_is_told_above_the_rows() {
    let mut frame = frame(1);
    frame.troubles.push("the primary is not running".into());
    let screen = drawn((70, 9), &ui(), &frame, &[("it was restarted".into(), 4)]);
    assert_eq!(
        screen[2..6],
        [
            "it was restarted (4s ago)",
            "the primary is not running",
            "1 workers  2 services  3 servers  4 peers  5 drops  6 sync",
            "worker▲    rx/s  tx/s   full"
        ],
        "{screen:#?}"
    );
    assert!(screen[6].starts_with("worker-0"));
}

#[test]
fn a_small_screen_keeps_the_rows_and_the_column_that_orders_them() {
    let mut ui = ui();
    ui.sort(View::Workers, Sorting { column: 3, is_descending: true });
    let screen = drawn((20, 4), &ui, &frame(9), &[]);
    assert_eq!(screen[1..], ["worker    full▼", "worker-0  50.0%", "worker-1  50.0%"]);
}

#[test]
fn no_screen_is_too_small_or_too_large() {
    for width in [1, 2, 7, 20, 300] {
        for height in [1, 2, 3, 4, 5, 50] {
            let mut ui = ui();
            for keys in ["", ">", "?", "2", "/x"] {
                for key in keys.chars() {
                    ui.press(KeyEvent::from(KeyCode::Char(key)), 4, 3);
                }
                let screen = drawn((width, height), &ui, &frame(3), &[("news".into(), 1)]);
                assert!(screen.iter().any(|line| !line.is_empty()), "{width}x{height} {keys}");
            }
        }
    }
}

#[test]
fn rows_are_filtered_and_scrolled() {
    let mut ui = ui();
    ui.filter = "worker-1".into();
    ui.scrolled = 1;
    let screen = drawn((70, 12), &ui, &frame(13), &[]);
    let rows: Vec<&str> =
        screen.iter().filter(|line| line.starts_with("worker-")).map(|line| &line[..9]).collect();
    assert_eq!(rows, ["worker-10", "worker-11", "worker-12"]);
    assert_eq!(screen[11], "filter: worker-1  every 1.0s  h help  q quit");
}

#[test]
fn an_empty_view_says_so() {
    let mut ui = ui();
    ui.is_paused = true;
    assert!(drawn((70, 9), &ui, &frame(0), &[]).contains(&"nothing yet".to_owned()));
    ui.filter = "x".into();
    let screen = drawn((70, 9), &ui, &frame(3), &[]);
    assert!(screen.contains(&"nothing with this filter".to_owned()), "{screen:#?}");
    assert!(screen[8].starts_with("PAUSED  filter: x"), "{screen:#?}");
}

#[test]
fn the_keys_are_explained() {
    let mut ui = ui();
    ui.shows_help = true;
    let screen = drawn((70, 20), &ui, &frame(3), &[]);
    assert!(HELP.iter().all(|(_, what)| screen.iter().any(|line| line.ends_with(what))), "{screen:#?}");
}
