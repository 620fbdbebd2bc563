//! The reasons for which a datagram or a record changes nothing.

use crate::counter::Counter;

macro_rules! rejects {
    ($($(#[doc = $doc:literal])+ $name:ident => $counter:ident;)+) => {
        /// Why a datagram or a record was not applied. Each reason has a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reject {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reject {
            /// Every reason.
            pub const ALL: &[Reject] = &[$(Reject::$name),+];

            /// The counter that counts it.
            pub const fn counter(self) -> Counter {
                match self { $(Reject::$name => Counter::$counter,)+ }
            }
        }
    };
}

rejects! {
    /// UDP checksum or lengths wrong. Found by whoever takes the packet apart, before its payload comes here.
    Checksum => SyncRejectChecksum;
    /// Datagram shorter than its header.
    Truncated => SyncRejectTruncated;
    /// Magic number wrong.
    Magic => SyncRejectMagic;
    /// Version not spoken here.
    Version => SyncRejectVersion;
    /// Reserved header bits not zero.
    Reserved => SyncRejectReserved;
    /// Header field out of its range.
    HeaderField => SyncRejectHeaderField;
    /// Another cluster.
    Cluster => SyncRejectCluster;
    /// The sender says that it is this node.
    OwnNode => SyncRejectOwnNode;
    /// The sender is no member, or its address is not the member's.
    Member => SyncRejectMember;
    /// Meant for another secondary.
    Addressee => SyncRejectAddressee;
    /// The sender's membership epoch is of another kind than ours.
    MembershipEpoch => SyncRejectMembershipEpoch;
    /// In the clear, but this node wants datagrams sealed.
    Unsealed => SyncRejectUnsealed;
    /// Sealed, but this node has no keys.
    Sealed => SyncRejectSealed;
    /// Sealed with a key of a number that this node's key file does not have.
    KeyUnknown => SyncRejectKeyUnknown;
    /// The tag is wrong: another key of that number, or bytes that somebody changed.
    Tag => SyncRejectTag;
    /// No room for another sender's position.
    PeersFull => SyncRejectPeersFull;
    /// The sender's boot epoch is older than one already seen.
    Epoch => SyncRejectEpoch;
    /// Sequence number already received.
    Duplicate => SyncRejectDuplicate;
    /// Sequence number further back than the window remembers.
    TooOld => SyncRejectTooOld;
    /// Record length runs past the datagram. Nothing after it can be read.
    RecordLength => SyncRejectRecordLength;
    /// Length of a record that does not suit its type.
    RecordSize => SyncRejectRecordSize;
    /// Unknown record that must be understood.
    RecordType => SyncRejectRecordType;
    /// Record field out of its range.
    RecordField => SyncRejectRecordField;
    /// Unknown extension that must be understood.
    Extension => SyncRejectExtension;
    /// Dictionary entry that means nothing, or one more than a dictionary holds.
    DictionaryEntry => SyncRejectDictionaryEntry;
    /// Record that refers to a dictionary entry which is not there, or means nothing.
    Reference => SyncRejectReference;
    /// Unknown record that may be skipped.
    SkippedRecord => SyncSkippedRecords;
    /// Older than what the table has.
    Stale => SyncRejectStale;
    /// The session has ended a short while ago, with this generation or a later one.
    Ended => SyncRejectEnded;
    /// Delete or refresh of a session that is not in the table.
    UnknownSession => SyncRejectUnknownSession;
    /// The remote table is full. What the session was to replace is gone.
    TableFull => SyncRejectTableFull;
    /// Another session has this flow and does not make way. Older news under the same client-side key is gone all the same.
    Conflict => SyncRejectConflict;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_counter_of_its_own() {
        let counters: HashSet<Counter> = Reject::ALL.iter().map(|reject| reject.counter()).collect();
        assert_eq!(counters.len(), Reject::ALL.len());
    }
}
