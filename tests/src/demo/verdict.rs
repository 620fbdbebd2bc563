//! The end of the demo: the figures side by side, and what they mean.

use std::fmt::Write;

use serde::Serialize;

use crate::demo::restarts::{Restarts, Round};
use crate::demo::takeover::Takeover;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// If everything was as it should be.
    pub passed: bool,
    /// What was not.
    pub troubles: Vec<String>,
    /// The steering backend of each node.
    pub steering: Vec<String>,
    /// Start of the random sequence.
    pub seed: u64,
    /// The node's death with sync.
    pub takeover: Takeover,
    /// The secondary's deaths.
    pub restarts: Restarts,
    /// The node's death without sync.
    pub control: Takeover,
    /// How long it all took, seconds.
    pub elapsed_s: f64,
}

/// The figures as tables.
pub fn tables(figures: &Figures) -> String {
    let Figures { takeover, control, restarts, .. } = figures;
    let mut text = String::new();
    let mut row = |cells: [String; 3]| {
        let [name, with, without] = cells;
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{name:<46} {with:>14} {without:>14}");
    };
    let mut both = |name: &str, value: &dyn Fn(&Takeover) -> String| {
        row([name.into(), value(takeover), value(control)]);
    };
    both("A node is killed: both its processes", &|t| if t.sync { "sync on" } else { "sync off" }.into());
    both("  connections before the kill", &|t| t.connections_before.to_string());
    both("  connections after it", &|t| t.connections_after.to_string());
    both("  connections lost", &|t| t.connections_lost.to_string());
    both("  longest pause that a client saw", &|t| {
        if t.connections_after > 0 { format!("{:.0} ms", t.longest_pause_ms) } else { "for ever".into() }
    });
    both("  sessions that the other node knew", &|t| {
        format!("{} of {}", t.sessions_on_survivor, t.sessions_on_victim)
    });
    both("  sessions that it served", &|t| t.sessions_served.to_string());
    both("  MariaDB transaction", &|t| if t.database.committed { "committed" } else { "lost" }.into());
    both("  MariaDB rows found", &|t| {
        if t.database.committed {
            format!("{} of {}", t.database.rows_found, t.database.rows_inserted)
        } else {
            "none".into()
        }
    });
    let _ = writeln!(text, "\nThe secondary is killed {} times under load", restarts.rounds.len());
    for (name, value) in [
        ("UDP datagrams sent", restarts.datagrams_sent.to_string()),
        ("UDP datagrams lost", restarts.datagrams_lost.to_string()),
        ("HTTP connections", restarts.connections.to_string()),
        ("HTTP connections lost", restarts.connections_lost.to_string()),
        ("packets dropped by the nodes", restarts.dropped.values().sum::<u64>().to_string()),
        ("longest round trip of a datagram", format!("{:.0} ms", restarts.longest_round_trip_ms)),
        ("successor ready after exec", span(&restarts.rounds, |round| round.exec_to_ready_ms)),
        ("successor ready after the kill", span(&restarts.rounds, |round| round.kill_to_ready_ms)),
        ("sync back: its first datagram at the peer", span(&restarts.rounds, |round| round.kill_to_peer_ms)),
        ("sessions that the peer misses", restarts.sessions_missing.to_string()),
    ] {
        let _ = writeln!(text, "  {name:<44} {value:>14}");
    }
    text
}

/// The smallest and the largest of a time, milliseconds.
fn span(rounds: &[Round], time: impl Fn(&Round) -> f64) -> String {
    let times = || rounds.iter().map(&time);
    match (times().reduce(f64::min), times().reduce(f64::max)) {
        (Some(least), Some(most)) => format!("{least:.0} to {most:.0} ms"),
        _ => "never".into(),
    }
}

/// What the figures mean.
pub fn words(figures: &Figures) -> String {
    if !figures.passed {
        let troubles: String = figures.troubles.iter().map(|trouble| format!("  - {trouble}\n")).collect();
        return format!("FAILED, after {:.0} s:\n{troubles}", figures.elapsed_s);
    }
    let Figures { takeover, control, restarts, .. } = figures;
    format!(
        "PASSED, after {:.0} s. A node died and took none of its {} connections with it; the longest pause was {:.0} ms. \
         Without sync\nthe same death ended {} of {}. The sync secondary died {} times; no packet was lost.\n",
        figures.elapsed_s,
        takeover.connections_before,
        takeover.longest_pause_ms,
        control.connections_lost,
        control.connections_before,
        restarts.rounds.len(),
    )
}

/// What should have been otherwise in the control run: without sync, connections must be lost.
pub fn control_troubles(control: &Takeover) -> Vec<String> {
    let mut troubles = Vec::new();
    if control.connections_before == 0 {
        troubles.push("control run: no connections were open before the kill".to_owned());
    } else if control.connections_lost == 0 {
        troubles.push(
            "control run: without sync no connection was lost either, so this demo proves nothing".to_owned(),
        );
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(troubles: Vec<String>) -> Figures {
        Figures {
            passed: troubles.is_empty(),
            troubles,
            steering: Vec::new(),
            seed: 1,
            takeover: Takeover {
                sync: true,
                connections_before: 1000,
                connections_after: 1000,
                longest_pause_ms: 420.3,
                ..Takeover::default()
            },
            restarts: Restarts::default(),
            control: Takeover { connections_before: 1000, connections_lost: 1000, ..Takeover::default() },
            elapsed_s: 61.2,
        }
    }

    #[test]
    fn the_verdict_says_what_was_lost_with_sync_and_without() {
        let words = words(&figures(Vec::new()));
        assert!(
            words.starts_with("PASSED") && words.contains("none of its 1000") && words.contains("420 ms"),
            "{words}"
        );
        assert!(words.contains("ended 1000 of 1000"), "{words}");
    }

    #[test]
    fn a_failure_names_every_trouble() {
        let words = words(&figures(vec!["one".into(), "two".into()]));
        assert!(
            words.starts_with("FAILED") && words.contains("- one\n") && words.contains("- two\n"),
            "{words}"
        );
    }

    #[test]
    fn a_control_run_that_loses_nothing_is_a_trouble() {
        let control = |before, lost| Takeover {
            connections_before: before,
            connections_lost: lost,
            ..Takeover::default()
        };
        assert!(control_troubles(&control(10, 10)).is_empty());
        assert!(control_troubles(&control(10, 0))[0].contains("proves nothing"));
        assert!(control_troubles(&control(0, 0))[0].contains("no connections"));
    }
}
