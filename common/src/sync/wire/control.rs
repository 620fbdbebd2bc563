//! What secondaries say to each other about anything but single sessions' news, byte by byte.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::family::{WireAddress, any_port, some_port};
use super::{
    Credit, DATAGRAM_BYTES_MIN, EpochHeard, Hello, Nack, NodeState, RangeBegin, RangeDigest, RangeEnd,
    RangeId, RangeRequest, Sought, StreamId,
};
use crate::flow::{FlowKey, Protocol};
use crate::session::Direction;
use crate::sync::Reject;

macro_rules! items {
    ($($(#[doc = $doc:literal])+ $name:ident $(<$size:ident>)? { $($field:ident: $kind:ty,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(super) struct $name $(<const $size: usize>)? { $($field: $kind,)+ }
    )+};
}

items! {
    /// A hello.
    HelloItem {
        wants_answer: u8,
        version: u8,
        state: u8,
        reserved: u8,
        datagram_bytes_max: U16,
        config_digest: U64,
        sessions_owned: U32,
        sessions_held: U32,
    }
    /// A range's digest.
    RangeDigestItem { range: U16, sessions: U32, digest: U64, }
    /// A request for ranges.
    RangeRequestItem { first: U16, count: U16, nonce: U32, }
    /// A credit.
    CreditItem { stream: u8, until: U64, }
    /// A range's begin.
    RangeBeginItem { range: U16, nonce: U32, }
    /// A range's end.
    RangeEndItem { range: U16, nonce: U32, sessions: U32, }
    /// A query, or the answer that the session is not the sender's.
    SoughtItem<N> {
        source: [u8; N],
        destination: [u8; N],
        source_port: U16,
        destination_port: U16,
        protocol: u8,
        direction: u8,
    }
    /// Missing datagrams.
    NackItem { stream: u8, first: U64, count: U16, }
    /// An epoch.
    EpochHeardItem { boot_epoch: U64, }
}

const _: () = {
    assert!(size_of::<HelloItem>() == 22 && size_of::<RangeDigestItem>() == 14);
    assert!(size_of::<RangeRequestItem>() == 8 && size_of::<CreditItem>() == 9);
    assert!(size_of::<RangeBeginItem>() == 6 && size_of::<RangeEndItem>() == 10);
    assert!(size_of::<SoughtItem<4>>() == 14 && size_of::<SoughtItem<16>>() == 38);
    assert!(size_of::<NackItem>() == 11 && size_of::<EpochHeardItem>() == 8);
};

const INBOUND: u8 = 1;
const OUTBOUND: u8 = 2;

fn stream(number: u8) -> Result<StreamId, Reject> {
    StreamId::from_number(number).ok_or(Reject::RecordField)
}

/// The item if its fields are in range.
fn checked<T>(in_range: bool, item: T) -> Result<T, Reject> {
    if in_range { Ok(item) } else { Err(Reject::RecordField) }
}

impl HelloItem {
    pub(super) fn new(hello: &Hello) -> HelloItem {
        HelloItem {
            wants_answer: hello.wants_answer.into(),
            version: hello.version,
            state: hello.state as u8,
            reserved: 0,
            datagram_bytes_max: U16::new(hello.datagram_bytes_max),
            config_digest: U64::new(hello.config_digest),
            sessions_owned: U32::new(hello.sessions_owned),
            sessions_held: U32::new(hello.sessions_held),
        }
    }

    pub(super) fn decode(self) -> Result<Hello, Reject> {
        let datagram_bytes_max = self.datagram_bytes_max.get();
        let in_range = self.wants_answer <= 1
            && self.version != 0
            && self.reserved == 0
            && usize::from(datagram_bytes_max) >= DATAGRAM_BYTES_MIN;
        checked(
            in_range,
            Hello {
                wants_answer: self.wants_answer == 1,
                version: self.version,
                state: NodeState::from_number(self.state).ok_or(Reject::RecordField)?,
                datagram_bytes_max,
                config_digest: self.config_digest.get(),
                sessions_owned: self.sessions_owned.get(),
                sessions_held: self.sessions_held.get(),
            },
        )
    }
}

impl RangeDigestItem {
    pub(super) fn new(of: &RangeDigest) -> RangeDigestItem {
        RangeDigestItem {
            range: U16::new(of.range.0),
            sessions: U32::new(of.sessions),
            digest: U64::new(of.digest),
        }
    }

    pub(super) fn decode(self) -> RangeDigest {
        RangeDigest {
            range: RangeId(self.range.get()),
            sessions: self.sessions.get(),
            digest: self.digest.get(),
        }
    }
}

impl RangeRequestItem {
    pub(super) fn new(request: &RangeRequest) -> RangeRequestItem {
        RangeRequestItem {
            first: U16::new(request.first.0),
            count: U16::new(request.count),
            nonce: U32::new(request.nonce),
        }
    }

    pub(super) fn decode(self) -> Result<RangeRequest, Reject> {
        let (first, count) = (self.first.get(), self.count.get());
        checked(
            count != 0 && first.checked_add(count - 1).is_some(),
            RangeRequest { first: RangeId(first), count, nonce: self.nonce.get() },
        )
    }
}

impl CreditItem {
    pub(super) fn new(credit: &Credit) -> CreditItem {
        CreditItem { stream: credit.stream.number(), until: U64::new(credit.until) }
    }

    pub(super) fn decode(self) -> Result<Credit, Reject> {
        Ok(Credit { stream: stream(self.stream)?, until: self.until.get() })
    }
}

impl RangeBeginItem {
    pub(super) fn new(begin: &RangeBegin) -> RangeBeginItem {
        RangeBeginItem { range: U16::new(begin.range.0), nonce: U32::new(begin.nonce) }
    }

    pub(super) fn decode(self) -> RangeBegin {
        RangeBegin { range: RangeId(self.range.get()), nonce: self.nonce.get() }
    }
}

impl RangeEndItem {
    pub(super) fn new(end: &RangeEnd) -> RangeEndItem {
        RangeEndItem {
            range: U16::new(end.range.0),
            nonce: U32::new(end.nonce),
            sessions: U32::new(end.sessions),
        }
    }

    pub(super) fn decode(self) -> RangeEnd {
        RangeEnd { range: RangeId(self.range.get()), nonce: self.nonce.get(), sessions: self.sessions.get() }
    }
}

impl NackItem {
    pub(super) fn new(nack: &Nack) -> NackItem {
        NackItem { stream: nack.stream.number(), first: U64::new(nack.first), count: U16::new(nack.count) }
    }

    pub(super) fn decode(self) -> Result<Nack, Reject> {
        let (first, count) = (self.first.get(), self.count.get());
        checked(
            first != 0 && count != 0 && first.checked_add(u64::from(count) - 1).is_some(),
            Nack { stream: stream(self.stream)?, first, count },
        )
    }
}

impl EpochHeardItem {
    pub(super) fn new(heard: &EpochHeard) -> EpochHeardItem {
        EpochHeardItem { boot_epoch: U64::new(heard.boot_epoch) }
    }

    pub(super) fn decode(self) -> Result<EpochHeard, Reject> {
        let boot_epoch = self.boot_epoch.get();
        checked(boot_epoch != 0, EpochHeard { boot_epoch })
    }
}

impl<const N: usize> SoughtItem<N>
where
    [u8; N]: WireAddress,
{
    /// The item, if the key's addresses are of this family.
    pub(super) fn new(sought: &Sought) -> Option<SoughtItem<N>> {
        let FlowKey { source, destination, protocol } = &sought.key;
        Some(SoughtItem {
            source: <[u8; N]>::from_address(&source.address)?,
            destination: <[u8; N]>::from_address(&destination.address)?,
            source_port: U16::new(source.port),
            destination_port: U16::new(destination.port),
            protocol: *protocol as u8,
            direction: match sought.direction {
                Direction::Inbound => INBOUND,
                Direction::Outbound => OUTBOUND,
            },
        })
    }

    pub(super) fn decode(self) -> Result<Sought, Reject> {
        let (source_port, destination_port) = (self.source_port.get(), self.destination_port.get());
        let (direction, source) = match self.direction {
            INBOUND => (Direction::Inbound, any_port(self.source, source_port)?),
            OUTBOUND => (Direction::Outbound, some_port(self.source, source_port)?),
            _ => return Err(Reject::RecordField),
        };
        let key = FlowKey {
            source,
            destination: some_port(self.destination, destination_port)?,
            protocol: Protocol::from_number(self.protocol).ok_or(Reject::RecordField)?,
        };
        Ok(Sought { direction, key })
    }
}
