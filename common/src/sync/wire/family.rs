//! The two address families as they stand on the wire.

use super::RecordType;
use super::entry::{Entry, Groups};
use crate::flow::{Address, Endpoint, address_words};
use crate::sync::Reject;
use crate::sync::address;

/// An address of one family, in network byte order: `[u8; 4]` or `[u8; 16]`.
pub(super) trait WireAddress: Copy {
    /// How a dictionary entry of an address is written.
    const ADDRESS: Groups;
    /// How one of an address, a port and one byte more is written.
    const ENDPOINT: Groups;
    /// Services, real servers, local addresses.
    const DICTIONARIES: [RecordType; 3];
    const UPSERT: RecordType;
    const DELETE: RecordType;
    const REFRESH: RecordType;

    /// The address, if it is one of this family: an IPv4 address has one encoding only.
    fn to_address(self) -> Option<Address>;

    /// The [`address_words`] of the address, if packets can come from it.
    fn to_unicast_words(self) -> Option<[u64; 2]>;

    /// An address of this family as it stands on the wire.
    fn from_address(address: &Address) -> Option<Self>;

    /// A dictionary entry of an address, a port and one byte more.
    fn entry(self, port: u16, byte: u8) -> Entry;

    /// What [`entry`](WireAddress::entry) was made of.
    fn of_entry(entry: &Entry) -> (Self, u16, u8);

    /// The address, if packets can come from it.
    #[inline]
    fn to_unicast(self) -> Option<Address> {
        self.to_address().filter(address::is_unicast)
    }
}

impl WireAddress for [u8; 4] {
    const ADDRESS: Groups = Groups::V4;
    const ENDPOINT: Groups = Groups::V4_ENDPOINT;
    const DICTIONARIES: [RecordType; 3] =
        [RecordType::ServicesV4, RecordType::ServersV4, RecordType::LocalsV4];
    const UPSERT: RecordType = RecordType::UpsertV4;
    const DELETE: RecordType = RecordType::DeleteV4;
    const REFRESH: RecordType = RecordType::RefreshV4;

    #[inline]
    fn to_address(self) -> Option<Address> {
        Some(Address::v4(self))
    }

    #[inline(always)]
    fn to_unicast_words(self) -> Option<[u64; 2]> {
        // Never in bytes: what was just put together from them would stall whoever reads it as words.
        let words = [0, u64::from_be(0xffff << 32 | u64::from(u32::from_be_bytes(self)))];
        (self[0] != 0 && self[0] < 224).then_some(words)
    }

    #[inline]
    fn from_address(address: &Address) -> Option<[u8; 4]> {
        address.to_v4()
    }

    #[inline]
    fn entry(self, port: u16, byte: u8) -> Entry {
        [u64::from(u32::from_le_bytes(self)) | u64::from(port) << 32 | u64::from(byte) << 48, 0, 0]
    }

    #[inline]
    fn of_entry(entry: &Entry) -> ([u8; 4], u16, u8) {
        ((entry[0] as u32).to_le_bytes(), (entry[0] >> 32) as u16, (entry[0] >> 48) as u8)
    }
}

impl WireAddress for [u8; 16] {
    const ADDRESS: Groups = Groups::V6;
    const ENDPOINT: Groups = Groups::V6_ENDPOINT;
    const DICTIONARIES: [RecordType; 3] =
        [RecordType::ServicesV6, RecordType::ServersV6, RecordType::LocalsV6];
    const UPSERT: RecordType = RecordType::UpsertV6;
    const DELETE: RecordType = RecordType::DeleteV6;
    const REFRESH: RecordType = RecordType::RefreshV6;

    #[inline]
    fn to_address(self) -> Option<Address> {
        let address = Address::v6(self);
        (!address.is_v4()).then_some(address)
    }

    #[inline(always)]
    fn to_unicast_words(self) -> Option<[u64; 2]> {
        self.to_unicast().map(address_words)
    }

    #[inline]
    fn from_address(address: &Address) -> Option<[u8; 16]> {
        (!address.is_v4()).then_some(address.0)
    }

    #[inline]
    fn entry(self, port: u16, byte: u8) -> Entry {
        let address = u128::from_le_bytes(self);
        [address as u64, (address >> 64) as u64, u64::from(port) | u64::from(byte) << 16]
    }

    #[inline]
    fn of_entry(entry: &Entry) -> ([u8; 16], u16, u8) {
        let address = u128::from(entry[0]) | u128::from(entry[1]) << 64;
        (address.to_le_bytes(), entry[2] as u16, (entry[2] >> 16) as u8)
    }
}

/// An endpoint that packets can come from.
#[inline]
pub(super) fn any_port<A: WireAddress>(address: A, port: u16) -> Result<Endpoint, Reject> {
    let address = address.to_unicast().ok_or(Reject::RecordField)?;
    Ok(Endpoint { address, port })
}

/// An endpoint that packets can go to: its port is not zero.
#[inline]
pub(super) fn some_port<A: WireAddress>(address: A, port: u16) -> Result<Endpoint, Reject> {
    if port == 0 { Err(Reject::RecordField) } else { any_port(address, port) }
}
