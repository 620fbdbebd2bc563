//! The TCP header (RFC 9293) and its flags.

use std::fmt;
use std::ops::BitOr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Malformed;

/// Bytes of a TCP header without options.
pub const HEADER_LEN: usize = size_of::<TcpHeader>();

/// The fixed part of a TCP header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Header length in units of 4 bytes (4 bits), reserved (4 bits).
    pub data_offset: u8,
    /// Flags, as [`TcpFlags`] names them.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Over pseudo header, header and payload.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

const _: () = assert!(HEADER_LEN == 20);

impl TcpHeader {
    /// Bytes of the header with its options, as it says itself.
    #[inline]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }

    /// The header at the start of `segment`, once its length is found right.
    ///
    /// # Errors
    /// What is wrong first.
    #[inline]
    pub fn check(segment: &[u8]) -> Result<&TcpHeader, Malformed> {
        let (header, _) = TcpHeader::ref_from_prefix(segment).map_err(|_| Malformed::TransportTruncated)?;
        if header.header_len() < HEADER_LEN || header.header_len() > segment.len() {
            return Err(Malformed::TcpHeaderLength);
        }
        Ok(header)
    }
}

/// The flags of a TCP header.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No flag.
    pub const NONE: TcpFlags = TcpFlags(0);
    /// The sender has no more data.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Sequence numbers are to be synchronised.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// The connection is reset.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Data is to be handed on at once.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is valid.
    pub const URG: TcpFlags = TcpFlags(0x20);

    /// Whether all of `flags` are set.
    #[inline]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub const fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Whether a packet with these flags opens a connection: SYN without ACK, RST or FIN.
    #[inline]
    pub const fn opens(self) -> bool {
        self.contains(TcpFlags::SYN) && !self.intersects(TcpFlags(0x10 | 0x04 | 0x01))
    }
}

impl BitOr for TcpFlags {
    type Output = TcpFlags;

    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "|";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(TcpFlags::SYN.opens());
        assert!((TcpFlags::SYN | TcpFlags(0xc0)).opens(), "ECE and CWR ask for ECN (RFC 3168)");
        for other in [TcpFlags::ACK, TcpFlags::RST, TcpFlags::FIN] {
            assert!(!(TcpFlags::SYN | other).opens(), "{other:?}");
            assert!(!other.opens(), "{other:?}");
        }
        assert!(!TcpFlags::NONE.opens());
    }

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(format!("{:?}", TcpFlags::SYN | TcpFlags::ACK), "SYN|ACK");
        assert_eq!(format!("{:?}", TcpFlags::NONE), "none");
    }

    #[test]
    fn header_length_is_compared_with_the_segment() {
        let mut segment = [0; 24];
        segment[12] = 0x60;
        assert!(TcpHeader::check(&segment).is_ok());
        assert_eq!(TcpHeader::check(&segment[..23]).unwrap_err(), Malformed::TcpHeaderLength);
        assert_eq!(TcpHeader::check(&segment[..19]).unwrap_err(), Malformed::TransportTruncated);
        segment[12] = 0x40;
        assert_eq!(TcpHeader::check(&segment).unwrap_err(), Malformed::TcpHeaderLength);
    }
}
