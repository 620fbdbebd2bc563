//! Records: one session's news each, with owner and generation in every one.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Body, Record, layout};
use crate::sync::Reject;

/// Set in a record's flags if a receiver that does not know its type must count it as rejected, not skipped.
const FLAG_MANDATORY: u8 = 0x01;

/// The types of records. The numbers stand on the wire and are never given to another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordType {
    /// [`Body::Upsert`], IPv4.
    UpsertV4 = 1,
    /// [`Body::Upsert`], IPv6.
    UpsertV6 = 2,
    /// [`Body::Delete`], IPv4.
    DeleteV4 = 3,
    /// [`Body::Delete`], IPv6.
    DeleteV6 = 4,
    /// [`Body::Refresh`], IPv4.
    RefreshV4 = 5,
    /// [`Body::Refresh`], IPv6.
    RefreshV6 = 6,
}

impl RecordType {
    /// The type with this number, if this version knows it.
    pub fn from_number(number: u8) -> Option<RecordType> {
        use RecordType::*;
        [UpsertV4, UpsertV6, DeleteV4, DeleteV6, RefreshV4, RefreshV6]
            .into_iter()
            .find(|known| *known as u8 == number)
    }
}

/// What stands before every record.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RecordHeader {
    kind: u8,
    flags: u8,
    /// Bytes of the payload that follows.
    length: U16,
}

const _: () = assert!(size_of::<RecordHeader>() == 4);

fn decode_record(header: RecordHeader, payload: &[u8]) -> Result<Record, Reject> {
    let Some(kind) = RecordType::from_number(header.kind) else {
        let mandatory = header.flags & FLAG_MANDATORY != 0;
        return Err(if mandatory { Reject::RecordType } else { Reject::SkippedRecord });
    };
    if header.flags & !FLAG_MANDATORY != 0 {
        return Err(Reject::RecordField);
    }
    match kind {
        RecordType::UpsertV4 => layout::decode_upsert::<4>(payload),
        RecordType::UpsertV6 => layout::decode_upsert::<16>(payload),
        RecordType::DeleteV4 => layout::decode_delete::<4>(payload),
        RecordType::DeleteV6 => layout::decode_delete::<16>(payload),
        RecordType::RefreshV4 => layout::decode_refresh::<4>(payload),
        RecordType::RefreshV6 => layout::decode_refresh::<16>(payload),
    }
}

/// The records of a datagram, in order. `bytes` is what [`Header::decode`](super::Header::decode) left over.
///
/// A bad record costs only itself, except that after `RecordLength` nothing more can be found. At most one item for every
/// four bytes.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record, Reject>> + use<'_> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let found = RecordHeader::read_from_prefix(rest).ok().and_then(|(header, after)| {
            let (payload, next) = after.split_at_checked(usize::from(header.length.get()))?;
            Some((header, payload, next))
        });
        let Some((header, payload, next)) = found else {
            rest = &[];
            return Some(Err(Reject::RecordLength));
        };
        rest = next;
        Some(decode_record(header, payload))
    })
}

impl Body {
    /// Appends the record, its header included, to `bytes`. `None`, and nothing appended, if the endpoints are of both
    /// families.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) -> Option<()> {
        match self {
            Body::Upsert(reported) => match reported.client.address.is_v4() {
                true => append(bytes, RecordType::UpsertV4, &layout::upsert_layout::<4>(reported)?),
                false => append(bytes, RecordType::UpsertV6, &layout::upsert_layout::<16>(reported)?),
            },
            Body::Delete(ended) => match ended.client.address.is_v4() {
                true => append(bytes, RecordType::DeleteV4, &layout::delete_layout::<4>(ended)?),
                false => append(bytes, RecordType::DeleteV6, &layout::delete_layout::<16>(ended)?),
            },
            Body::Refresh(refreshed) => match refreshed.client.address.is_v4() {
                true => append(bytes, RecordType::RefreshV4, &layout::refresh_layout::<4>(refreshed)?),
                false => append(bytes, RecordType::RefreshV6, &layout::refresh_layout::<16>(refreshed)?),
            },
            _ => return None,
        }
        Some(())
    }
}

fn append(bytes: &mut Vec<u8>, kind: RecordType, payload: &(impl IntoBytes + Immutable)) {
    let payload = payload.as_bytes();
    let length = U16::new(payload.len() as u16);
    bytes.extend_from_slice(RecordHeader { kind: kind as u8, flags: FLAG_MANDATORY, length }.as_bytes());
    bytes.extend_from_slice(payload);
}
