//! `batonctl sessions diff`: whether this node and a peer have the same of each other's sessions.

use std::time::Duration;

use anyhow::{Result, bail};
use baton_common::config::Config;
use baton_common::control::Request;
use baton_common::id::NodeId;
use baton_common::sync::protocol::{Comparison, ComparisonState, Difference, Version};
use serde::Serialize;

use crate::filter::state_name;
use crate::report::{Report, lines, table};
use crate::sync::secondary;

/// How often to look whether the comparison is finished.
const POLL: Duration = Duration::from_millis(100);

/// What was found, by each of the node's secondaries.
#[derive(Debug, Serialize)]
pub struct DifferenceReport {
    /// Whether all of it was compared and is the same.
    pub equal: bool,
    /// Sessions that were compared.
    pub sessions: u64,
    comparisons: Vec<Comparison>,
}

/// Has the node's secondaries compare, and waits for them: at most two minutes, which the comparison sees to itself.
pub fn compare(config: &Config, node: NodeId) -> Result<DifferenceReport> {
    if config.sync.domains.is_empty() {
        bail!("synchronisation is off (sync.domains is empty): there is nothing to compare with");
    }
    let mut comparisons = Vec::new();
    for domain in &config.sync.domains {
        secondary(config, domain.numa)?.have_done(&Request::SyncCompare { node })?;
    }
    for domain in &config.sync.domains {
        let mut client = secondary(config, domain.numa)?;
        comparisons.push(loop {
            let comparison = client.comparison()?;
            if comparison.state != ComparisonState::Running {
                break comparison;
            }
            std::thread::sleep(POLL);
        });
    }
    Ok(DifferenceReport {
        equal: comparisons.iter().all(Comparison::is_equal),
        sessions: comparisons.iter().map(|comparison| comparison.sessions).sum(),
        comparisons,
    })
}

impl Report for DifferenceReport {
    fn text(&self) -> String {
        if self.equal {
            return format!("equal: {} sessions", self.sessions);
        }
        let mut text = String::new();
        let mut table = table(&[
            "difference",
            "#owner",
            "protocol",
            "client",
            "vip",
            "side",
            "#generation",
            "local",
            "server",
            "state",
        ]);
        for difference in self.comparisons.iter().flat_map(|comparison| &comparison.differences) {
            for (side, version) in [("here", &difference.here), ("there", &difference.there)] {
                if let Some(version) = version {
                    table.add_row(row(difference, side, version));
                }
            }
        }
        if table.row_count() > 0 {
            text += &lines(&table);
        }
        for comparison in &self.comparisons {
            text += &summary(comparison);
        }
        text
    }
}

fn row(difference: &Difference, side: &str, version: &Version) -> [String; 10] {
    [
        difference.kind.name().to_owned(),
        version.owner.to_string(),
        difference.protocol.name().to_owned(),
        difference.client.to_string(),
        difference.vip.to_string(),
        side.to_owned(),
        version.generation.to_string(),
        version.local.to_string(),
        version.server.to_string(),
        state_name(version.state).to_owned(),
    ]
}

fn summary(comparison: &Comparison) -> String {
    let mut parts = vec![format!("{} sessions compared", comparison.sessions)];
    let differences = comparison.differences.len() as u64 + comparison.differences_unlisted;
    parts.push(format!("{differences} different"));
    if comparison.unconfirmed > 0 {
        parts.push(format!(
            "{} more differed once and were too many to look at again",
            comparison.unconfirmed
        ));
    }
    if comparison.ranges_skipped > 0 {
        parts.push(format!("{} ranges differ and were too many to look into", comparison.ranges_skipped));
    }
    if comparison.state == ComparisonState::TimedOut {
        parts.push(format!("node {} did not answer in time: this is not all", comparison.node));
    }
    parts.join(", ") + "\n"
}
