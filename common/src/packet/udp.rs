//! The UDP header (RFC 768).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Family, Malformed};

/// Bytes of a UDP header.
pub const HEADER_LEN: usize = size_of::<UdpHeader>();

/// A UDP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Bytes of header and payload.
    pub length: U16,
    /// Over pseudo header, header and payload; zero over IPv4 means none.
    pub checksum: U16,
}

const _: () = assert!(HEADER_LEN == 8);

impl UdpHeader {
    /// The header at the start of `segment`, the payload of the IP packet, once its length is found right. Bytes beyond
    /// that length are allowed.
    ///
    /// # Errors
    /// What is wrong first.
    #[inline]
    pub fn check(segment: &[u8], family: Family) -> Result<&UdpHeader, Malformed> {
        let (header, _) = UdpHeader::ref_from_prefix(segment).map_err(|_| Malformed::TransportTruncated)?;
        let length = usize::from(header.length.get());
        if length < HEADER_LEN || length > segment.len() {
            return Err(Malformed::UdpLength);
        }
        if family == Family::V6 && header.checksum.get() == 0 {
            return Err(Malformed::UdpChecksumMissing);
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_is_compared_with_the_packet() {
        assert!(UdpHeader::check(&[0, 1, 0, 2, 0, 8, 0, 0, 0xaa], Family::V4).is_ok());
        for length in [7, 10] {
            let segment = [0, 1, 0, 2, 0, length, 0, 0, 0xaa];
            assert_eq!(UdpHeader::check(&segment, Family::V4).unwrap_err(), Malformed::UdpLength);
        }
        assert_eq!(UdpHeader::check(&[0; 7], Family::V4).unwrap_err(), Malformed::TransportTruncated);
    }

    #[test]
    fn checksum_may_be_missing_over_ipv4_only() {
        let segment = [0, 1, 0, 2, 0, 8, 0, 0];
        assert!(UdpHeader::check(&segment, Family::V4).is_ok());
        assert_eq!(UdpHeader::check(&segment, Family::V6).unwrap_err(), Malformed::UdpChecksumMissing);
    }
}
