//! The hosts of a lab and their addresses, the same in every lab.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use anyhow::{Error, bail};

/// The virtual address that the services stand on, IPv4.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The virtual address that the services stand on, IPv6.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);
/// UDP port of the sync protocol.
pub const SYNC_PORT: u16 = 7400;
/// Most hosts of one kind.
pub const COUNT_MAX: u16 = 9;

/// A host: a network namespace with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// Between clients, nodes and servers; spreads the VIPs' traffic over the nodes.
    Router,
    /// A Baton node, from 1.
    Node(u16),
    /// A real server, from 1.
    Server(u16),
    /// A client, from 1.
    Client(u16),
    /// The real server that runs MariaDB.
    Database,
}

impl Host {
    /// Its IPv4 address: where the host itself is reached.
    pub fn ipv4(self) -> Ipv4Addr {
        match self {
            Self::Router => Ipv4Addr::new(10, 2, 0, 1),
            Self::Node(n) => Ipv4Addr::new(10, 2, 0, 10 + octet(n)),
            Self::Server(n) => Ipv4Addr::new(10, 3, 0, 10 + octet(n)),
            Self::Client(n) => Ipv4Addr::new(10, 1, octet(n), 2),
            Self::Database => Ipv4Addr::new(10, 3, 0, 100),
        }
    }

    /// Its IPv6 address.
    pub fn ipv6(self) -> Ipv6Addr {
        match self {
            Self::Router => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 1),
            Self::Node(n) => Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x10 + n),
            Self::Server(n) => Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x10 + n),
            Self::Client(n) => Ipv6Addr::new(0xfd00, 1, n, 0, 0, 0, 0, 2),
            Self::Database => Ipv6Addr::new(0xfd00, 3, 0, 0, 0, 0, 0, 0x100),
        }
    }
}

fn octet(number: u16) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => write!(f, "router"),
            Self::Node(n) => write!(f, "n{n}"),
            Self::Server(n) => write!(f, "s{n}"),
            Self::Client(n) => write!(f, "c{n}"),
            Self::Database => write!(f, "db"),
        }
    }
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let number =
            |digits: &str| digits.parse::<u16>().ok().filter(|number| (1..=COUNT_MAX).contains(number));
        let host = match text {
            "router" => Some(Self::Router),
            "db" => Some(Self::Database),
            _ => match text.split_at_checked(1) {
                Some(("n", digits)) => number(digits).map(Self::Node),
                Some(("s", digits)) => number(digits).map(Self::Server),
                Some(("c", digits)) => number(digits).map(Self::Client),
                _ => None,
            },
        };
        match host {
            Some(host) => Ok(host),
            None => bail!("`{text}` is no host; hosts are router, n1.., s1.., c1.. and db"),
        }
    }
}

/// What belongs to a node beside its own addresses.
impl Host {
    /// The sync address of node `node`.
    pub fn sync_address(node: u16) -> Ipv4Addr {
        Ipv4Addr::new(10, 2, 0, 100 + octet(node))
    }

    /// The local addresses of worker `worker` of node `node`, IPv4 and IPv6.
    pub fn local_addresses(node: u16, worker: u16) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::new(10, 4, octet(node), octet(worker + 1)),
            Ipv6Addr::new(0xfd00, 4, node, 0, 0, 0, 0, worker + 1),
        )
    }

    /// The prefixes of node `node`'s local addresses, IPv4 and IPv6.
    pub fn local_prefixes(node: u16) -> (String, String) {
        (format!("10.4.{node}.0/24"), format!("fd00:4:{node}::/64"))
    }

    /// The link-layer address of Baton on node `node`.
    pub fn mac(node: u16) -> String {
        format!("02:ba:70:00:00:{node:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_as_it_is_shown() {
        for host in [Host::Router, Host::Node(1), Host::Server(9), Host::Client(3), Host::Database] {
            assert_eq!(host.to_string().parse::<Host>().unwrap(), host);
        }
    }

    #[test]
    fn what_is_no_host_is_rejected() {
        for text in ["", "n", "n0", "n10", "x1", "router1", "n-1", "ä1"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
