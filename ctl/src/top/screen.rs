//! The screen: a terminal that is taken, drawn on, listened to, and given back whatever happens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};

use super::Live;
use super::draw::draw;
use super::ui::Ui;

/// How long what happened to a process is told.
const NEWS_TIME: Duration = Duration::from_secs(30);
/// Most of it at a time.
const NEWS_MAX: usize = 3;
/// How often to look whether this process is to end.
const LOOK: Duration = Duration::from_millis(200);

/// Shows the node until somebody quits, or this process is to end.
///
/// # Errors
/// The terminal cannot be used.
pub fn run(live: Live, ui: Ui) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, stop.clone()).context("catching signals")?;
    }
    // Gives the terminal back after a panic, too.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let shown = show(&mut terminal, live, ui, &stop);
    ratatui::try_restore().context("cannot give the terminal back")?;
    shown
}

fn show(terminal: &mut DefaultTerminal, mut live: Live, mut ui: Ui, stop: &AtomicBool) -> Result<()> {
    let mut news: VecDeque<(String, Instant)> = VecDeque::new();
    let (mut frame, mut read) = (live.next(&mut Vec::new()), Instant::now());
    // The first rates come soon, however long the interval.
    let mut due = read + ui.interval.min(Duration::from_millis(500));
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= due && !ui.is_paused {
            let mut happened = Vec::new();
            frame = live.next(&mut happened);
            read = Instant::now();
            news.extend(happened.into_iter().map(|text| (text, read)));
            due = read + ui.interval;
        }
        news.retain(|(_, at)| at.elapsed() < NEWS_TIME);
        news.drain(..news.len().saturating_sub(NEWS_MAX));
        let told: Vec<_> = news.iter().map(|(text, at)| (text.clone(), at.elapsed().as_secs())).collect();
        terminal.draw(|canvas| draw(canvas, &ui, &frame, &told)).context("cannot draw")?;
        let wait = due.saturating_duration_since(Instant::now());
        if event::poll(if ui.is_paused { LOOK } else { wait.min(LOOK) }).context("cannot read keys")? {
            let Event::Key(key) = event::read().context("cannot read keys")? else { continue };
            let grid = ui.grid(ui.view, &frame);
            let interval = ui.interval;
            if key.kind == KeyEventKind::Press && !ui.press(key, grid.columns.len(), grid.rows.len()) {
                break;
            }
            if ui.interval != interval {
                due = read + ui.interval;
            }
        }
    }
    Ok(())
}
