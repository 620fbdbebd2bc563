//! `batonctl status`: how the primary is.

use baton_common::control::Status;
use serde::Serialize;

use crate::report::{Report, duration, lines, table};

/// What the primary says of itself.
#[derive(Serialize)]
#[serde(transparent)]
pub struct StatusReport(pub Status);

impl Report for StatusReport {
    fn text(&self) -> String {
        let status = &self.0;
        let (node, port) = (&status.node, &status.port);
        let mut summary = table(&["", ""]);
        summary.add_row(["node", &format!("{} ({}), cluster {}", node.id, node.name, node.cluster)]);
        summary.add_row(["version", &status.version]);
        summary.add_row(["process", &format!("{}, up {}", status.pid, duration(status.uptime_ms))]);
        summary.add_row(["port", &format!("{} ({}), {}", port.device, port.driver, port.mac)]);
        summary.add_row(["queues", &format!("{} rx, {} tx", port.rx_queues, port.tx_queues)]);
        summary.add_row(["steering", &status.steering]);
        summary.add_row(["sync", if status.sync_enabled { "enabled" } else { "off" }]);

        let mut workers = table(&["#worker", "#lcore", "#cpu", "#numa", "local addresses"]);
        for worker in &status.workers {
            let addresses: Vec<String> = worker.local_addresses.iter().map(ToString::to_string).collect();
            workers.add_row([
                worker.worker.to_string(),
                worker.lcore.to_string(),
                worker.cpu.to_string(),
                worker.numa.to_string(),
                addresses.join(" "),
            ]);
        }
        let mut text = format!("{}\n{}", lines(&summary).trim_start_matches('\n'), lines(&workers));
        if !status.secondaries.is_empty() {
            let mut secondaries = table(&["#secondary", "#process", "state"]);
            for secondary in &status.secondaries {
                let state = match (secondary.pid, secondary.attached) {
                    (_, true) => "attached",
                    (Some(_), false) => "attaching",
                    (None, false) => "not running",
                };
                let pid = secondary.pid.map_or("-".into(), |pid| pid.to_string());
                secondaries.add_row([secondary.numa.to_string(), pid, state.into()]);
            }
            text += &format!("\n{}", lines(&secondaries));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use baton_common::control::{HeapStatus, NodeStatus, PortStatus, SecondaryStatus, WorkerStatus};
    use baton_common::id::{NodeId, NumaId, WorkerId};

    use super::*;

    fn status() -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 4711,
            uptime_ms: 61_000,
            node: NodeStatus { id: NodeId(1), name: "lb1".into(), cluster: 7 },
            steering: "tap_bpf".into(),
            port: PortStatus {
                device: "net_tap0".into(),
                driver: "net_tap".into(),
                mac: "02:ba:70:00:00:01".into(),
                rx_queues: 3,
                tx_queues: 3,
            },
            workers: vec![WorkerStatus {
                worker: WorkerId(0),
                lcore: 1,
                cpu: 1,
                numa: NumaId(0),
                local_addresses: vec!["10.4.1.1".parse().unwrap(), "fd00:4:1::1".parse().unwrap()],
            }],
            secondaries: vec![SecondaryStatus {
                numa: NumaId(0),
                pid: Some(4712),
                attached: true,
                successor: None,
                buffers: 4095,
                buffers_free: 3072,
            }],
            sync_enabled: true,
            heap: HeapStatus { bytes: 1 << 20, elements: 40 },
        }
    }

    #[test]
    fn people_see_everything_that_programs_see() {
        let text = StatusReport(status()).text();

        for part in [
            "1 (lb1), cluster 7",
            "4711, up 1m1s",
            "net_tap0 (net_tap), 02:ba:70:00:00:01",
            "3 rx, 3 tx",
            "tap_bpf",
            "10.4.1.1 fd00:4:1::1",
            "4712  attached",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    #[test]
    fn json_names_are_the_protocols() {
        let json = serde_json::to_value(StatusReport(status())).unwrap();

        assert_eq!(json["node"]["id"], 1);
        assert_eq!(json["steering"], "tap_bpf");
        assert_eq!(json["workers"][0]["local_addresses"][1], "fd00:4:1::1");
        assert_eq!(json["secondaries"][0]["attached"], true);
    }
}
