//! A frame: all that is shown of the time between two readings, before it is sorted and filtered.

use std::collections::BTreeMap;

use baton_common::counter::Counter;
use serde_json::{Value, json};

use super::grid::{Cell, Grid};
use super::reading::{Interval, Reading};
use super::views::{View, drops_per_second};
use crate::report::duration;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Everything in a few lines.
    pub summary: Summary,
    /// The views' rows, in no order.
    pub grids: BTreeMap<View, Grid>,
    /// What could not be read, and why.
    pub troubles: Vec<String>,
}

/// The node in a few words.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seconds between the two readings, if there are two.
    pub seconds: Option<f64>,
    /// Who the node is and how long its primary has been up.
    pub node: String,
    /// How far each NUMA node is.
    pub states: String,
    rates: Vec<(&'static str, &'static str, Option<f64>)>,
    sessions: [u64; 2],
}

impl Frame {
    /// What these readings show.
    pub fn new(interval: &Interval<'_>) -> Frame {
        Frame {
            summary: Summary::new(interval),
            grids: View::ALL.into_iter().map(|view| (view, view.grid(interval))).collect(),
            troubles: interval.now.troubles.clone(),
        }
    }

    /// As one JSON object. `news` is what happened to processes meanwhile.
    pub fn json(&self, views: &[(View, Grid)], news: &[String]) -> Value {
        let mut object = json!({
            "seconds": self.summary.seconds,
            "node": self.summary.node,
            "states": self.summary.states,
            "local_sessions": self.summary.sessions[0],
            "remote_sessions": self.summary.sessions[1],
            "news": news,
            "troubles": self.troubles,
        });
        for (key, _, rate) in &self.summary.rates {
            object[*key] = (*rate).into();
        }
        for (view, grid) in views {
            object[view.name()] = grid.json();
        }
        object
    }
}

impl Summary {
    fn new(interval: &Interval<'_>) -> Summary {
        let now = interval.now;
        let rate = |counter| interval.sum_rate(&now.workers, counter);
        let bits = |counter| rate(counter).map(|bytes| 8.0 * bytes);
        let sessions = |remote: bool| -> u64 {
            let tables = now.tables.iter().filter(|table| table.name.starts_with("remote-") == remote);
            tables.map(|table| u64::from(table.sessions)).sum()
        };
        Summary {
            seconds: interval.seconds(),
            node: node(now),
            states: states(now),
            rates: vec![
                ("rx_packets_per_second", "rx/s", rate(Counter::RxPackets)),
                ("tx_packets_per_second", "tx/s", rate(Counter::TxPackets)),
                ("rx_bits_per_second", "rx bit/s", bits(Counter::RxBytes)),
                ("tx_bits_per_second", "tx bit/s", bits(Counter::TxBytes)),
                ("drops_per_second", "drops/s", drops_per_second(interval)),
                ("created_per_second", "new/s", rate(Counter::SessionsCreated)),
            ],
            sessions: [sessions(false), sessions(true)],
        }
    }

    /// The rates, in one line.
    pub fn rates(&self) -> String {
        let parts =
            self.rates.iter().map(|(_, title, rate)| format!("{title} {}", Cell::rate(*rate).shown()));
        parts.collect::<Vec<_>>().join("  ")
    }

    /// The sessions, in one line.
    pub fn sessions(&self) -> String {
        format!("sessions {} own, {} of peers", self.sessions[0], self.sessions[1])
    }
}

fn node(reading: &Reading) -> String {
    match &reading.primary {
        Some(status) => format!(
            "node {} ({}), primary {} up {}, {}",
            status.node.id,
            status.node.name,
            status.pid,
            duration(status.uptime_ms),
            status.steering
        ),
        None => "the primary does not answer".into(),
    }
}

fn states(reading: &Reading) -> String {
    let state = |status: &baton_common::control::SyncStatus| {
        let alarm = if status.alarm { ", ALARM" } else { "" };
        let outside = if status.member { "" } else { ", no member" };
        format!("numa {}: {}{alarm}{outside}", status.numa, status.state.name())
    };
    match reading.sync.is_empty() {
        true => "no secondary answers".into(),
        false => reading.sync.iter().map(state).collect::<Vec<_>>().join("; "),
    }
}
