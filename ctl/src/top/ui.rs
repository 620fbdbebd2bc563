//! The state of the screen: what is looked at and how, and what each key does to it.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::frame::Frame;
use super::grid::{Grid, Sorting};
use super::views::View;

/// Shortest and longest time between two readings.
pub const INTERVAL: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(3600)];

/// What the keys do, for people.
pub const HELP: [(&str, &str); 9] = [
    ("1-6, Tab", "another view"),
    ("< >", "sort by another column"),
    ("r", "the other way round"),
    ("/", "filter; Enter keeps it, Esc takes it away"),
    ("Up Down PgUp PgDn Home", "scroll"),
    ("p, Space", "pause"),
    ("+ -", "slower, faster"),
    ("h, ?", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// The state of the screen.
#[derive(Clone, Debug)]
pub struct Ui {
    /// What is looked at.
    pub view: View,
    /// Rows without this text are left out.
    pub filter: String,
    /// Whether keys go into the filter.
    pub is_typing: bool,
    /// Whether it stands still.
    pub is_paused: bool,
    /// Whether the keys are explained.
    pub shows_help: bool,
    /// Time between two readings.
    pub interval: Duration,
    /// Rows that are scrolled away at the top.
    pub scrolled: usize,
    sortings: BTreeMap<View, Sorting>,
}

impl Ui {
    /// The state at the start.
    pub fn new(view: View, interval: Duration) -> Ui {
        Ui {
            view,
            filter: String::new(),
            is_typing: false,
            is_paused: false,
            shows_help: false,
            interval,
            scrolled: 0,
            sortings: BTreeMap::new(),
        }
    }

    /// How a view is ordered.
    pub fn sorting(&self, view: View) -> Sorting {
        self.sortings.get(&view).copied().unwrap_or(view.sorting())
    }

    /// Orders a view otherwise.
    pub fn sort(&mut self, view: View, sorting: Sorting) {
        self.sortings.insert(view, sorting);
    }

    /// A view's rows as they are to be shown.
    pub fn grid(&self, view: View, frame: &Frame) -> Grid {
        let mut grid = frame.grids.get(&view).cloned().unwrap_or_default();
        grid.filter(&self.filter);
        grid.sort(self.sorting(view));
        grid
    }

    /// Does what a key asks for; `false` if that is to quit. `columns` and `rows` are those of the view.
    pub fn press(&mut self, key: KeyEvent, columns: usize, rows: usize) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return !matches!(key.code, KeyCode::Char('c' | 'd'));
        }
        if self.is_typing {
            self.type_filter(key.code);
            return true;
        }
        if std::mem::take(&mut self.shows_help) {
            return key.code != KeyCode::Char('q');
        }
        match key.code {
            KeyCode::Char('q') => return false,
            KeyCode::Char(digit @ '1'..='6') => self.show(View::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab | KeyCode::Right => self.step_view(1),
            KeyCode::BackTab | KeyCode::Left => self.step_view(View::ALL.len() - 1),
            KeyCode::Char('<' | ',') => self.step_column(columns.saturating_sub(1), columns),
            KeyCode::Char('>' | '.') => self.step_column(1, columns),
            KeyCode::Char('r') => {
                let sorting = self.sorting(self.view);
                self.sort(self.view, Sorting { is_descending: !sorting.is_descending, ..sorting });
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('+' | '=') => self.interval = (self.interval * 2).min(INTERVAL[1]),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(INTERVAL[0]),
            KeyCode::Char('h' | '?') => self.shows_help = true,
            KeyCode::Down => self.scrolled += 1,
            KeyCode::Up => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += 10,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(10),
            KeyCode::Home => self.scrolled = 0,
            _ => {}
        }
        self.scrolled = self.scrolled.min(rows.saturating_sub(1));
        true
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(character) => self.filter.push(character),
            _ => {}
        }
        self.scrolled = 0;
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.scrolled = 0;
    }

    fn step_view(&mut self, by: usize) {
        let position = View::ALL.iter().position(|&view| view == self.view).unwrap_or_default();
        self.show(View::ALL[(position + by) % View::ALL.len()]);
    }

    fn step_column(&mut self, by: usize, columns: usize) {
        let sorting = self.sorting(self.view);
        let column = (sorting.column + by) % columns.max(1);
        self.sort(self.view, Sorting { column, ..sorting });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(ui: &mut Ui, keys: &[KeyCode]) -> bool {
        keys.iter().all(|&key| ui.press(KeyEvent::from(key), 5, 30))
    }

    fn typed(text: &str) -> Vec<KeyCode> {
        text.chars().map(KeyCode::Char).collect()
    }

    fn ui() -> Ui {
        Ui::new(View::Workers, Duration::from_secs(1))
    }

    #[test]
    fn views_are_reached_by_number_and_in_turn() {
        let mut ui = ui();
        press(&mut ui, &typed("5"));
        assert_eq!(ui.view, View::Drops);
        press(&mut ui, &[KeyCode::Tab, KeyCode::Tab]);
        assert_eq!(ui.view, View::Workers);
        press(&mut ui, &[KeyCode::BackTab]);
        assert_eq!(ui.view, View::Sync);
    }

    #[test]
    fn each_view_keeps_its_own_order() {
        let mut ui = ui();
        press(&mut ui, &typed("<r2>>"));
        assert_eq!(ui.sorting(View::Workers), Sorting { column: 4, is_descending: true });
        assert_eq!(ui.sorting(View::Services), Sorting { column: 0, is_descending: true });
        assert_eq!(ui.sorting(View::Drops), View::Drops.sorting());
    }

    #[test]
    fn keys_go_into_the_filter_until_it_is_done() {
        let mut ui = ui();
        assert!(press(&mut ui, &typed("/q5x")), "no key of a filter quits");
        press(&mut ui, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((ui.filter.as_str(), ui.is_typing, ui.view), ("q5", false, View::Workers));
        press(&mut ui, &[KeyCode::Esc]);
        assert_eq!(ui.filter, "");
    }

    #[test]
    fn pause_help_and_the_pace() {
        let mut ui = ui();
        press(&mut ui, &typed("p?"));
        assert!(ui.is_paused && ui.shows_help);
        press(&mut ui, &typed("x "));
        assert!(!ui.is_paused && !ui.shows_help);
        press(&mut ui, &typed("--------"));
        assert_eq!(ui.interval, INTERVAL[0]);
        press(&mut ui, &typed(&"+".repeat(20)));
        assert_eq!(ui.interval, INTERVAL[1]);
    }

    #[test]
    fn scrolling_stays_within_the_rows() {
        let mut ui = ui();
        press(&mut ui, &[KeyCode::PageDown; 9]);
        assert_eq!(ui.scrolled, 29);
        press(&mut ui, &[KeyCode::Up]);
        assert_eq!(ui.scrolled, 28);
        press(&mut ui, &typed("2"));
        assert_eq!(ui.scrolled, 0);
    }

    #[test]
    fn q_and_control_c_quit() {
        assert!(!press(&mut ui(), &typed("q")));
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut typing = ui();
        press(&mut typing, &typed("/"));
        assert!(!typing.press(control_c, 5, 30));
    }
}
