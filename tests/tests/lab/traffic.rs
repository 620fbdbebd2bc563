//! The traffic of a cluster's clients: connections that stay, busy and quiet ones, and connections that come and go.

use crate::harness::{HTTP4, HTTP6, Lab};
use crate::load::{Load, Report};

/// Busy connections of each family: a request in each every 100 ms.
pub const BUSY: u32 = 50;
/// Quiet connections of each family: a request in each every [`QUIET_MS`].
pub const QUIET: u32 = 25;
/// How long a quiet connection says nothing.
pub const QUIET_MS: u64 = 5000;
/// Connections of each family that come every second, live for half a second, and go.
const COMING: u32 = 20;

/// All of it.
pub struct Traffic {
    busy: [Load; 2],
    quiet: [Load; 2],
    coming: [Load; 2],
}

/// The connections that stay, when no others come any more.
pub struct Staying {
    busy: [Load; 2],
    quiet: [Load; 2],
}

impl Traffic {
    /// Starts it and waits until everything is open.
    pub fn start(lab: &Lab) -> Traffic {
        let quiet_ms = QUIET_MS.to_string();
        let mut traffic = Traffic {
            busy: [HTTP4, HTTP6].map(|target| Load::http(lab, target, BUSY, &[])),
            quiet: [HTTP4, HTTP6].map(|target| Load::quiet(lab, target, QUIET, &quiet_ms)),
            coming: [HTTP4, HTTP6].map(|target| Load::churn(lab, target, COMING, &[])),
        };
        for load in traffic.busy.iter_mut().chain(&mut traffic.quiet).chain(&mut traffic.coming) {
            load.wait_ready();
        }
        traffic
    }

    /// How many connections stay.
    pub const fn staying() -> u64 {
        2 * (BUSY + QUIET) as u64
    }

    /// Lets no more come and waits until those are gone; returns what became of each family's.
    pub fn stop_coming(self) -> (Staying, [Report; 2]) {
        let Traffic { busy, quiet, coming } = self;
        (Staying { busy, quiet }, coming.map(Load::finish))
    }
}

impl Staying {
    /// Ends it; panics unless every connection lives.
    pub fn finish_whole(self) {
        let finish = |loads: [Load; 2], connections| {
            for report in loads.map(Load::finish) {
                report.assert_http_whole(connections);
                let [pause_ms, at_s] =
                    ["longest_pause_ms", "longest_pause_at_s"].map(|name| report.seconds(name));
                println!(
                    "{connections} connections: longest pause {pause_ms} ms, {at_s} s after their start"
                );
            }
        };
        finish(self.busy, BUSY);
        finish(self.quiet, QUIET);
    }
}
