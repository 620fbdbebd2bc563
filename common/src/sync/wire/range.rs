//! Ranges of the key space: their digests, and sending one again as a whole.
//!
//! All of these are about the sessions that one sender owns. Which range a session is in is the protocol's business; the
//! format only numbers ranges.

use super::StreamId;

/// A range of the key space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeId(pub u16);

/// What the sender owns in a range, in short. Who holds something else of that sender in that range lacks something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeDigest {
    /// The range.
    pub range: RangeId,
    /// Sessions in it.
    pub sessions: u32,
    /// Digest of these sessions; what goes in is the protocol's business.
    pub digest: u64,
}

/// The sender wants ranges of the receiver's sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first range wanted.
    pub first: RangeId,
    /// How many, beginning with the first; not 0, and not beyond the last range.
    pub count: u16,
    /// Names the request: begin and end of each range repeat it.
    pub nonce: u32,
}

impl RangeRequest {
    /// The ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeId> + use<> {
        let first = u32::from(self.first.0);
        (first..first + u32::from(self.count)).map_while(|range| u16::try_from(range).ok().map(RangeId))
    }
}

/// The sender has room for the receiver's datagrams of a stream up to a number. Numbers only grow, so the
/// credit that was lost is part of the next one, and the one that came twice counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// The stream.
    pub stream: StreamId,
    /// The highest sequence number that may be sent now.
    pub until: u64,
}

/// What follows in this stream are all of the sender's sessions in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeBegin {
    /// The range.
    pub range: RangeId,
    /// Names this sending, from the request.
    pub nonce: u32,
}

/// That were all of them. Who has received as many upserts of that range since its begin may drop what else it
/// holds of the sender's in that range and has not heard of since; who has received fewer may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeEnd {
    /// The range.
    pub range: RangeId,
    /// The same as in its begin.
    pub nonce: u32,
    /// Upserts of that range between begin and end, in all datagrams.
    pub sessions: u32,
}
