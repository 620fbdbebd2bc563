//! Packet headers on slices: the parser, the header views, checksums, and the datagrams that Baton itself sends.
//!
//! Nothing here allocates, panics or trusts a length that it has not compared with the slice.

pub mod checksum;
pub mod datagram;
pub mod ethernet;
pub mod ipv4;
pub mod ipv6;
mod malformed;
mod parse;
pub mod tcp;
pub mod udp;

#[cfg(test)]
pub(crate) mod testing;

pub use datagram::{OpenError, UdpDatagram, UdpPath, WriteError, open_udp_frame, open_udp_packet};
pub use ethernet::MacAddress;
pub use malformed::Malformed;
pub use parse::{Fragment, OtherIp, Parsed, ParsedFlow, parse, parse_packet};
pub use tcp::TcpFlags;

/// The version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}
