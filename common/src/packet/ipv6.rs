//! The IPv6 header (RFC 8200) with the extension headers that may stand before the transport.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;
use crate::flow::Address;

/// Bytes of the fixed IPv6 header.
pub const HEADER_LEN: usize = size_of::<Ipv6Header>();

/// Extension headers that are skipped before a packet counts as malformed. RFC 8200, section 4.1 knows four occurrences
/// of the three kinds that are skipped.
pub const EXTENSION_HEADERS_MAX: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The fixed IPv6 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_flow: U32,
    /// Bytes after this header.
    pub payload_length: U16,
    /// What follows this header.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

const _: () = assert!(HEADER_LEN == 40);

impl Ipv6Header {
    /// The header at the start of `packet`, once its version, length and addresses are found right.
    ///
    /// # Errors
    /// What is wrong first.
    #[inline]
    pub fn check(packet: &[u8]) -> Result<&Ipv6Header, Malformed> {
        let (header, payload) = Ipv6Header::ref_from_prefix(packet).map_err(|_| Malformed::IpTruncated)?;
        if header.version_class_flow.get() >> 28 != 6 {
            return Err(Malformed::IpVersion);
        }
        if usize::from(header.payload_length.get()) > payload.len() {
            return Err(Malformed::IpLength);
        }
        if Address::v6(header.source).is_v4() || Address::v6(header.destination).is_v4() {
            return Err(Malformed::MappedAddress);
        }
        Ok(header)
    }
}

/// What the chain of extension headers leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Something that is no skippable extension header: its protocol number and its offset in the payload.
    Upper {
        /// IANA's number.
        protocol: u8,
        /// Bytes from the end of the fixed header.
        offset: usize,
    },
    /// A fragment header.
    Fragment,
}

/// Follows the extension headers of `payload`, of which `next_header` names the first.
///
/// Hop-by-hop options, destination options and used-up routing headers are skipped. A routing header with segments left
/// counts as an upper protocol: this node is not the packet's destination in the sense of the transport checksum.
///
/// # Errors
/// [`Malformed::ExtensionHeaders`] if a header is cut off, hop-by-hop options do not come first, or there are more than
/// [`EXTENSION_HEADERS_MAX`].
#[inline]
pub fn follow_chain(next_header: u8, payload: &[u8]) -> Result<Chain, Malformed> {
    let mut protocol = next_header;
    let mut offset = 0;
    for position in 0..=EXTENSION_HEADERS_MAX {
        match protocol {
            HOP_BY_HOP if position > 0 => break,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            FRAGMENT => return Ok(Chain::Fragment),
            _ => return Ok(Chain::Upper { protocol, offset }),
        }
        // Common to the three: next header, length in units of 8 bytes beyond the first, then six more bytes at least.
        let Some(header) = payload.get(offset..).and_then(|rest| rest.first_chunk::<8>()) else {
            break;
        };
        let [next, length, _, segments_left, ..] = *header;
        if protocol == ROUTING && segments_left > 0 {
            return Ok(Chain::Upper { protocol, offset });
        }
        protocol = next;
        offset += 8 + usize::from(length) * 8;
    }
    Err(Malformed::ExtensionHeaders)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;

    #[test]
    fn chain_without_extension_headers_ends_at_once() {
        assert_eq!(follow_chain(TCP, &[]), Ok(Chain::Upper { protocol: TCP, offset: 0 }));
    }

    #[test]
    fn chain_skips_options_and_a_used_up_routing_header() {
        let mut payload = [0; 8 + 16 + 24];
        payload[0] = DESTINATION_OPTIONS;
        payload[8] = ROUTING;
        payload[9] = 1;
        payload[24] = TCP;
        payload[25] = 2;
        assert_eq!(follow_chain(HOP_BY_HOP, &payload), Ok(Chain::Upper { protocol: TCP, offset: 48 }));
    }

    #[test]
    fn chain_stops_at_a_routing_header_with_segments_left() {
        let payload = [TCP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(follow_chain(ROUTING, &payload), Ok(Chain::Upper { protocol: ROUTING, offset: 0 }));
    }

    #[test]
    fn chain_stops_at_a_fragment_header() {
        let payload = [FRAGMENT, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(follow_chain(DESTINATION_OPTIONS, &payload), Ok(Chain::Fragment));
    }

    #[test]
    fn chain_rejects_hop_by_hop_options_that_do_not_come_first() {
        let payload = [HOP_BY_HOP, 0, 0, 0, 0, 0, 0, 0, TCP, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(follow_chain(DESTINATION_OPTIONS, &payload), Err(Malformed::ExtensionHeaders));
    }

    #[test]
    fn chain_rejects_a_header_that_is_cut_off() {
        assert_eq!(follow_chain(HOP_BY_HOP, &[TCP, 0, 0, 0]), Err(Malformed::ExtensionHeaders));
    }

    #[test]
    fn chain_is_followed_for_a_bounded_number_of_headers() {
        let mut payload = [0; 8 * (EXTENSION_HEADERS_MAX + 1)];
        for header in payload.as_chunks_mut::<8>().0 {
            header[0] = DESTINATION_OPTIONS;
        }
        payload[8 * (EXTENSION_HEADERS_MAX - 1)] = TCP;
        let end = Chain::Upper { protocol: TCP, offset: 8 * EXTENSION_HEADERS_MAX };
        assert_eq!(follow_chain(DESTINATION_OPTIONS, &payload), Ok(end));
        payload[8 * (EXTENSION_HEADERS_MAX - 1)] = DESTINATION_OPTIONS;
        assert_eq!(follow_chain(DESTINATION_OPTIONS, &payload), Err(Malformed::ExtensionHeaders));
    }
}
