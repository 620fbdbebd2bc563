//! What becomes of a packet: exactly one verdict each, and one reason for each drop.

use crate::counter::Counter;
use crate::id::WorkerId;
use crate::nat::RewriteError;
use crate::packet::Malformed;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Rewritten in place: send it out on the port.
    Transmit,
    /// The kernel's: give it to the punt interface as it is.
    Punt,
    /// Another worker's.
    Handoff(WorkerId),
    /// A sync datagram: pass it to the secondary of the worker's NUMA node.
    Sync,
    /// Nobody's.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])+ $reason:ident => $counter:ident;)+) => {
        /// Why a packet was dropped. Each reason has one counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])+ $reason,)+
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &[DropReason] = &[$(DropReason::$reason),+];

            /// The counter that counts this reason.
            pub const fn counter(self) -> Counter {
                match self { $(DropReason::$reason => Counter::$counter,)+ }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say, or a header field that cannot be.
    Malformed => DropMalformed;
    /// IPv4 header checksum wrong.
    IpChecksum => DropIpChecksum;
    /// TTL or hop limit used up.
    TtlExpired => DropTtlExpired;
    /// IP fragment to a VIP or a local address.
    Fragment => DropFragment;
    /// To a VIP's address, but to no service's port.
    NoService => DropNoService;
    /// Opens no connection and belongs to no session.
    NoSession => DropNoSession;
    /// No real server with a weight above zero.
    NoRealServer => DropNoRealServer;
    /// No free local port towards the chosen real server.
    NoLocalPort => DropNoLocalPort;
    /// The local table is full.
    TableFull => DropTableFull;
    /// The next hop's link-layer address is not known yet.
    NoNeighbour => DropNoNeighbour;
    /// No route to the destination.
    NoRoute => DropNoRoute;
    /// The port's transmit queue is full.
    TxFull => DropTxFull;
    /// The ring to the other worker is full.
    HandoffFull => DropHandoffFull;
    /// The ring to the kernel's interface is full.
    PuntFull => DropPuntFull;
    /// The ring to the secondary is full.
    SyncRingFull => DropSyncRingFull;
    /// No packet buffer was free.
    NoBuffer => DropNoBuffer;
    /// The kernel's interface did not take the frame.
    PuntError => DropPuntError;
    /// For another link-layer address.
    NotForUs => DropNotForUs;
    /// Larger than the port's MTU.
    TooBig => DropTooBig;
    /// Would open a session before it is known which local ports sessions of this node use on others.
    NotReady => DropNotReady;
}

impl From<Malformed> for DropReason {
    fn from(reason: Malformed) -> DropReason {
        match reason {
            Malformed::IpChecksum => DropReason::IpChecksum,
            _ => DropReason::Malformed,
        }
    }
}

impl From<RewriteError> for DropReason {
    fn from(error: RewriteError) -> DropReason {
        match error {
            RewriteError::HopLimit => DropReason::TtlExpired,
            RewriteError::FamilyMismatch | RewriteError::NotAsParsed => DropReason::Malformed,
        }
    }
}
