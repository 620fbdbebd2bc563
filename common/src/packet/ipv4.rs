//! The IPv4 header (RFC 791).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;
use super::checksum::Sum;

/// Bytes of an IPv4 header without options.
pub const HEADER_LEN: usize = size_of::<Ipv4Header>();

/// Set in `flags_and_offset`: the packet must not be fragmented.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// Set in `flags_and_offset`: more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;

/// The bits of `flags_and_offset` that tell where a fragment belongs, in units of 8 bytes.
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The fixed part of an IPv4 header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits), header length in units of 4 bytes (4 bits).
    pub version_and_length: u8,
    /// DSCP (6 bits), ECN (2 bits).
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_length: U16,
    /// Names the packet among its fragments.
    pub identification: U16,
    /// Flags (3 bits), fragment offset (13 bits).
    pub flags_and_offset: U16,
    /// Hops left.
    pub ttl: u8,
    /// IANA's number of what is carried.
    pub protocol: u8,
    /// Over the header, options included.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

const _: () = assert!(HEADER_LEN == 20);

impl Ipv4Header {
    /// Bytes of the header with its options, as it says itself.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.version_and_length & 0x0f) as usize * 4
    }

    /// Whether the packet is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_offset.get() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// The 16-bit word of TTL and protocol, which a change of the TTL changes.
    #[inline]
    pub const fn ttl_word(&self) -> u16 {
        (self.ttl as u16) << 8 | self.protocol as u16
    }

    /// The header at the start of `packet`, once its version, lengths and checksum are found right.
    ///
    /// # Errors
    /// What is wrong first.
    #[inline]
    pub fn check(packet: &[u8]) -> Result<&Ipv4Header, Malformed> {
        let (header, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed::IpTruncated)?;
        if header.version_and_length >> 4 != 4 {
            return Err(Malformed::IpVersion);
        }
        let total = usize::from(header.total_length.get());
        if header.header_len() < HEADER_LEN || header.header_len() > total {
            return Err(Malformed::IpHeaderLength);
        }
        if total > packet.len() {
            return Err(Malformed::IpLength);
        }
        if Sum::new().bytes(&packet[..header.header_len()]).checksum() != 0 {
            return Err(Malformed::IpChecksum);
        }
        Ok(header)
    }
}
