//! Why a frame cannot be what it says it is.

/// The first thing found wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Shorter than an Ethernet header.
    #[error("the frame is shorter than an Ethernet header")]
    EthernetTruncated,
    /// Shorter than the fixed part of the IP header.
    #[error("the packet is shorter than an IP header")]
    IpTruncated,
    /// The version in the IP header is not the one that the frame's type announces.
    #[error("the version in the IP header is not the one announced")]
    IpVersion,
    /// IPv4: the header length is below 20 bytes or above the total length.
    #[error("the IPv4 header length is impossible")]
    IpHeaderLength,
    /// The IP header announces more bytes than there are.
    #[error("the IP header announces more bytes than there are")]
    IpLength,
    /// IPv4: the header checksum is wrong.
    #[error("the IPv4 header checksum is wrong")]
    IpChecksum,
    /// IPv6: an address of the form `::ffff:a.b.c.d`, which must not appear on the wire and would pass for IPv4 here.
    #[error("an IPv4-mapped IPv6 address stands in an IPv6 header")]
    MappedAddress,
    /// IPv6: an extension header that is cut off, out of place, or one too many.
    #[error("the IPv6 extension headers are cut off, out of place or too many")]
    ExtensionHeaders,
    /// Shorter than a TCP or UDP header.
    #[error("the packet is shorter than its TCP or UDP header")]
    TransportTruncated,
    /// TCP: the data offset is below 20 bytes or beyond the packet.
    #[error("the TCP data offset is impossible")]
    TcpHeaderLength,
    /// UDP: the length is below 8 bytes or beyond the packet.
    #[error("the UDP length is impossible")]
    UdpLength,
    /// UDP over IPv6 without a checksum (RFC 8200, section 8.1).
    #[error("a UDP packet over IPv6 has no checksum")]
    UdpChecksumMissing,
}
