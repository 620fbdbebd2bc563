//! The payloads of records, byte by byte, and what their fields may hold.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::extension;
use super::{Body, Ended, Record, Refreshed, Reported};
use crate::flow::{Address, Endpoint};
use crate::id::Generation;
use crate::session::SessionState;
use crate::sync::Reject;
use crate::sync::address::{self, Family};

/// An endpoint of one family: the address in network byte order, the port little-endian as every other number.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct WireEndpoint<const N: usize> {
    address: [u8; N],
    port: U16,
}

/// The payload of an upsert, before its extensions.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct UpsertLayout<const N: usize> {
    generation: U32,
    remaining_ms: U32,
    owner: U16,
    state: u8,
    client: WireEndpoint<N>,
    vip: WireEndpoint<N>,
    local: WireEndpoint<N>,
    server: WireEndpoint<N>,
}

/// The payload of a delete, before its extensions.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct DeleteLayout<const N: usize> {
    generation: U32,
    owner: U16,
    state: u8,
    client: WireEndpoint<N>,
    vip: WireEndpoint<N>,
}

/// The payload of a refresh, before its extensions.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RefreshLayout<const N: usize> {
    generation: U32,
    remaining_ms: U32,
    owner: U16,
    state: u8,
    client: WireEndpoint<N>,
    vip: WireEndpoint<N>,
}

const _: () = {
    assert!(size_of::<UpsertLayout<4>>() == 35 && size_of::<UpsertLayout<16>>() == 83);
    assert!(size_of::<DeleteLayout<4>>() == 19 && size_of::<DeleteLayout<16>>() == 43);
    assert!(size_of::<RefreshLayout<4>>() == 23 && size_of::<RefreshLayout<16>>() == 47);
    assert!(size_of::<DeleteLayout<4>>() + 4 == super::RECORD_BYTES_MIN);
    assert!(size_of::<UpsertLayout<16>>() + 4 == super::RECORD_BYTES_MAX);
};

/// The two families' addresses as they stand on the wire.
pub(super) trait WireAddress: Sized {
    fn to_address(self) -> Address;
    fn from_address(address: Address) -> Option<Self>;
    const FAMILY: Family;
}

impl WireAddress for [u8; 4] {
    const FAMILY: Family = Family::V4;

    fn to_address(self) -> Address {
        Address::v4(self)
    }

    fn from_address(address: Address) -> Option<[u8; 4]> {
        address.to_v4()
    }
}

impl WireAddress for [u8; 16] {
    const FAMILY: Family = Family::V6;

    fn to_address(self) -> Address {
        Address::v6(self)
    }

    fn from_address(address: Address) -> Option<[u8; 16]> {
        (!address.is_v4()).then_some(address.0)
    }
}

impl<const N: usize> WireEndpoint<N>
where
    [u8; N]: WireAddress,
{
    /// Any endpoint that packets can come from.
    fn decode_any_port(self) -> Result<Endpoint, Reject> {
        let address = self.address.to_address();
        let of_family = address.is_v4() == (<[u8; N]>::FAMILY == Family::V4);
        if !of_family || !address::is_unicast(&address) {
            return Err(Reject::RecordField);
        }
        Ok(Endpoint { address, port: self.port.get() })
    }

    /// An endpoint that packets can go to: its port is not zero.
    fn decode(self) -> Result<Endpoint, Reject> {
        let endpoint = self.decode_any_port()?;
        if endpoint.port == 0 { Err(Reject::RecordField) } else { Ok(endpoint) }
    }

    /// The endpoint, if it is of this family.
    fn encode(endpoint: Endpoint) -> Option<Self> {
        Some(WireEndpoint {
            address: <[u8; N]>::from_address(endpoint.address)?,
            port: U16::new(endpoint.port),
        })
    }
}

fn decode_state(state: u8) -> Result<SessionState, Reject> {
    SessionState::from_number(state).ok_or(Reject::RecordField)
}

/// The upsert that a payload holds.
pub(super) fn decode_upsert<const N: usize>(payload: &[u8]) -> Result<Record, Reject>
where
    [u8; N]: WireAddress,
{
    let (fields, tail) = UpsertLayout::<N>::read_from_prefix(payload).map_err(|_| Reject::RecordField)?;
    let body = Body::Upsert(Reported {
        generation: Generation(fields.generation.get()),
        state: decode_state(fields.state)?,
        remaining_ms: fields.remaining_ms.get(),
        client: fields.client.decode_any_port()?,
        vip: fields.vip.decode()?,
        local: fields.local.decode()?,
        server: fields.server.decode()?,
    });
    Ok(Record { body, extensions_skipped: extension::skip_all(tail)? })
}

/// The delete that a payload holds.
pub(super) fn decode_delete<const N: usize>(payload: &[u8]) -> Result<Record, Reject>
where
    [u8; N]: WireAddress,
{
    let (fields, tail) = DeleteLayout::<N>::read_from_prefix(payload).map_err(|_| Reject::RecordField)?;
    let body = Body::Delete(Ended {
        generation: Generation(fields.generation.get()),
        state: decode_state(fields.state)?,
        client: fields.client.decode_any_port()?,
        vip: fields.vip.decode()?,
    });
    Ok(Record { body, extensions_skipped: extension::skip_all(tail)? })
}

/// The refresh that a payload holds.
pub(super) fn decode_refresh<const N: usize>(payload: &[u8]) -> Result<Record, Reject>
where
    [u8; N]: WireAddress,
{
    let (fields, tail) = RefreshLayout::<N>::read_from_prefix(payload).map_err(|_| Reject::RecordField)?;
    let body = Body::Refresh(Refreshed {
        generation: Generation(fields.generation.get()),
        state: decode_state(fields.state)?,
        remaining_ms: fields.remaining_ms.get(),
        client: fields.client.decode_any_port()?,
        vip: fields.vip.decode()?,
    });
    Ok(Record { body, extensions_skipped: extension::skip_all(tail)? })
}

/// The payload of an upsert, if its endpoints are of this family.
pub(super) fn upsert_layout<const N: usize>(reported: &Reported) -> Option<UpsertLayout<N>>
where
    [u8; N]: WireAddress,
{
    Some(UpsertLayout {
        generation: U32::new(reported.generation.0),
        remaining_ms: U32::new(reported.remaining_ms),
        owner: U16::ZERO,
        state: reported.state as u8,
        client: WireEndpoint::encode(reported.client)?,
        vip: WireEndpoint::encode(reported.vip)?,
        local: WireEndpoint::encode(reported.local)?,
        server: WireEndpoint::encode(reported.server)?,
    })
}

/// The payload of a delete, if its endpoints are of this family.
pub(super) fn delete_layout<const N: usize>(ended: &Ended) -> Option<DeleteLayout<N>>
where
    [u8; N]: WireAddress,
{
    Some(DeleteLayout {
        generation: U32::new(ended.generation.0),
        owner: U16::ZERO,
        state: ended.state as u8,
        client: WireEndpoint::encode(ended.client)?,
        vip: WireEndpoint::encode(ended.vip)?,
    })
}

/// The payload of a refresh, if its endpoints are of this family.
pub(super) fn refresh_layout<const N: usize>(refreshed: &Refreshed) -> Option<RefreshLayout<N>>
where
    [u8; N]: WireAddress,
{
    Some(RefreshLayout {
        generation: U32::new(refreshed.generation.0),
        remaining_ms: U32::new(refreshed.remaining_ms),
        owner: U16::ZERO,
        state: refreshed.state as u8,
        client: WireEndpoint::encode(refreshed.client)?,
        vip: WireEndpoint::encode(refreshed.vip)?,
    })
}
