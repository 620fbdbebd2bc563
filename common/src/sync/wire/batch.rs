//! The batch: records gathered for one datagram.

use thiserror::Error;
use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes};

use super::control::{
    CreditItem, EpochHeardItem, HelloItem, NackItem, RangeBeginItem, RangeDigestItem, RangeEndItem,
    RangeRequestItem, SoughtItem,
};
use super::family::WireAddress;
use super::header::{HEADER_BYTES, Header};
use super::item::{DeleteItem, GenerationBase, RefreshItem, Standing, UpsertItem};
use super::runs::{RUN_HEADER_BYTES_MAX, Runs};
use super::vocabulary::{Name, RouteName, ServiceName, Vocabulary};
use super::{Body, Ended, RecordType, Refreshed, Remaining, Reported, Sought};
use crate::sync::address::protocol_of;

/// The smallest limit for datagrams within which every record fits, bytes.
pub const DATAGRAM_BYTES_MIN: usize = HEADER_BYTES
    + Vocabulary::<16>::BYTES_OF_ONE_RECORD_MAX
    + RUN_HEADER_BYTES_MAX
    + size_of::<UpsertItem<16>>();

/// The largest payload of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Room for what encryption adds, so that it need not allocate.
const SEAL_BYTES_MAX: usize = 64;

/// Why a record was not added to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// It needs more room than is left: send the datagram, clear the batch and try again.
    #[error("no room left in the datagram")]
    Full,
    /// It cannot be encoded at all.
    #[error("the session has addresses of both families")]
    MixedFamilies,
}

/// Records gathered for one datagram. Allocates only when it is made.
#[derive(Debug)]
pub struct BatchWriter {
    runs: Runs,
    v4: Vocabulary<4>,
    v6: Vocabulary<16>,
    datagram: Vec<u8>,
}

impl BatchWriter {
    /// An empty batch for datagrams of at most `datagram_bytes_max`, but never too small for one record; see
    /// [`payload_bytes_max`](super::payload_bytes_max).
    pub fn new(datagram_bytes_max: usize) -> BatchWriter {
        let datagram_bytes_max = datagram_bytes_max.clamp(DATAGRAM_BYTES_MIN, DATAGRAM_BYTES_MAX);
        BatchWriter {
            runs: Runs::new(datagram_bytes_max),
            v4: Vocabulary::new(),
            v6: Vocabulary::new(),
            datagram: Vec::with_capacity(datagram_bytes_max + SEAL_BYTES_MAX),
        }
    }

    /// Changes how long datagrams may be, within what there is room for, from the next record on.
    pub fn set_limit(&mut self, datagram_bytes_max: usize) {
        let room = self.datagram.capacity().saturating_sub(SEAL_BYTES_MAX).max(DATAGRAM_BYTES_MIN);
        self.runs.set_limit(datagram_bytes_max.clamp(DATAGRAM_BYTES_MIN, room));
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Nothing was added; see [`PushError`].
    #[inline]
    pub fn push(&mut self, body: &Body) -> Result<(), PushError> {
        use RecordType::*;
        let BatchWriter { runs, v4, v6, .. } = self;
        let base = GenerationBase::ZERO;
        match body {
            Body::Upsert(reported) => self.push_upsert(reported),
            Body::Refresh(refreshed) => match refreshed.client.address.is_v4() {
                true => push_refresh(refreshed, v4, runs),
                false => push_refresh(refreshed, v6, runs),
            },
            Body::Delete(ended) => match ended.client.address.is_v4() {
                true => push_delete(ended, v4, runs),
                false => push_delete(ended, v6, runs),
            },
            Body::Hello(hello) => runs.push(Hello, base, &HelloItem::new(hello), 0),
            Body::RangeDigest(digest) => runs.push(RangeDigest, base, &RangeDigestItem::new(digest), 0),
            Body::RangeRequest(request) => runs.push(RangeRequest, base, &RangeRequestItem::new(request), 0),
            Body::Credit(credit) => runs.push(Credit, base, &CreditItem::new(credit), 0),
            Body::RangeBegin(begin) => runs.push(RangeBegin, base, &RangeBeginItem::new(begin), 0),
            Body::RangeEnd(end) => runs.push(RangeEnd, base, &RangeEndItem::new(end), 0),
            Body::Nack(nack) => runs.push(Nack, base, &NackItem::new(nack), 0),
            Body::EpochHeard(heard) => runs.push(EpochHeard, base, &EpochHeardItem::new(heard), 0),
            Body::Query(sought) => match sought.key.source.address.is_v4() {
                true => push_sought::<4>(QueryV4, sought, runs),
                false => push_sought::<16>(QueryV6, sought, runs),
            },
            Body::NotMine(sought) => match sought.key.source.address.is_v4() {
                true => push_sought::<4>(NotMineV4, sought, runs),
                false => push_sought::<16>(NotMineV6, sought, runs),
            },
        }
    }

    /// Adds a [`Body::Upsert`].
    ///
    /// # Errors
    /// Nothing was added; see [`PushError`].
    #[inline]
    pub fn push_upsert(&mut self, reported: &Reported) -> Result<(), PushError> {
        match reported.client.address.is_v4() {
            true => push_upsert(reported, &mut self.v4, &mut self.runs),
            false => push_upsert(reported, &mut self.v6, &mut self.runs),
        }
    }

    /// Records gathered so far.
    pub fn records(&self) -> u32 {
        self.runs.count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records() == 0
    }

    /// Whether another record like the last one would not fit, even if the datagram names all that it refers to already.
    pub fn is_full(&self) -> bool {
        self.runs.is_full()
    }

    /// The datagram: the header, what the records refer to, the records. It may be encrypted where it is. The batch stays
    /// as it is until [`clear`](BatchWriter::clear).
    pub fn datagram(&mut self, header: &Header) -> &mut Vec<u8> {
        self.datagram.clear();
        self.datagram.extend_from_slice(&header.encode());
        self.v4.write(&mut self.datagram);
        self.v6.write(&mut self.datagram);
        self.runs.write(&mut self.datagram);
        &mut self.datagram
    }

    /// Forgets the records.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.v4.clear();
        self.v6.clear();
    }
}

/// Adds an item that refers to `name`, whose entries are added to the vocabulary if they are new.
#[inline(always)]
fn push_news<const N: usize, M: Name<N>, I: IntoBytes + Immutable>(
    (kind, base): (RecordType, GenerationBase),
    name: M,
    vocabulary: &mut Vocabulary<N>,
    runs: &mut Runs,
    item: impl FnOnce(M::Numbers) -> I,
) -> Result<(), PushError>
where
    [u8; N]: WireAddress,
{
    let (marks, before) = (vocabulary.marks(), vocabulary.bytes());
    let numbers = name.numbers(vocabulary);
    let entries = vocabulary.bytes() - before;
    let pushed =
        numbers.ok_or(PushError::Full).and_then(|numbers| runs.push(kind, base, &item(numbers), entries));
    if pushed.is_err() {
        vocabulary.roll_back(marks);
    }
    pushed
}

#[inline]
fn push_upsert<const N: usize>(
    reported: &Reported,
    vocabulary: &mut Vocabulary<N>,
    runs: &mut Runs,
) -> Result<(), PushError>
where
    [u8; N]: WireAddress,
{
    let Reported { generation, state, remaining_ms, client, vip, local, server } = reported;
    let address = <[u8; N]>::from_address(&client.address).ok_or(PushError::MixedFamilies)?;
    let name =
        RouteName::<N>::new(vip, protocol_of(*state), server, local).ok_or(PushError::MixedFamilies)?;
    let run = (<[u8; N]>::UPSERT, GenerationBase::of(*generation));
    let local_port = U16::new(local.port);
    push_news(run, name, vocabulary, runs, |(server, local)| UpsertItem {
        client: address,
        client_port: U16::new(client.port),
        local_port,
        server,
        local,
        standing: Standing::new(*state, *generation),
        remaining: U16::new(Remaining::round_up(*remaining_ms).to_bits()),
    })
}

#[inline]
fn push_refresh<const N: usize>(
    refreshed: &Refreshed,
    vocabulary: &mut Vocabulary<N>,
    runs: &mut Runs,
) -> Result<(), PushError>
where
    [u8; N]: WireAddress,
{
    let Refreshed { generation, state, remaining_ms, client, vip } = refreshed;
    let address = <[u8; N]>::from_address(&client.address).ok_or(PushError::MixedFamilies)?;
    let name = ServiceName::new::<N>(vip, protocol_of(*state)).ok_or(PushError::MixedFamilies)?;
    let run = (<[u8; N]>::REFRESH, GenerationBase::of(*generation));
    push_news(run, name, vocabulary, runs, |service| RefreshItem {
        client: address,
        client_port: U16::new(client.port),
        service,
        standing: Standing::new(*state, *generation),
        remaining: U16::new(Remaining::round_up(*remaining_ms).to_bits()),
    })
}

fn push_delete<const N: usize>(
    ended: &Ended,
    vocabulary: &mut Vocabulary<N>,
    runs: &mut Runs,
) -> Result<(), PushError>
where
    [u8; N]: WireAddress,
{
    let Ended { generation, state, client, vip } = ended;
    let address = <[u8; N]>::from_address(&client.address).ok_or(PushError::MixedFamilies)?;
    let name = ServiceName::new::<N>(vip, protocol_of(*state)).ok_or(PushError::MixedFamilies)?;
    let run = (<[u8; N]>::DELETE, GenerationBase::of(*generation));
    push_news(run, name, vocabulary, runs, |service| DeleteItem {
        client: address,
        client_port: U16::new(client.port),
        service,
        standing: Standing::new(*state, *generation),
    })
}

fn push_sought<const N: usize>(kind: RecordType, sought: &Sought, runs: &mut Runs) -> Result<(), PushError>
where
    [u8; N]: WireAddress,
{
    let item = SoughtItem::<N>::new(sought).ok_or(PushError::MixedFamilies)?;
    runs.push(kind, GenerationBase::ZERO, &item, 0)
}
