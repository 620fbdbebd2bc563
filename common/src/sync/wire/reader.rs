//! The reader: the records of a datagram, one after another.

use super::{Record, record};
use crate::sync::Reject;

/// Reads datagrams. It keeps the dictionary of the one that it reads, and nothing from one to the next.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// A reader. One serves for any number of datagrams.
    pub fn new() -> Reader {
        Reader {}
    }

    /// The records of a datagram, in order. `bytes` is what [`Header::decode`](super::Header::decode) left over.
    ///
    /// A bad record costs only itself, except that after `RecordLength` nothing more can be found.
    pub fn records<'a>(
        &'a mut self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = Result<Record, Reject>> + use<'a> {
        record::records(bytes)
    }
}

impl Default for Reader {
    fn default() -> Reader {
        Reader::new()
    }
}
