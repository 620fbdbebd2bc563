//! `batonctl services`: the services and their real servers.

use baton_common::control::ServiceStatus;
use serde::Serialize;

use crate::report::{Report, lines, table};

/// What the primary says of its services.
#[derive(Serialize)]
pub struct ServicesReport {
    /// In the order of the configuration.
    pub services: Vec<ServiceStatus>,
}

impl Report for ServicesReport {
    fn text(&self) -> String {
        let mut table = table(&["service", "vip", "protocol", "scheduler", "server", "#weight", "#created"]);
        for service in &self.services {
            for server in &service.real_servers {
                table.add_row([
                    service.name.clone(),
                    service.vip.to_string(),
                    service.protocol.name().into(),
                    format!("{:?}", service.scheduler),
                    server.endpoint.to_string(),
                    server.weight.to_string(),
                    server.sessions_created.to_string(),
                ]);
            }
        }
        lines(&table)
    }
}

#[cfg(test)]
mod tests {
    use baton_common::config::Scheduler;
    use baton_common::control::RealServerStatus;
    use baton_common::flow::Protocol;

    use super::*;

    #[test]
    fn each_real_server_has_a_line() {
        let server = |endpoint: &str, sessions_created| RealServerStatus {
            endpoint: endpoint.parse().unwrap(),
            weight: 1,
            sessions_created,
        };
        let report = ServicesReport {
            services: vec![ServiceStatus {
                name: "web".into(),
                vip: "10.9.0.1:80".parse().unwrap(),
                protocol: Protocol::Tcp,
                scheduler: Scheduler::WeightedRoundRobin,
                real_servers: vec![server("10.3.0.2:8080", 12), server("10.3.0.3:8080", 13)],
            }],
        };

        let text = report.text();

        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.lines().nth(2).unwrap().ends_with(" 13"), "{text}");
        assert_eq!(serde_json::to_value(&report).unwrap()["services"][0]["vip"], "10.9.0.1:80");
    }
}
