//! Counters: defined once (name, unit, help, code), shared between processes, and only ever adding.

mod block;
mod file;

pub use block::CounterBlock;
pub use file::{CounterFile, CounterFileError};

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $variant:ident = $code:literal, $name:literal, $unit:literal;)+) => {
        /// A counter. The number is its position in a [`CounterBlock`] and never given to another counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Counter {
            $($(#[doc = $help])+ $variant = $code,)+
        }

        impl Counter {
            /// Every counter, in the order of definition.
            pub const ALL: &[Counter] = &[$(Counter::$variant),+];

            /// Its name, as shown to people and scraped by machines.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            /// What is counted.
            pub const fn unit(self) -> &'static str {
                match self { $(Counter::$variant => $unit,)+ }
            }

            /// What it means, for the operator.
            pub const fn help(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($help),+),)+ }
            }
        }

        const _: () = { $(assert!(($code as usize) < block::COUNTERS_MAX);)+ };
    };
}

counters! {
    /// Frames taken from the port's receive queues.
    RxPackets = 0, "rx_packets", "packets";
    /// Bytes of those frames.
    RxBytes = 1, "rx_bytes", "bytes";
    /// Frames that the port took for transmission.
    TxPackets = 2, "tx_packets", "packets";
    /// Bytes of those frames.
    TxBytes = 3, "tx_bytes", "bytes";
    /// Frames given to the kernel through the punt interface.
    Punted = 4, "punted", "packets";
    /// Frames from the kernel, sent out on the port.
    PuntTx = 5, "punt_tx", "packets";
    /// Frames handed to another worker.
    HandoffOut = 6, "handoff_out", "packets";
    /// Frames taken over from another worker.
    HandoffIn = 7, "handoff_in", "packets";
    /// Sync datagrams that a worker received and passed to the secondary.
    SyncHandoff = 8, "sync_handoff", "packets";
    /// Datagrams of the secondary that a worker sent on its behalf.
    SyncTxOnBehalf = 9, "sync_tx_on_behalf", "packets";
    /// Packets forwarded through a session of the worker's own table.
    LocalHits = 10, "local_hits", "packets";
    /// Packets forwarded through a session that another node reported.
    RemoteHits = 11, "remote_hits", "packets";
    /// Sessions created.
    SessionsCreated = 12, "sessions_created", "sessions";
    /// Sessions that ended: closed, reset or idle for too long.
    SessionsExpired = 13, "sessions_expired", "sessions";
    /// Lookups that gave up after the bound on retries and were taken for a miss.
    LookupContended = 14, "lookup_contended", "lookups";
    /// Events put into the ring to the secondary.
    EventsSent = 15, "events_sent", "events";
    /// Events that found the ring full; their range was marked for sending again.
    EventsDeferred = 16, "events_deferred", "events";
    /// Polls of the receive queue that found nothing.
    EmptyPolls = 17, "empty_polls", "polls";

    /// Frame shorter than its headers say, or than the shortest that can be valid.
    DropMalformed = 32, "drop_malformed", "packets";
    /// IPv4 header checksum wrong.
    DropIpChecksum = 33, "drop_ip_checksum", "packets";
    /// TTL or hop limit used up.
    DropTtlExpired = 34, "drop_ttl_expired", "packets";
    /// IP fragment to a VIP or a local address: its ports cannot be known.
    DropFragment = 35, "drop_fragment", "packets";
    /// Packet to a VIP's address but to no service's port.
    DropNoService = 36, "drop_no_service", "packets";
    /// TCP packet that opens no connection and belongs to no session.
    DropNoSession = 37, "drop_no_session", "packets";
    /// No real server with a weight above zero.
    DropNoRealServer = 38, "drop_no_real_server", "packets";
    /// No free local port towards the chosen real server.
    DropNoLocalPort = 39, "drop_no_local_port", "packets";
    /// The local table is full.
    DropTableFull = 40, "drop_table_full", "packets";
    /// The next hop's link-layer address is not known yet; it was asked for.
    DropNoNeighbour = 41, "drop_no_neighbour", "packets";
    /// No route to the destination.
    DropNoRoute = 42, "drop_no_route", "packets";
    /// The port's transmit queue is full.
    DropTxFull = 43, "drop_tx_full", "packets";
    /// The ring to the other worker is full.
    DropHandoffFull = 44, "drop_handoff_full", "packets";
    /// The ring to the kernel's interface is full.
    DropPuntFull = 45, "drop_punt_full", "packets";
    /// The ring to the secondary is full, or the datagram does not fit its slot.
    DropSyncRingFull = 46, "drop_sync_ring_full", "packets";
    /// No packet buffer was free.
    DropNoBuffer = 47, "drop_no_buffer", "packets";
    /// The kernel's interface did not take the frame.
    DropPuntError = 48, "drop_punt_error", "packets";
    /// Frame for another link-layer address.
    DropNotForUs = 49, "drop_not_for_us", "packets";
    /// Packet larger than the port's MTU.
    DropTooBig = 50, "drop_too_big", "packets";

    /// Sync datagrams sent, one count a peer.
    SyncTxDatagrams = 64, "sync_tx_datagrams", "datagrams";
    /// Bytes of those datagrams, UDP payload.
    SyncTxBytes = 65, "sync_tx_bytes", "bytes";
    /// Upsert records sent, one count a record however many peers.
    SyncTxUpserts = 66, "sync_tx_upserts", "records";
    /// Delete records sent.
    SyncTxDeletes = 67, "sync_tx_deletes", "records";
    /// Refresh records sent.
    SyncTxRefreshes = 68, "sync_tx_refreshes", "records";
    /// Datagrams not sent because the transmit queue or ring was full.
    SyncTxFull = 69, "sync_tx_full", "datagrams";
    /// Datagrams not sent because the peer's link-layer address was not known yet.
    SyncTxNoNeighbour = 70, "sync_tx_no_neighbour", "datagrams";
    /// Sync datagrams received, valid or not.
    SyncRxDatagrams = 71, "sync_rx_datagrams", "datagrams";
    /// Bytes of those datagrams, UDP payload.
    SyncRxBytes = 72, "sync_rx_bytes", "bytes";
    /// Upsert records applied.
    SyncRxUpserts = 73, "sync_rx_upserts", "records";
    /// Delete records applied.
    SyncRxDeletes = 74, "sync_rx_deletes", "records";
    /// Refresh records applied.
    SyncRxRefreshes = 75, "sync_rx_refreshes", "records";
    /// Sequence numbers that were skipped: datagrams lost, or late.
    SyncRxGaps = 76, "sync_rx_gaps", "datagrams";
    /// Datagrams that came after a later one of their stream.
    SyncRxLate = 77, "sync_rx_late", "datagrams";
    /// Event ring slots whose contents made no sense.
    EventsInvalid = 78, "events_invalid", "events";
    /// Ranges of a local table that were sent again because the event ring had been full.
    RangesResent = 79, "ranges_resent", "ranges";
    /// Remote sessions removed because nothing was heard of them for too long.
    RemoteExpired = 80, "remote_expired", "sessions";
    /// Frames on the secondary's queue that are no sync datagrams.
    SyncRxForeign = 81, "sync_rx_foreign", "packets";
    /// Events of sessions that another node owns: only the owner reports a session.
    EventsForeign = 82, "events_foreign", "events";
    /// Unknown optional extensions inside records that were applied without them.
    SyncSkippedExtensions = 83, "sync_skipped_extensions", "extensions";
    /// Datagrams not sent because they could not be sealed: the sync state went back, as in a machine set back to a snapshot.
    SyncTxUnsealed = 88, "sync_tx_unsealed", "datagrams";

    /// Datagram shorter than its header.
    SyncRejectTruncated = 96, "sync_reject_truncated", "datagrams";
    /// Magic number wrong.
    SyncRejectMagic = 97, "sync_reject_magic", "datagrams";
    /// Protocol version not spoken here.
    SyncRejectVersion = 98, "sync_reject_version", "datagrams";
    /// Datagram of another cluster.
    SyncRejectCluster = 99, "sync_reject_cluster", "datagrams";
    /// Sender is no member, or its address is not the member's.
    SyncRejectMember = 100, "sync_reject_member", "datagrams";
    /// Sender's boot epoch is older than one already seen.
    SyncRejectEpoch = 101, "sync_reject_epoch", "datagrams";
    /// Datagram already received.
    SyncRejectDuplicate = 102, "sync_reject_duplicate", "datagrams";
    /// Reserved header bits not zero.
    SyncRejectReserved = 103, "sync_reject_reserved", "datagrams";
    /// UDP checksum or lengths wrong.
    SyncRejectChecksum = 104, "sync_reject_checksum", "datagrams";
    /// Record whose length runs past the datagram.
    SyncRejectRecordLength = 105, "sync_reject_record_length", "records";
    /// Record of an unknown type that must be understood.
    SyncRejectRecordType = 106, "sync_reject_record_type", "records";
    /// Record with a field out of its range.
    SyncRejectRecordField = 107, "sync_reject_record_field", "records";
    /// Record of an unknown type that may be skipped.
    SyncSkippedRecords = 108, "sync_skipped_records", "records";
    /// Record older than what the table has.
    SyncRejectStale = 109, "sync_reject_stale", "records";
    /// Refresh or delete of a session that is not in the table.
    SyncRejectUnknownSession = 111, "sync_reject_unknown_session", "records";
    /// The remote table is full.
    SyncRejectTableFull = 112, "sync_reject_table_full", "records";
    /// Header with a field out of its range.
    SyncRejectHeaderField = 114, "sync_reject_header_field", "datagrams";
    /// Datagram that names this node as its sender: two nodes have the same number, or it was reflected.
    SyncRejectOwnNode = 115, "sync_reject_own_node", "datagrams";
    /// Sender counts its memberships differently: one side is configured for another kind of membership.
    SyncRejectMembershipEpoch = 116, "sync_reject_membership_epoch", "datagrams";
    /// No room to keep another sender's position.
    SyncRejectPeersFull = 117, "sync_reject_peers_full", "datagrams";
    /// Datagram so far behind its stream that it may be a repetition.
    SyncRejectTooOld = 118, "sync_reject_too_old", "datagrams";
    /// Record with an extension of an unknown type that must be understood.
    SyncRejectExtension = 119, "sync_reject_extension", "records";
    /// Session with a flow that belongs to another one, which does not make way for it.
    SyncRejectConflict = 120, "sync_reject_conflict", "records";
    /// Datagram in the clear, though this node's `sync.security` is `Aead`.
    SyncRejectUnsealed = 121, "sync_reject_unsealed", "datagrams";
    /// Sealed datagram, though this node's `sync.security` is `Off`.
    SyncRejectSealed = 122, "sync_reject_sealed", "datagrams";
    /// Datagram sealed with a key number that is not in this node's key file: give every node the same file.
    SyncRejectKeyUnknown = 123, "sync_reject_key_unknown", "datagrams";
    /// Datagram whose tag is wrong: sealed with another key of the same number, changed on the way, or forged.
    SyncRejectTag = 124, "sync_reject_tag", "datagrams";
    /// Record that refers to a dictionary entry which is not there, or means nothing.
    SyncRejectReference = 130, "sync_reject_reference", "records";
    /// Dictionary entry that means nothing, or one more than a dictionary holds.
    SyncRejectDictionaryEntry = 131, "sync_reject_dictionary_entry", "entries";
    /// Record whose length does not suit its type.
    SyncRejectRecordSize = 133, "sync_reject_record_size", "records";
    /// Datagram that its sender meant for another secondary.
    SyncRejectAddressee = 132, "sync_reject_addressee", "datagrams";

    /// Session that has ended a short while ago: late news of it.
    SyncRejectEnded = 140, "sync_reject_ended", "records";
    /// Lives of this sender begun after one that a peer had heard: its state was lost and its clock set back.
    LivesPutAhead = 141, "lives_put_ahead", "lives";
    /// Tombstones that went before their time, because there was no room.
    TombstonesEvicted = 142, "tombstones_evicted", "sessions";
    /// Own sessions that were made newer than what peers know under their key.
    GenerationsRaised = 143, "generations_raised", "sessions";
    /// Ranges asked for as a whole, each attempt.
    RangesRequested = 144, "ranges_requested", "ranges";
    /// Ranges that came as a whole.
    RangesRepaired = 145, "ranges_repaired", "ranges";
    /// Ranges that did not come in many attempts; they are left to the next comparison.
    RangesGivenUp = 146, "ranges_given_up", "ranges";
    /// Sessions dropped because their owner does not have them any more.
    SessionsPurged = 147, "sessions_purged", "sessions";
    /// Ranges that peers asked for and that found no room to wait.
    RequestsRefused = 148, "requests_refused", "ranges";
    /// Datagrams sent again because a peer missed them.
    SyncTxAgain = 149, "sync_tx_again", "datagrams";
    /// Datagrams that a peer missed and that are not kept any more.
    SyncTxForgotten = 150, "sync_tx_forgotten", "datagrams";
    /// Datagrams asked for because they were missed, each time.
    GapsAsked = 151, "gaps_asked", "datagrams";
    /// Datagrams that were missed and did not come in many attempts.
    GapsGivenUp = 152, "gaps_given_up", "datagrams";
    /// Sessions asked about because a worker missed one.
    QueriesSent = 153, "queries_sent", "sessions";
    /// Misses that were not asked about: they were, a moment ago, or the session has come.
    QueriesMerged = 154, "queries_merged", "sessions";
    /// Questions not asked or not answered, because there were too many.
    QueriesRefused = 155, "queries_refused", "sessions";
    /// Questions of peers that were answered with a session.
    QueriesAnswered = 156, "queries_answered", "sessions";
    /// Answers of peers that do not have a session.
    QueriesDenied = 157, "queries_denied", "sessions";
    /// Own sessions in the remote table that ended because they were idle for too long.
    OwnExpired = 158, "own_expired", "sessions";
    /// Packets without a session that the secondary was told of, to ask the peers.
    MissesTold = 159, "misses_told", "packets";
    /// Packets without a session that the secondary was not told of, because the event ring was full.
    MissesNotTold = 160, "misses_not_told", "packets";
    /// Sessions that this node took over from another one.
    SessionsClaimed = 161, "sessions_claimed", "sessions";
    /// Packets that would have opened a session before it was known which local ports the other nodes' sessions use.
    DropNotReady = 162, "drop_not_ready", "packets";
}
