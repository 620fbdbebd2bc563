//! Records: what a datagram consists of after its header. Each has a type, flags, a length, and items of the type's size.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::control::{
    CreditItem, EpochHeardItem, HelloItem, NackItem, RangeBeginItem, RangeDigestItem, RangeEndItem,
    RangeRequestItem, SoughtItem,
};
use super::item::{DeleteItem, RefreshItem, UpsertItem};

/// Set in a record's flags if a receiver that does not know its type must count it as rejected, not skipped.
pub(super) const FLAG_MANDATORY: u8 = 0x01;

/// Set if the upper bits of the items' generations stand before the first item. Without it they are zero.
pub(super) const FLAG_GENERATION: u8 = 0x02;

/// Set if there is one item only, with extensions behind it.
pub(super) const FLAG_EXTENDED: u8 = 0x04;

macro_rules! record_types {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $bytes:expr;)+) => {
        /// The types of records. The numbers stand on the wire and are never given to another type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RecordType {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl RecordType {
            /// Every type that this version knows.
            pub const ALL: &[RecordType] = &[$(RecordType::$name),+];

            /// The type with this number, if this version knows it.
            #[inline]
            pub const fn from_number(number: u8) -> Option<RecordType> {
                match number {
                    $($number => Some(RecordType::$name),)+
                    _ => None,
                }
            }

            /// Bytes of one item; 0 for a dictionary, whose entries vary.
            #[inline]
            pub const fn item_bytes(self) -> usize {
                match self { $(RecordType::$name => $bytes,)+ }
            }
        }
    };
}

record_types! {
    /// Dictionary: services, IPv4.
    ServicesV4 = 1, 0;
    /// Dictionary: services, IPv6.
    ServicesV6 = 2, 0;
    /// Dictionary: real servers, IPv4.
    ServersV4 = 3, 0;
    /// Dictionary: real servers, IPv6.
    ServersV6 = 4, 0;
    /// Dictionary: local addresses, IPv4.
    LocalsV4 = 5, 0;
    /// Dictionary: local addresses, IPv6.
    LocalsV6 = 6, 0;
    /// [`Body::Upsert`](super::Body::Upsert), IPv4.
    UpsertV4 = 16, size_of::<UpsertItem<4>>();
    /// [`Body::Upsert`](super::Body::Upsert), IPv6.
    UpsertV6 = 17, size_of::<UpsertItem<16>>();
    /// [`Body::Delete`](super::Body::Delete), IPv4.
    DeleteV4 = 18, size_of::<DeleteItem<4>>();
    /// [`Body::Delete`](super::Body::Delete), IPv6.
    DeleteV6 = 19, size_of::<DeleteItem<16>>();
    /// [`Body::Refresh`](super::Body::Refresh), IPv4.
    RefreshV4 = 20, size_of::<RefreshItem<4>>();
    /// [`Body::Refresh`](super::Body::Refresh), IPv6.
    RefreshV6 = 21, size_of::<RefreshItem<16>>();
    /// [`Body::Hello`](super::Body::Hello).
    Hello = 32, size_of::<HelloItem>();
    /// [`Body::RangeDigest`](super::Body::RangeDigest).
    RangeDigest = 33, size_of::<RangeDigestItem>();
    /// [`Body::RangeRequest`](super::Body::RangeRequest).
    RangeRequest = 34, size_of::<RangeRequestItem>();
    /// [`Body::Credit`](super::Body::Credit).
    Credit = 35, size_of::<CreditItem>();
    /// [`Body::RangeBegin`](super::Body::RangeBegin).
    RangeBegin = 36, size_of::<RangeBeginItem>();
    /// [`Body::RangeEnd`](super::Body::RangeEnd).
    RangeEnd = 37, size_of::<RangeEndItem>();
    /// [`Body::Query`](super::Body::Query), IPv4.
    QueryV4 = 38, size_of::<SoughtItem<4>>();
    /// [`Body::Query`](super::Body::Query), IPv6.
    QueryV6 = 39, size_of::<SoughtItem<16>>();
    /// [`Body::NotMine`](super::Body::NotMine), IPv4.
    NotMineV4 = 40, size_of::<SoughtItem<4>>();
    /// [`Body::NotMine`](super::Body::NotMine), IPv6.
    NotMineV6 = 41, size_of::<SoughtItem<16>>();
    /// [`Body::Nack`](super::Body::Nack).
    Nack = 42, size_of::<NackItem>();
    /// [`Body::EpochHeard`](super::Body::EpochHeard).
    EpochHeard = 43, size_of::<EpochHeardItem>();
}

impl RecordType {
    /// Whether its items are entries that other records refer to.
    pub(super) const fn is_dictionary(self) -> bool {
        self.item_bytes() == 0
    }

    /// Whether its items are news of sessions, which have a generation.
    pub(super) const fn is_news(self) -> bool {
        matches!(self as u8, 16..=21)
    }

    /// The flags that it may have.
    pub(super) const fn flags(self) -> u8 {
        if self.is_dictionary() {
            FLAG_MANDATORY
        } else if self.is_news() {
            FLAG_MANDATORY | FLAG_GENERATION | FLAG_EXTENDED
        } else {
            FLAG_MANDATORY | FLAG_EXTENDED
        }
    }
}

/// Bytes of a record's header.
pub(super) const RECORD_HEADER_BYTES: usize = 4;

/// What stands before every record.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RecordHeader {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Bytes of the payload that follows.
    pub(super) length: U16,
}

const _: () = assert!(size_of::<RecordHeader>() == RECORD_HEADER_BYTES);

impl RecordHeader {
    /// The header of a record that must be understood.
    pub(super) fn new(kind: RecordType, flags: u8, length: usize) -> RecordHeader {
        RecordHeader { kind: kind as u8, flags: flags | FLAG_MANDATORY, length: U16::new(length as u16) }
    }
}
