//! Which sessions are shown.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use baton_common::flow::{Endpoint, Protocol};
use baton_common::id::NodeId;
use baton_common::session::{Session, SessionState};
use clap::{Args, ValueEnum};

/// Conditions that a session must meet, all of them.
#[derive(Clone, Debug, Default, Args)]
pub struct SessionFilter {
    /// Only this node's own sessions, or only those that other nodes reported.
    #[arg(long, value_enum)]
    pub table: Option<TableKind>,
    /// Client address, with or without a port.
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub client: Option<EndpointFilter>,
    /// Virtual address, with or without a port.
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub vip: Option<EndpointFilter>,
    /// Real server, with or without a port.
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub server: Option<EndpointFilter>,
    /// Local address, with or without a port.
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub local: Option<EndpointFilter>,
    /// Transport protocol.
    #[arg(long, value_enum)]
    pub protocol: Option<ProtocolFilter>,
    /// The number of the node that reports the session.
    #[arg(long, value_name = "N")]
    pub owner: Option<u16>,
    /// Where the connection stands, for example `tcp_established`; may be given several times.
    #[arg(long, value_name = "STATE", value_parser = state_named)]
    pub state: Vec<SessionState>,
}

/// The two kinds of session tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// A worker's own sessions.
    Local,
    /// Sessions that other nodes reported.
    Remote,
}

impl TableKind {
    /// As it is written on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            TableKind::Local => "local",
            TableKind::Remote => "remote",
        }
    }
}

/// The protocols of sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProtocolFilter {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// An address, and a port if it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointFilter {
    address: IpAddr,
    port: Option<u16>,
}

impl EndpointFilter {
    fn matches(&self, endpoint: Endpoint) -> bool {
        IpAddr::from(endpoint.address) == self.address && self.port.is_none_or(|port| port == endpoint.port)
    }
}

impl FromStr for EndpointFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<EndpointFilter, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(EndpointFilter { address, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) => Ok(EndpointFilter { address: socket.ip(), port: Some(socket.port()) }),
            Err(_) => Err("expected 10.1.0.5, 10.1.0.5:40000, fd00:1::5 or [fd00:1::5]:40000".into()),
        }
    }
}

impl SessionFilter {
    /// Whether tables of this kind are to be read at all.
    pub fn wants_table(&self, kind: TableKind) -> bool {
        self.table.is_none_or(|table| table == kind)
    }

    /// Whether a session meets all conditions but that on its table.
    pub fn matches(&self, session: &Session) -> bool {
        let endpoint =
            |filter: &Option<EndpointFilter>, value| filter.is_none_or(|filter| filter.matches(value));
        let protocol = |filter| match filter {
            ProtocolFilter::Tcp => session.protocol == Protocol::Tcp,
            ProtocolFilter::Udp => session.protocol == Protocol::Udp,
        };
        endpoint(&self.client, session.client)
            && endpoint(&self.vip, session.vip)
            && endpoint(&self.server, session.server)
            && endpoint(&self.local, session.local)
            && self.protocol.is_none_or(protocol)
            && self.owner.is_none_or(|owner| NodeId(owner) == session.owner)
            && (self.state.is_empty() || self.state.contains(&session.state))
    }
}

/// A state as it is written on the command line and in JSON.
pub fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::UdpOneWay => "udp_one_way",
        SessionState::UdpTwoWay => "udp_two_way",
        SessionState::TcpSynReceived => "tcp_syn_received",
        SessionState::TcpSynAcked => "tcp_syn_acked",
        SessionState::TcpEstablished => "tcp_established",
        SessionState::TcpFinFromClient => "tcp_fin_from_client",
        SessionState::TcpFinFromServer => "tcp_fin_from_server",
        SessionState::TcpTimeWait => "tcp_time_wait",
        SessionState::TcpReset => "tcp_reset",
    }
}

fn state_named(name: &str) -> Result<SessionState, String> {
    let mut states = (0..=u8::MAX).filter_map(SessionState::from_number);
    states.clone().find(|state| state_name(*state) == name).ok_or_else(|| {
        let names: Vec<_> = states.by_ref().map(state_name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use baton_common::id::Generation;
    use baton_common::time::Millis;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn session() -> Session {
        Session {
            protocol: Protocol::Tcp,
            client: endpoint("10.1.0.5:40000"),
            vip: endpoint("10.9.0.1:80"),
            local: endpoint("10.4.1.1:20000"),
            server: endpoint("10.3.0.2:8080"),
            owner: NodeId(1),
            generation: Generation(0),
            state: SessionState::TcpEstablished,
            last_seen: Millis(0),
            last_sent: Millis(0),
        }
    }

    fn filter(text: &str) -> Option<EndpointFilter> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_endpoint_is_an_address_with_or_without_a_port() {
        let parsed = |text: &str| text.parse::<EndpointFilter>().map(|filter| (filter.address, filter.port));

        assert_eq!(parsed("10.1.0.5"), Ok(("10.1.0.5".parse().unwrap(), None)));
        assert_eq!(parsed("10.1.0.5:80"), Ok(("10.1.0.5".parse().unwrap(), Some(80))));
        assert_eq!(parsed("fd00::5"), Ok(("fd00::5".parse().unwrap(), None)));
        assert_eq!(parsed("[fd00::5]:80"), Ok(("fd00::5".parse().unwrap(), Some(80))));
        for wrong in ["", "lb1", ":80", "10.1.0.5:", "10.1.0.5:65536", "[fd00::5]"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_condition_can_exclude_a_session() {
        let any = SessionFilter::default;
        let none_of = [
            SessionFilter { client: filter("10.1.0.6"), ..any() },
            SessionFilter { client: filter("10.1.0.5:1"), ..any() },
            SessionFilter { vip: filter("10.9.0.1:443"), ..any() },
            SessionFilter { server: filter("10.3.0.3"), ..any() },
            SessionFilter { local: filter("10.4.1.1:1"), ..any() },
            SessionFilter { protocol: Some(ProtocolFilter::Udp), ..any() },
            SessionFilter { owner: Some(2), ..any() },
            SessionFilter { state: vec![SessionState::TcpReset], ..any() },
        ];

        assert!(none_of.iter().all(|filter| !filter.matches(&session())));
    }

    #[test]
    fn a_session_that_meets_all_conditions_is_shown() {
        let all = SessionFilter {
            table: None,
            client: filter("10.1.0.5"),
            vip: filter("10.9.0.1:80"),
            server: filter("10.3.0.2:8080"),
            local: filter("10.4.1.1"),
            protocol: Some(ProtocolFilter::Tcp),
            owner: Some(1),
            state: vec![SessionState::TcpReset, SessionState::TcpEstablished],
        };

        assert!(all.matches(&session()) && SessionFilter::default().matches(&session()));
    }

    #[test]
    fn each_state_is_found_by_its_name() {
        let states: Vec<_> = (0..=u8::MAX).filter_map(SessionState::from_number).collect();

        assert_eq!(states.len(), 9);
        assert!(states.iter().all(|state| state_named(state_name(*state)) == Ok(*state)));
        assert!(state_named("established").unwrap_err().contains("tcp_established"));
    }
}
