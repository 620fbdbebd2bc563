//! The runs: the items of a datagram in the making, those of one type under one header.

use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::header::HEADER_BYTES;
use super::item::GenerationBase;
use super::record::{FLAG_GENERATION, RECORD_HEADER_BYTES, RecordHeader};
use super::{PushError, RecordType};

/// Bytes before a run's first item, at most.
pub(super) const RUN_HEADER_BYTES_MAX: usize = RECORD_HEADER_BYTES + size_of::<U32>();

/// The run that is being written: what its items have in common, and where it begins.
#[derive(Clone, Copy, Debug)]
struct Open {
    kind: RecordType,
    base: GenerationBase,
    at: usize,
}

/// Items gathered for one datagram.
#[derive(Debug)]
pub(super) struct Runs {
    bytes: Vec<u8>,
    open: Option<Open>,
    count: u32,
    /// Bytes that the whole datagram has, header and dictionaries included.
    datagram_bytes: usize,
    datagram_bytes_max: usize,
}

impl Runs {
    pub(super) fn new(datagram_bytes_max: usize) -> Runs {
        Runs {
            bytes: Vec::with_capacity(datagram_bytes_max),
            open: None,
            count: 0,
            datagram_bytes: HEADER_BYTES,
            datagram_bytes_max,
        }
    }

    /// Adds an item; `beside` bytes go into the datagram with it.
    #[inline(always)]
    pub(super) fn push(
        &mut self,
        kind: RecordType,
        base: GenerationBase,
        item: &(impl IntoBytes + Immutable),
        beside: usize,
    ) -> Result<(), PushError> {
        let goes_on = self.open.is_some_and(|open| open.kind == kind && open.base == base);
        let before = if goes_on { 0 } else { RECORD_HEADER_BYTES + flags_and_bytes(base).1 };
        let bytes = self.datagram_bytes + before + beside + size_of_val(item);
        if bytes > self.datagram_bytes_max {
            return Err(PushError::Full);
        }
        if !goes_on {
            self.begin(kind, base);
        }
        self.bytes.extend_from_slice(item.as_bytes());
        self.datagram_bytes = bytes;
        self.count += 1;
        Ok(())
    }

    fn begin(&mut self, kind: RecordType, base: GenerationBase) {
        self.write_length();
        self.open = Some(Open { kind, base, at: self.bytes.len() });
        let (flags, bytes) = flags_and_bytes(base);
        self.bytes.extend_from_slice(RecordHeader::new(kind, flags, 0).as_bytes());
        self.bytes.extend_from_slice(&base.to_bits().to_le_bytes()[..bytes]);
    }

    /// Writes the length of the open run into its header.
    fn write_length(&mut self) {
        if let Some(Open { kind, base, at }) = self.open {
            let length = self.bytes.len() - at - RECORD_HEADER_BYTES;
            let header = RecordHeader::new(kind, flags_and_bytes(base).0, length);
            self.bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
        }
    }

    /// Changes how long datagrams may be.
    pub(super) fn set_limit(&mut self, datagram_bytes_max: usize) {
        self.datagram_bytes_max = datagram_bytes_max;
    }

    /// Items gathered so far.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether another item like the last one would not fit, even if all that it refers to stands there already.
    pub(super) fn is_full(&self) -> bool {
        self.open.is_some_and(|open| self.datagram_bytes + open.kind.item_bytes() > self.datagram_bytes_max)
    }

    /// Appends all runs to a datagram.
    pub(super) fn write(&mut self, datagram: &mut Vec<u8>) {
        self.write_length();
        datagram.extend_from_slice(&self.bytes);
    }

    /// Forgets all items.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        (self.open, self.count, self.datagram_bytes) = (None, 0, HEADER_BYTES);
    }
}

/// The flags of a run with this base, and the bytes that the base takes.
#[inline]
fn flags_and_bytes(base: GenerationBase) -> (u8, usize) {
    if base == GenerationBase::ZERO { (0, 0) } else { (FLAG_GENERATION, size_of::<U32>()) }
}
