//! `batonctl top`: what a node does just now, on a terminal, or as text and JSON for scripts.
//!
//! Readings ([`reading`]) come from the node's files and sockets ([`source`]); two of them make a frame of rates ([`frame`],
//! [`views`]), which is sorted and filtered ([`grid`], [`ui`]) and then drawn ([`draw`]) or printed.

mod draw;
mod frame;
mod grid;
mod reading;
mod screen;
mod source;
mod ui;
mod views;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, bail};
use baton_common::config::Config;

use crate::report::print_text;
use frame::Frame;
use grid::{Grid, Sorting};
use reading::{Interval, Reading};
use source::Source;
use ui::{INTERVAL, Ui};
use views::View;
use watch::Watch;

/// What to show, and how.
#[derive(Debug, clap::Args)]
pub struct TopArguments {
    /// Seconds between two looks, 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    pub interval: Duration,
    /// Print this many frames and end, instead of a screen with keys; with --json each is an object in a line of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub frames: Option<u32>,
    /// Print one frame and end: the same as --frames 1.
    #[arg(long, conflicts_with = "frames")]
    pub once: bool,
    /// The view to begin with; printed frames have only this one. Default: workers on a screen, all in print.
    #[arg(long, value_enum)]
    pub view: Option<View>,
    /// The column to sort by, as JSON names it, for example rx_packets_per_second; greatest first. Needs --view.
    #[arg(long, value_name = "COLUMN", requires = "view")]
    pub sort: Option<String>,
    /// Show only rows that contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub filter: String,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    let interval = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let [shortest, longest] = INTERVAL;
    if !(shortest..=longest).contains(&interval) {
        return Err(format!("{seconds} is not within {} to {}", shortest.as_secs_f64(), longest.as_secs()));
    }
    Ok(interval)
}

/// The node as it goes on: each frame shows the time since the one before.
pub struct Live {
    source: Source,
    before: Option<Reading>,
    watch: Watch,
}

impl Live {
    fn new(config: Config) -> Live {
        Live { source: Source::new(config), before: None, watch: Watch::default() }
    }

    /// Reads the node and shows what has happened since it was read before. `news` gets what happened to its processes.
    fn next(&mut self, news: &mut Vec<String>) -> Frame {
        let now = self.source.read();
        news.extend(self.watch.look(&now));
        let frame = Frame::new(&Interval { before: self.before.as_ref(), now: &now });
        self.before = Some(now);
        frame
    }
}

/// Shows the node.
///
/// # Errors
/// There is no terminal and no number of frames, or a column that is not there.
pub fn run(arguments: &TopArguments, config: Config, json: bool) -> Result<()> {
    let frames = if arguments.once { Some(1) } else { arguments.frames };
    let mut ui = Ui::new(arguments.view.unwrap_or(View::Workers), arguments.interval);
    ui.filter.clone_from(&arguments.filter);
    if let Some(key) = &arguments.sort {
        let column = column_of(ui.view, key)?;
        ui.sort(ui.view, Sorting { column, is_descending: true });
    }
    match frames {
        Some(frames) => print(frames, Live::new(config), arguments, &ui, json),
        None if json => bail!("a screen is not JSON: add --frames N, or --once"),
        None if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() => {
            bail!(
                "`batonctl top` needs a terminal to show and to hear keys: for a pipe or a file add --frames N, or --once"
            )
        }
        None => screen::run(Live::new(config), ui),
    }
}

fn column_of(view: View, key: &str) -> Result<usize> {
    let columns = view.grid(&Interval { before: None, now: &Reading::default() }).columns;
    match columns.iter().position(|column| column.key == key) {
        Some(column) => Ok(column),
        None => {
            let known: Vec<&str> = columns.iter().map(|column| column.key).collect();
            bail!("the view {} has no column {key:?}; there are {}", view.name(), known.join(", "))
        }
    }
}

fn print(frames: u32, mut live: Live, arguments: &TopArguments, ui: &Ui, json: bool) -> Result<()> {
    // The first reading is what the first frame's rates begin with.
    live.next(&mut Vec::new());
    for _ in 0..frames {
        std::thread::sleep(arguments.interval);
        let mut news = Vec::new();
        let frame = live.next(&mut news);
        let chosen = View::ALL.into_iter().filter(|&view| arguments.view.is_none_or(|wanted| wanted == view));
        let views: Vec<(View, Grid)> = chosen.map(|view| (view, ui.grid(view, &frame))).collect();
        print_text(&match json {
            true => frame.json(&views, &news).to_string(),
            false => text(&frame, &views, &news),
        })?;
    }
    Ok(())
}

fn text(frame: &Frame, views: &[(View, Grid)], news: &[String]) -> String {
    let summary = &frame.summary;
    let mut text =
        format!("{}\n{}\n{}\n{}\n", summary.node, summary.states, summary.sessions(), summary.rates());
    for line in news.iter().chain(&frame.troubles) {
        text += &format!("! {line}\n");
    }
    for (view, grid) in views.iter().filter(|(_, grid)| !grid.rows.is_empty()) {
        text += &format!("\n[{}]\n{}", view.name(), grid.text());
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(parse_interval("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0.09", "3601", "-1", "soon", "nan", "1e30"] {
            assert!(parse_interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_column_is_named_as_in_json_or_refused_with_the_names_there_are() {
        assert_eq!(column_of(View::Drops, "share").unwrap(), 2);
        let error = column_of(View::Drops, "rx").unwrap_err().to_string();
        assert!(error.contains("per_second, share, total"), "{error}");
    }
}
