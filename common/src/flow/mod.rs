//! Flows: addresses, endpoints, and the key under which a packet finds its session.

mod hash;

pub use hash::{FlowHash, FlowHasher, HashKey};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The transport protocols that are balanced. The numbers are IANA's, as in the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum Protocol {
    /// RFC 9293.
    Tcp = 6,
    /// RFC 768.
    Udp = 17,
}

impl Protocol {
    /// Its name as it is written on the command line, in tables and in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// The protocol with this IANA number, if it is one that is balanced.
    pub fn from_number(number: u8) -> Option<Protocol> {
        match number {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            _ => None,
        }
    }
}

/// An IPv4 or IPv6 address as 16 bytes, network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Address(pub [u8; 16]);

const V4_MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Address {
    /// An IPv4 address from its four bytes in network byte order.
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Address {
        let p = V4_MAPPED_PREFIX;
        let [a, b, c, d] = octets;
        Address([p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], a, b, c, d])
    }

    /// An IPv6 address from its sixteen bytes in network byte order.
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Address {
        Address(octets)
    }

    /// Whether this is an IPv4 address.
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == V4_MAPPED_PREFIX
    }

    /// The four bytes of an IPv4 address, network byte order.
    #[inline]
    pub fn to_v4(&self) -> Option<[u8; 4]> {
        self.is_v4().then(|| [self.0[12], self.0[13], self.0[14], self.0[15]])
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address::v6(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> IpAddr {
        match address.to_v4() {
            Some(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
            None => IpAddr::V6(Ipv6Addr::from(address.0)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address and a port. The port is in host byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, host byte order.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Endpoint {
        Endpoint { address: socket.ip().into(), port: socket.port() }
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> SocketAddr {
        SocketAddr::new(endpoint.address.into(), endpoint.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The five-tuple of a packet as it arrives: what a session is looked up by.
///
/// A session has two: client to VIP (the client-side key) and real server to local address (the server-side key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    /// Where the packet comes from.
    pub source: Endpoint,
    /// Where the packet goes to.
    pub destination: Endpoint,
    /// The transport protocol.
    pub protocol: Protocol,
}

impl FlowKey {
    /// The key as five words, for comparing and hashing: source address, destination address (native-endian halves of
    /// the network-order bytes), then `source port << 32 | destination port << 16 | protocol`.
    #[inline]
    pub fn words(&self) -> [u64; 5] {
        let words = |endpoint: &Endpoint| (address_words(endpoint.address), endpoint.port);
        key_words(words(&self.source), words(&self.destination), self.protocol)
    }
}

/// [`FlowKey::words`] of these parts, for who has the addresses as words.
#[inline(always)]
pub fn key_words(
    (source, source_port): ([u64; 2], u16),
    (destination, destination_port): ([u64; 2], u16),
    protocol: Protocol,
) -> [u64; 5] {
    let ports = (source_port as u64) << 32 | (destination_port as u64) << 16 | protocol as u64;
    [source[0], source[1], destination[0], destination[1], ports]
}

/// An address as two words whose bytes in memory are the address in network byte order.
#[inline]
pub fn address_words(address: Address) -> [u64; 2] {
    let (high, low) = address.0.split_at(8);
    [u64::from_ne_bytes(high.try_into().unwrap()), u64::from_ne_bytes(low.try_into().unwrap())]
}

/// The address whose [`address_words`] these are.
#[inline]
pub fn address_from_words(words: [u64; 2]) -> Address {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    Address(bytes)
}
