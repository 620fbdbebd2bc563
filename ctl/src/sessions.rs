//! `batonctl sessions`: the sessions in the node's tables.

use baton_common::flow::Endpoint;
use baton_common::session::Session;
use baton_common::time::Millis;
use serde::Serialize;

use crate::arguments::SessionsArguments;
use crate::filter::{TableKind, state_name};
use crate::report::{Report, duration, lines, table};

/// A table that sessions are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Whose sessions it holds.
    pub kind: TableKind,
    /// The worker of a local table, the NUMA node of a remote one.
    pub number: u8,
}

/// Sessions that met the conditions.
#[derive(Debug, Serialize)]
pub struct SessionsReport {
    /// How many there are.
    pub matched: u64,
    /// Records that changed all the time, or make no sense; more than a passing few are worth a look.
    pub unreadable: u64,
    /// As many of them as were to be shown; absent if only their number was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Vec<SessionRow>>,
}

/// One session.
#[derive(Debug, Serialize)]
pub struct SessionRow {
    /// Whose sessions the table holds.
    pub table: TableKind,
    /// The worker of a local table, the NUMA node of a remote one.
    pub table_number: u8,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The client's address and port.
    pub client: String,
    /// The virtual address and port.
    pub vip: String,
    /// The balancer's own address and port towards the server.
    pub local: String,
    /// The real server's address and port.
    pub server: String,
    /// Where the connection stands.
    pub state: &'static str,
    /// The number of the node that reports it.
    pub owner: u16,
    /// How often the owner has changed.
    pub generation: u32,
    /// Milliseconds since its last packet, as far as this node knows.
    pub idle_ms: u64,
}

impl SessionsReport {
    /// Counts the sessions that meet the conditions, and keeps those that are to be shown. `scan` visits every session,
    /// and says how many records it could not read.
    pub fn collect(
        scan: impl FnOnce(&mut dyn FnMut(TableName, Session)) -> u64,
        arguments: &SessionsArguments,
        now: Millis,
    ) -> SessionsReport {
        let limit = match arguments.limit {
            0 => usize::MAX,
            limit => limit,
        };
        let (mut matched, mut rows) = (0, Vec::new());
        let unreadable = scan(&mut |table, session| {
            if arguments.filter.matches(&session) {
                matched += 1;
                if !arguments.count && rows.len() < limit {
                    rows.push(SessionRow::new(table, &session, now));
                }
            }
        });
        SessionsReport { matched, unreadable, sessions: (!arguments.count).then_some(rows) }
    }
}

impl SessionRow {
    fn new(table: TableName, session: &Session, now: Millis) -> SessionRow {
        let text = |endpoint: Endpoint| endpoint.to_string();
        SessionRow {
            table: table.kind,
            table_number: table.number,
            protocol: session.protocol.name(),
            client: text(session.client),
            vip: text(session.vip),
            local: text(session.local),
            server: text(session.server),
            state: state_name(session.state),
            owner: session.owner.0,
            generation: session.generation.0,
            idle_ms: now.since(session.last_seen),
        }
    }
}

impl Report for SessionsReport {
    fn text(&self) -> String {
        let Some(sessions) = &self.sessions else { return self.matched.to_string() };
        let headings =
            ["table", "proto", "client", "vip", "local", "server", "state", "#owner", "#gen", "#idle"];
        let mut table = table(&headings);
        for row in sessions {
            table.add_row([
                format!("{}-{}", row.table.name(), row.table_number),
                row.protocol.into(),
                row.client.clone(),
                row.vip.clone(),
                row.local.clone(),
                row.server.clone(),
                row.state.into(),
                row.owner.to_string(),
                row.generation.to_string(),
                duration(row.idle_ms),
            ]);
        }
        let mut text = lines(&table);
        if (sessions.len() as u64) < self.matched {
            text += &format!(
                "\n{} of {} sessions shown; --limit 0 shows all, --count only their number\n",
                sessions.len(),
                self.matched
            );
        }
        if self.unreadable > 0 {
            text += &format!("\n{} records could not be read\n", self.unreadable);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use baton_common::flow::Protocol;
    use baton_common::id::{Generation, NodeId};
    use baton_common::session::SessionState;

    use super::*;
    use crate::filter::SessionFilter;

    const LOCAL: TableName = TableName { kind: TableKind::Local, number: 1 };

    /// A scan of so many sessions, every other one of node 2.
    fn sessions(count: u8) -> impl FnOnce(&mut dyn FnMut(TableName, Session)) -> u64 {
        let endpoint = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        let session = move |n| Session {
            protocol: Protocol::Udp,
            client: endpoint(&format!("10.1.0.{n}:40000")),
            vip: endpoint("[fd00:9::1]:53"),
            local: endpoint("10.4.1.1:20000"),
            server: endpoint("10.3.0.2:53"),
            owner: NodeId(1 + u16::from(n % 2)),
            generation: Generation(3),
            state: SessionState::UdpTwoWay,
            last_seen: Millis(1_000),
            last_sent: Millis(0),
        };
        move |visit| {
            (0..count).for_each(|n| visit(LOCAL, session(n)));
            0
        }
    }

    fn arguments(limit: usize, count: bool) -> SessionsArguments {
        SessionsArguments { command: None, filter: SessionFilter::default(), limit, count }
    }

    #[test]
    fn the_limit_bounds_what_is_shown_and_not_what_is_counted() {
        let shown = |limit| {
            let report = SessionsReport::collect(sessions(7), &arguments(limit, false), Millis(0));
            (report.sessions.as_ref().unwrap().len(), report.matched, report.text().contains("of 7 sessions"))
        };

        assert_eq!(shown(3), (3, 7, true));
        assert_eq!(shown(7), (7, 7, false));
        assert_eq!(shown(0), (7, 7, false));
    }

    #[test]
    fn a_count_is_a_bare_number() {
        let mut arguments = arguments(1, true);
        arguments.filter.owner = Some(2);

        let report = SessionsReport::collect(sessions(5), &arguments, Millis(0));

        assert_eq!(report.text(), "2");
        assert_eq!(serde_json::to_string(&report).unwrap(), r#"{"matched":2,"unreadable":0}"#);
    }

    #[test]
    fn a_session_shows_all_its_fields() {
        let report = SessionsReport::collect(sessions(1), &arguments(0, false), Millis(3_500));

        let expected = serde_json::json!({
            "matched": 1,
            "unreadable": 0,
            "sessions": [{
                "table": "local", "table_number": 1, "protocol": "udp",
                "client": "10.1.0.0:40000", "vip": "[fd00:9::1]:53",
                "local": "10.4.1.1:20000", "server": "10.3.0.2:53",
                "state": "udp_two_way", "owner": 1, "generation": 3, "idle_ms": 2500,
            }],
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
        assert!(report.text().contains("local-1  udp"), "{}", report.text());
    }
}
