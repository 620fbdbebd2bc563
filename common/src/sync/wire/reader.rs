//! The reader: the records of a datagram, one item after another.

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::control::{
    CreditItem, EpochHeardItem, HelloItem, NackItem, RangeBeginItem, RangeDigestItem, RangeEndItem,
    RangeRequestItem, SoughtItem,
};
use super::dictionary::Dictionary;
use super::extension;
use super::item::{DeleteItem, GenerationBase, RefreshItem, UpsertItem};
use super::record::{FLAG_EXTENDED, FLAG_GENERATION, FLAG_MANDATORY, RecordHeader};
use super::{Body, Brief, Record, RecordType};
use crate::sync::Reject;

/// The dictionaries of the datagram that is being read.
#[derive(Debug)]
struct Dictionaries {
    v4: Dictionary<4>,
    v6: Dictionary<16>,
}

/// Reads datagrams. It keeps the dictionary of the one that it reads, and nothing from one to the next. Allocates once, when
/// it is made.
#[derive(Debug)]
pub struct Reader {
    dictionaries: Box<Dictionaries>,
}

impl Reader {
    /// A reader. One serves for any number of datagrams.
    #[inline(never)]
    pub fn new() -> Reader {
        Reader { dictionaries: Box::new(Dictionaries { v4: Dictionary::new(), v6: Dictionary::new() }) }
    }

    /// The records of a datagram, in order. `bytes` is what [`Header::decode`](super::Header::decode) left over.
    ///
    /// A bad record costs only itself, except that after `RecordLength` nothing more can be found. There are never more
    /// items than bytes.
    pub fn records<'a>(&'a mut self, bytes: &'a [u8]) -> Records<'a> {
        self.dictionaries.v4.clear();
        self.dictionaries.v6.clear();
        Records { dictionaries: &mut self.dictionaries, rest: bytes, run: Run::EMPTY }
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}

/// What is left of the record that is being read: items of one type.
#[derive(Clone, Copy, Debug)]
struct Run<'a> {
    items: &'a [u8],
    kind: RecordType,
    base: GenerationBase,
    extensions_skipped: u16,
}

impl Run<'_> {
    const EMPTY: Run<'static> =
        Run { items: &[], kind: RecordType::Hello, base: GenerationBase::ZERO, extensions_skipped: 0 };
}

/// The records of one datagram.
#[derive(Debug)]
pub struct Records<'a> {
    dictionaries: &'a mut Dictionaries,
    rest: &'a [u8],
    run: Run<'a>,
}

/// Upserts in a row, which have their header in common.
pub trait Upserts: Copy {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them, by its position.
    ///
    /// # Errors
    /// As those of the records of a datagram. There is none at this position.
    fn at(&self, position: usize) -> Result<Brief<'_>, Reject>;
}

/// A piece of a datagram.
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    /// Upserts of IPv4 sessions, without extensions.
    UpsertsV4(UpsertItems<'a, 4>),
    /// Upserts of IPv6 sessions, without extensions.
    UpsertsV6(UpsertItems<'a, 16>),
    /// One record, of any kind.
    Record(Record),
}

/// Upserts of one family in a row.
#[derive(Clone, Copy)]
pub struct UpsertItems<'a, const N: usize> {
    items: &'a [UpsertItem<N>],
    base: GenerationBase,
    dictionary: &'a Dictionary<N>,
}

macro_rules! upserts {
    ($($bytes:literal),+) => {
        $(impl Upserts for UpsertItems<'_, $bytes> {
            #[inline(always)]
            fn count(&self) -> usize {
                self.items.len()
            }

            #[inline(always)]
            fn at(&self, position: usize) -> Result<Brief<'_>, Reject> {
                self.items.get(position).ok_or(Reject::RecordSize)?.brief(self.base, self.dictionary)
            }
        })+
    };
}

upserts!(4, 16);

/// Takes an item off the front of `items`.
#[inline]
fn take<T: FromBytes>(items: &mut &[u8]) -> Result<T, Reject> {
    let Ok((item, rest)) = T::read_from_prefix(items) else {
        *items = &[];
        return Err(Reject::RecordSize);
    };
    *items = rest;
    Ok(item)
}

/// The items of a record whose type is known.
fn open<'a>(kind: RecordType, flags: u8, mut payload: &'a [u8]) -> Result<Run<'a>, Reject> {
    if flags & !kind.flags() != 0 {
        return Err(Reject::RecordField);
    }
    let mut run = Run { kind, ..Run::EMPTY };
    if flags & FLAG_GENERATION != 0 {
        let bits = take::<U32>(&mut payload)?.get();
        run.base = GenerationBase::from_bits(bits).ok_or(Reject::RecordField)?;
    }
    let item_bytes = kind.item_bytes().max(1);
    if flags & FLAG_EXTENDED != 0 {
        let (item, extensions) = payload.split_at_checked(item_bytes).ok_or(Reject::RecordSize)?;
        run.extensions_skipped = extension::skip_all(extensions)?;
        payload = item;
    }
    if payload.is_empty() || !payload.len().is_multiple_of(item_bytes) {
        return Err(Reject::RecordSize);
    }
    run.items = payload;
    Ok(run)
}

impl Records<'_> {
    /// What comes next: as many upserts as stand in a row, or one record of another kind.
    #[inline]
    pub fn next_piece(&mut self) -> Option<Result<Piece<'_>, Reject>> {
        loop {
            if let Err(reject) = self.enter()? {
                return Some(Err(reject));
            }
            let Run { items, kind, base, extensions_skipped } = self.run;
            let whole = extensions_skipped == 0;
            if whole
                && kind == RecordType::UpsertV4
                && let Ok(items) = <[UpsertItem<4>]>::ref_from_bytes(items)
            {
                self.run.items = &[];
                let dictionary = &self.dictionaries.v4;
                return Some(Ok(Piece::UpsertsV4(UpsertItems { items, base, dictionary })));
            }
            if whole
                && kind == RecordType::UpsertV6
                && let Ok(items) = <[UpsertItem<16>]>::ref_from_bytes(items)
            {
                self.run.items = &[];
                let dictionary = &self.dictionaries.v6;
                return Some(Ok(Piece::UpsertsV6(UpsertItems { items, base, dictionary })));
            }
            match self.next_item() {
                Ok(Some(body)) => return Some(Ok(Piece::Record(Record { body, extensions_skipped }))),
                Ok(None) => {}
                Err(reject) => return Some(Err(reject)),
            }
        }
    }

    /// Goes on to the next record if this one is through. `None` at the end of the datagram.
    #[inline(always)]
    fn enter(&mut self) -> Option<Result<(), Reject>> {
        match (self.run.items.is_empty(), self.rest.is_empty()) {
            (false, _) => Some(Ok(())),
            (true, true) => None,
            (true, false) => Some(self.next_run()),
        }
    }

    /// Goes on to the next record.
    #[inline(never)]
    fn next_run(&mut self) -> Result<(), Reject> {
        let found = RecordHeader::read_from_prefix(self.rest).ok().and_then(|(header, after)| {
            let (payload, next) = after.split_at_checked(usize::from(header.length.get()))?;
            Some((header, payload, next))
        });
        let Some((header, payload, next)) = found else {
            self.rest = &[];
            return Err(Reject::RecordLength);
        };
        self.rest = next;
        let Some(kind) = RecordType::from_number(header.kind) else {
            let mandatory = header.flags & FLAG_MANDATORY != 0;
            return Err(if mandatory { Reject::RecordType } else { Reject::SkippedRecord });
        };
        self.run = open(kind, header.flags, payload)?;
        Ok(())
    }

    /// Takes the next item of the record. `None` if it was a good dictionary entry, which tells nobody anything.
    #[inline(always)]
    fn next_item(&mut self) -> Result<Option<Body>, Reject> {
        let Records { dictionaries: Dictionaries { v4, v6 }, run, .. } = self;
        let (base, items) = (run.base, &mut run.items);
        Ok(Some(match run.kind {
            RecordType::UpsertV4 => Body::Upsert(take::<UpsertItem<4>>(items)?.decode(base, v4)?),
            RecordType::UpsertV6 => Body::Upsert(take::<UpsertItem<16>>(items)?.decode(base, v6)?),
            RecordType::RefreshV4 => Body::Refresh(take::<RefreshItem<4>>(items)?.decode(base, v4)?),
            RecordType::RefreshV6 => Body::Refresh(take::<RefreshItem<16>>(items)?.decode(base, v6)?),
            RecordType::DeleteV4 => Body::Delete(take::<DeleteItem<4>>(items)?.decode(base, v4)?),
            RecordType::DeleteV6 => Body::Delete(take::<DeleteItem<16>>(items)?.decode(base, v6)?),
            RecordType::ServicesV4 => return v4.read_service(items).map(|()| None),
            RecordType::ServicesV6 => return v6.read_service(items).map(|()| None),
            RecordType::ServersV4 => return v4.read_server(items).map(|()| None),
            RecordType::ServersV6 => return v6.read_server(items).map(|()| None),
            RecordType::LocalsV4 => return v4.read_local(items).map(|()| None),
            RecordType::LocalsV6 => return v6.read_local(items).map(|()| None),
            RecordType::Hello => Body::Hello(take::<HelloItem>(items)?.decode()?),
            RecordType::RangeDigest => Body::RangeDigest(take::<RangeDigestItem>(items)?.decode()),
            RecordType::RangeRequest => Body::RangeRequest(take::<RangeRequestItem>(items)?.decode()?),
            RecordType::Credit => Body::Credit(take::<CreditItem>(items)?.decode()?),
            RecordType::RangeBegin => Body::RangeBegin(take::<RangeBeginItem>(items)?.decode()),
            RecordType::RangeEnd => Body::RangeEnd(take::<RangeEndItem>(items)?.decode()),
            RecordType::QueryV4 => Body::Query(take::<SoughtItem<4>>(items)?.decode()?),
            RecordType::QueryV6 => Body::Query(take::<SoughtItem<16>>(items)?.decode()?),
            RecordType::NotMineV4 => Body::NotMine(take::<SoughtItem<4>>(items)?.decode()?),
            RecordType::NotMineV6 => Body::NotMine(take::<SoughtItem<16>>(items)?.decode()?),
            RecordType::Nack => Body::Nack(take::<NackItem>(items)?.decode()?),
            RecordType::EpochHeard => Body::EpochHeard(take::<EpochHeardItem>(items)?.decode()?),
        }))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Reject>;

    #[inline(always)]
    fn next(&mut self) -> Option<Result<Record, Reject>> {
        loop {
            if let Err(reject) = self.enter()? {
                return Some(Err(reject));
            }
            match self.next_item() {
                Ok(Some(body)) => {
                    return Some(Ok(Record { body, extensions_skipped: self.run.extensions_skipped }));
                }
                Ok(None) => {}
                Err(reject) => return Some(Err(reject)),
            }
        }
    }
}
