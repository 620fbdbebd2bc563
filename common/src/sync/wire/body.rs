//! The body of a record: what one item of a datagram says.

use super::hello::{EpochHeard, Hello};
use super::nack::Nack;
use super::news::{Ended, Refreshed, Reported};
use super::query::Sought;
use super::range::{Credit, RangeBegin, RangeDigest, RangeEnd, RangeRequest};

/// What a record says. Every body has a fixed size on the wire; lists are several bodies in a row, which share a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is such a session.
    Upsert(Reported),
    /// There is no such session any more.
    Delete(Ended),
    /// The session lives on.
    Refresh(Refreshed),
    /// What the sender says of itself.
    Hello(Hello),
    /// What the sender owns in a range, in short.
    RangeDigest(RangeDigest),
    /// The sender wants ranges.
    RangeRequest(RangeRequest),
    /// The sender has room.
    Credit(Credit),
    /// A range follows as a whole.
    RangeBegin(RangeBegin),
    /// That was the range.
    RangeEnd(RangeEnd),
    /// Who owns this session? Answered by an upsert or by [`NotMine`](Body::NotMine).
    Query(Sought),
    /// Not the sender of this.
    NotMine(Sought),
    /// Datagrams are missing.
    Nack(Nack),
    /// The receiver was heard in a later life than the one that it is in.
    EpochHeard(EpochHeard),
}

/// A decoded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub body: Body,
    /// Optional extensions that this version does not know and went without.
    pub extensions_skipped: u16,
}
