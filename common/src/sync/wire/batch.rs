//! The batch: records gathered for one datagram.

use thiserror::Error;

use super::header::{HEADER_BYTES, Header};
use super::{Body, RECORD_BYTES_MAX, RECORD_BYTES_MIN};

/// Why a record was not added to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// It needs more room than is left: seal the batch and try again.
    #[error("no room left in the datagram")]
    Full,
    /// It cannot be encoded at all.
    #[error("the session has addresses of both families")]
    MixedFamilies,
}

/// Records gathered for one datagram. Allocates once, when it is made.
#[derive(Debug)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    payload_max: usize,
    records: u32,
}

impl BatchWriter {
    /// An empty batch for datagrams of at most `payload_max` bytes of UDP payload, but never too small for one record.
    pub fn new(payload_max: usize) -> BatchWriter {
        let payload_max = payload_max.max(HEADER_BYTES + RECORD_BYTES_MAX);
        let mut bytes = Vec::with_capacity(payload_max + RECORD_BYTES_MAX);
        bytes.resize(HEADER_BYTES, 0);
        BatchWriter { bytes, payload_max, records: 0 }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Nothing was added; see [`PushError`].
    pub fn push(&mut self, body: &Body) -> Result<(), PushError> {
        let before = self.bytes.len();
        body.encode(&mut self.bytes).ok_or(PushError::MixedFamilies)?;
        if self.bytes.len() > self.payload_max {
            self.bytes.truncate(before);
            return Err(PushError::Full);
        }
        self.records += 1;
        Ok(())
    }

    /// Records gathered so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether not even the shortest record fits any more.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + RECORD_BYTES_MIN > self.payload_max
    }

    /// Puts the header before the records. The datagram stays here until [`clear`](BatchWriter::clear).
    pub fn datagram(&mut self, header: &Header) -> &[u8] {
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        &self.bytes
    }

    /// Forgets the records.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.records = 0;
    }
}
