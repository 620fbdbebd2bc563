//! The Ethernet header (IEEE 802.3).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A link-layer address, in the order in which it is sent.
pub type MacAddress = [u8; 6];

/// Bytes of an Ethernet header without a VLAN tag.
pub const HEADER_LEN: usize = size_of::<EthernetHeader>();

/// Type number of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// Type number of ARP (RFC 826).
pub const TYPE_ARP: u16 = 0x0806;
/// Type number of a VLAN tag (IEEE 802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// Type number of IPv6 (RFC 2464).
pub const TYPE_IPV6: u16 = 0x86dd;

/// An Ethernet header without a VLAN tag.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// Where the frame goes to.
    pub destination: MacAddress,
    /// Where the frame comes from.
    pub source: MacAddress,
    /// What it carries.
    pub ether_type: U16,
}

const _: () = assert!(HEADER_LEN == 14);

impl EthernetHeader {
    /// The header of a frame, if it is long enough.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<&EthernetHeader> {
        EthernetHeader::ref_from_prefix(frame).ok().map(|(header, _)| header)
    }
}

/// Whether an address is a group's (multicast or broadcast) and not one station's.
#[inline]
pub const fn is_group(mac: &MacAddress) -> bool {
    mac[0] & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_of_a_short_frame_is_none() {
        assert!(EthernetHeader::of(&[0; 13]).is_none());
        assert!(EthernetHeader::of(&[0; 14]).is_some());
    }

    #[test]
    fn broadcast_and_multicast_are_groups() {
        assert!(is_group(&[0xff; 6]));
        assert!(is_group(&[0x33, 0x33, 0, 0, 0, 1]));
        assert!(!is_group(&[0x02, 0xba, 0x70, 0, 0, 1]));
    }
}
