//! The sync state: what a restarted secondary must know to go on where the dead one stopped. Lies in shared memory.
//!
//! ```text
//! 0      boot epoch of this sender (u64)
//! 8      last sequence number used, per stream (4 × u64)
//! 40     1 once this node was ready, since the file was made (u64)
//! 48     1 while an operator wants this node to draw no traffic (u64)
//! 56     when its writer looked at its queues last, µs of this machine's monotonic clock; 0 before the first time (u64)
//! 64     512 peers, 640 bytes each:
//!          0  identity (u32): node | numa << 16; 0 if the slot is free
//!          4  1 once the peer has given back what it held of this node's sessions; 2 once it says that it has back its own (u32)
//!          8  boot epoch of the peer (u64)
//!         16  last heard, ms of this machine's monotonic clock (u64)
//!         24  datagrams accepted (u64)
//!         32  records applied (u64)
//!         40  sequence numbers skipped (u64)
//!         48  datagrams late (u64)
//!         56  datagrams and records rejected (u64)
//!         64  per stream: highest sequence (u64), settled up to (u64), received (16 × u64) (4 × 144 bytes)
//! then   the retransmission ring; see `protocol::retransmit`
//! ```
//!
//! Everything is in the machine's byte order and valid when zero. One writer: the secondary that holds the NUMA node's lock.
//! Anyone may read. Whatever values a dead writer left, no operation here panics, and none reuses a sequence number.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

use zerocopy::{FromBytes, IntoBytes};

use super::Reject;
use super::position::{Arrival, StreamPosition};
use super::protocol::retransmit::ring_words;
use super::wire::{STREAMS_MAX, StreamId};
use crate::id::{NodeId, NumaId};
use crate::shm::header::{FileKind, FileSpec, HEADER_BYTES};
use crate::shm::region::{Region, RegionError};
use crate::shm::shared::{Mapped, Shared};
use crate::time::{Micros, Millis};

/// Senders whose positions can be kept: 64 nodes with 8 NUMA nodes each.
pub const PEERS_MAX: usize = 512;

/// Bits of [`PeerState::returned`].
const GAVE_BACK: u32 = 1;
const HAS_ITS_OWN: u32 = 2;

/// Silence after which a sender's slot may be given to another, if no slot is free. Milliseconds.
const SLOT_REUSE_MS: u64 = 3_600_000;

/// The content of `sync-state-<numa>`; see the module's diagram.
#[derive(FromBytes, IntoBytes)]
#[repr(C, align(64))]
pub struct SyncState {
    boot_epoch: AtomicU64,
    last_sequence: [AtomicU64; STREAMS_MAX],
    was_ready: AtomicU64,
    draining: AtomicU64,
    last_turn_us: AtomicU64,
    peers: [PeerState; PEERS_MAX],
}

/// What is known of one sender.
#[derive(FromBytes, IntoBytes)]
#[repr(C, align(64))]
pub struct PeerState {
    identity: AtomicU32,
    returned: AtomicU32,
    boot_epoch: AtomicU64,
    last_heard_ms: AtomicU64,
    datagrams: AtomicU64,
    records: AtomicU64,
    gaps: AtomicU64,
    late: AtomicU64,
    rejects: AtomicU64,
    streams: [StreamPosition; STREAMS_MAX],
}

const _: () = {
    assert!(size_of::<PeerState>() == 640 && align_of::<PeerState>() == 64);
    assert!(std::mem::offset_of!(PeerState, rejects) == 56);
    assert!(std::mem::offset_of!(PeerState, streams) == 64);
    assert!(std::mem::offset_of!(SyncState, last_sequence) == 8);
    assert!(std::mem::offset_of!(SyncState, last_turn_us) == 56);
    assert!(std::mem::offset_of!(SyncState, peers) == 64);
    assert!(size_of::<SyncState>() == 64 + 640 * PEERS_MAX);
};

// SAFETY: `repr(C)`, of a fixed size, atomics only: `PeerState` and `StreamPosition` are so too.
unsafe impl Shared for SyncState {}

/// What the file is to be, for datagrams of at most this many bytes.
pub const fn spec(datagram_bytes_max: usize) -> FileSpec {
    let words = ring_words(datagram_bytes_max);
    FileSpec {
        kind: FileKind::SyncState,
        geometry: [PEERS_MAX as u64, STREAMS_MAX as u64, words, 0],
        bytes: HEADER_BYTES + size_of::<SyncState>() as u64 + 8 * words,
    }
}

/// Makes the file of a secondary that has never run.
///
/// # Errors
/// The file exists or cannot be made.
pub fn create(path: &Path, datagram_bytes_max: usize) -> Result<(), RegionError> {
    Region::create(path, &spec(datagram_bytes_max)).map(drop)
}

/// Maps the words of the retransmission ring.
///
/// # Errors
/// There is no such file, or it is not one of this build's.
pub fn attach_ring(path: &Path) -> Result<Mapped<[AtomicU64]>, RegionError> {
    let region = Region::open(path, FileKind::SyncState)?;
    let [_, _, words, _] = region.header().geometry();
    Mapped::slice(&region, HEADER_BYTES + size_of::<SyncState>() as u64, words)
}

/// Maps the state. The secondary that writes it holds its NUMA node's lock.
///
/// # Errors
/// There is no such file, or it is not one of this build's.
pub fn attach(path: &Path) -> Result<Mapped<SyncState>, RegionError> {
    Mapped::new(&Region::open(path, FileKind::SyncState)?, HEADER_BYTES)
}

/// Maps the state to look at [`SyncState::peers`]; nothing else may be called on it.
///
/// # Errors
/// There is no such file, or it is not one of this build's.
pub fn attach_read_only(path: &Path) -> Result<Mapped<SyncState>, RegionError> {
    Mapped::new(&Region::open_read_only(path, FileKind::SyncState)?, HEADER_BYTES)
}

/// What is known of one sender, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PeerSnapshot {
    /// The sender.
    pub node: NodeId,
    /// Its NUMA node.
    pub numa: NumaId,
    /// Its boot epoch.
    pub boot_epoch: u64,
    /// When it was last heard, milliseconds of this machine's monotonic clock.
    pub last_heard_ms: u64,
    /// Datagrams accepted.
    pub datagrams: u64,
    /// Records applied.
    pub records: u64,
    /// Sequence numbers of the change stream skipped.
    pub gaps: u64,
    /// Datagrams that came after a later one.
    pub late: u64,
    /// Datagrams and records rejected.
    pub rejects: u64,
    /// The highest sequence number received, per stream.
    pub highest: [u64; STREAMS_MAX],
}

/// Adds to a word that only the caller writes.
fn add(word: &AtomicU64, count: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

const fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

impl SyncState {
    /// The state of a secondary that has never run, for tests and tools that have no shared memory.
    pub const fn new() -> SyncState {
        SyncState {
            boot_epoch: AtomicU64::new(0),
            last_sequence: zeros(),
            was_ready: AtomicU64::new(0),
            draining: AtomicU64::new(0),
            last_turn_us: AtomicU64::new(0),
            peers: [const { PeerState::new() }; PEERS_MAX],
        }
    }

    /// Forgets everything, as the loss of the file does.
    #[cfg(test)]
    pub fn wipe(&self) {
        self.boot_epoch.store(0, Ordering::Relaxed);
        self.was_ready.store(0, Ordering::Relaxed);
        self.draining.store(0, Ordering::Relaxed);
        self.last_turn_us.store(0, Ordering::Relaxed);
        self.last_sequence.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.peers.iter().for_each(|peer| peer.take(0));
    }

    /// Begins or resumes this sender's life, and returns its boot epoch.
    ///
    /// A state that was used before keeps its epoch, and its sequence numbers go on. A new one takes `epoch`, which must be
    /// higher than any that this sender had before its state was lost: the wall clock in nanoseconds.
    pub fn begin(&self, epoch: u64) -> u64 {
        let kept = self.boot_epoch.load(Ordering::Relaxed);
        if kept != 0 {
            return kept;
        }
        let epoch = epoch.max(1);
        self.boot_epoch.store(epoch, Ordering::Relaxed);
        epoch
    }

    /// Goes on in a life after `epoch`, which a peer has heard of this sender, and returns its boot epoch. Sequence numbers go on.
    ///
    /// It is later than `epoch` by so much that no life which began likewise had the same: a seal depends on that.
    pub fn begin_after(&self, epoch: u64) -> u64 {
        const APART: u64 = (1 << 40) - 1;
        let own = self.boot_epoch.load(Ordering::Relaxed);
        let later = epoch.saturating_add(1 + (own & APART));
        self.boot_epoch.store(later, Ordering::Relaxed);
        later
    }

    /// This sender's boot epoch; 0 before the first [`begin`](SyncState::begin).
    pub fn boot_epoch(&self) -> u64 {
        self.boot_epoch.load(Ordering::Relaxed)
    }

    /// Notes that the writer looks at its queues now.
    #[inline]
    pub fn set_last_turn(&self, now: Micros) {
        self.last_turn_us.store(now.0, Ordering::Relaxed);
    }

    /// When a writer looked at its queues last, if one ever did.
    pub fn last_turn(&self) -> Option<Micros> {
        match self.last_turn_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Micros(us)),
        }
    }

    /// Takes the next sequence number of a stream.
    ///
    /// It is stored as used before it is returned: a secondary killed right here leaves a gap of one, never a number used
    /// twice.
    pub fn take_sequence(&self, stream: StreamId) -> u64 {
        let word = &self.last_sequence[stream.index()];
        let sequence = word.load(Ordering::Relaxed).wrapping_add(1).max(1);
        word.store(sequence, Ordering::Relaxed);
        // Only this process's death comes between the store and what follows: the machine keeps what was executed, so it is the
        // compiler alone that must not do it later.
        compiler_fence(Ordering::SeqCst);
        sequence
    }

    /// Sets the last sequence number that was used of a stream, as a damaged or restored state would have it.
    #[cfg(test)]
    pub(super) fn set_last_sequence(&self, stream: StreamId, sequence: u64) {
        self.last_sequence[stream.index()].store(sequence, Ordering::Relaxed);
    }

    /// The last sequence number that was used of a stream; 0 if none was.
    pub fn last_sequence(&self, stream: StreamId) -> u64 {
        self.last_sequence[stream.index()].load(Ordering::Relaxed)
    }

    /// Notes that this node holds what all members have.
    pub fn set_was_ready(&self) {
        self.was_ready.store(1, Ordering::Relaxed);
    }

    /// Whether this node has held what all members have, since the file was made.
    pub fn was_ready(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed) != 0
    }

    /// Notes whether an operator wants this node to draw no traffic.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining.into(), Ordering::Relaxed);
    }

    /// Whether an operator wants this node to draw no traffic.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed) != 0
    }

    /// The slot of a sender; one is taken for it if it has none.
    ///
    /// # Errors
    /// `PeersFull`: every slot is taken by a sender that was heard within the last hour.
    pub fn peer(&self, node: NodeId, numa: NumaId, now: Millis) -> Result<&PeerState, Reject> {
        let identity = PeerState::identity_of(node, numa);
        if let Some(peer) = self.peers.iter().find(|peer| peer.identity.load(Ordering::Relaxed) == identity) {
            return Ok(peer);
        }
        let free = self.peers.iter().find(|peer| peer.identity.load(Ordering::Relaxed) == 0);
        let slot = free.or_else(|| {
            let silent = |peer: &PeerState| now.since(Millis(peer.last_heard_ms.load(Ordering::Relaxed)));
            self.peers.iter().max_by_key(|peer| silent(peer)).filter(|peer| silent(peer) > SLOT_REUSE_MS)
        });
        let peer = slot.ok_or(Reject::PeersFull)?;
        peer.take(identity);
        Ok(peer)
    }

    /// The highest boot epoch that was accepted of a sender; 0 of one that was never heard.
    pub fn boot_epoch_of(&self, node: NodeId, numa: NumaId) -> u64 {
        let identity = PeerState::identity_of(node, numa);
        let known = self.peers.iter().find(|peer| peer.identity.load(Ordering::Relaxed) == identity);
        known.map_or(0, |peer| peer.boot_epoch.load(Ordering::Relaxed))
    }

    /// What is known of every sender.
    pub fn peers(&self) -> impl Iterator<Item = PeerSnapshot> + use<'_> {
        self.peers.iter().filter_map(PeerState::snapshot)
    }
}

impl Default for SyncState {
    fn default() -> Self {
        SyncState::new()
    }
}

impl PeerState {
    const fn new() -> PeerState {
        PeerState {
            identity: AtomicU32::new(0),
            returned: AtomicU32::new(0),
            boot_epoch: AtomicU64::new(0),
            last_heard_ms: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            records: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
            late: AtomicU64::new(0),
            rejects: AtomicU64::new(0),
            streams: [const { StreamPosition::new() }; STREAMS_MAX],
        }
    }

    fn identity_of(node: NodeId, numa: NumaId) -> u32 {
        u32::from(node.0) | u32::from(numa.0) << 16
    }

    /// Gives this slot to a sender. Killed halfway, the slot is free, or in use with nothing known.
    fn take(&self, identity: u32) {
        self.identity.store(0, Ordering::Relaxed);
        self.forget_positions();
        self.returned.store(0, Ordering::Relaxed);
        for word in [
            &self.boot_epoch,
            &self.last_heard_ms,
            &self.datagrams,
            &self.records,
            &self.gaps,
            &self.late,
            &self.rejects,
        ] {
            word.store(0, Ordering::Relaxed);
        }
        // SYNC peer-slot-taken: pairs with the acquire fence in `snapshot`, which then sees the words above as zero or newer.
        self.identity.store(identity, Ordering::Release);
    }

    fn forget_positions(&self) {
        for position in &self.streams {
            position.forget();
        }
    }

    /// Decides whether a datagram of this sender is news, and remembers it.
    ///
    /// The first datagram of a stream that is ever seen opens the window where it is: numbers before it are no gap, for
    /// nobody was listening.
    ///
    /// # Errors
    /// `Epoch`, `Duplicate` or `TooOld`; nothing has changed then.
    pub fn accept(
        &self,
        boot_epoch: u64,
        stream: StreamId,
        sequence: u64,
        now: Millis,
    ) -> Result<Arrival, Reject> {
        let known = self.boot_epoch.load(Ordering::Relaxed);
        if boot_epoch < known {
            return Err(Reject::Epoch);
        }
        if boot_epoch > known {
            // Positions first: killed in between, the new life's low numbers must not look too old.
            self.forget_positions();
            self.returned.fetch_and(!HAS_ITS_OWN, Ordering::Relaxed);
            self.boot_epoch.store(boot_epoch, Ordering::Relaxed);
        }
        let arrival = self.streams[stream.index()].accept(sequence)?;
        self.last_heard_ms.store(now.0, Ordering::Relaxed);
        add(&self.datagrams, 1);
        match arrival {
            // The other streams number what goes to all peers, and each of them gets a part of it.
            Arrival::InOrder { gap } if stream == StreamId::CHANGES => add(&self.gaps, gap),
            Arrival::InOrder { .. } => {}
            Arrival::Late => add(&self.late, 1),
        }
        Ok(arrival)
    }

    /// The sender's position in a stream.
    pub fn position(&self, stream: StreamId) -> &StreamPosition {
        &self.streams[stream.index()]
    }

    /// The boot epoch in which the sender was last heard; 0 if it never was.
    pub fn boot_epoch(&self) -> u64 {
        self.boot_epoch.load(Ordering::Relaxed)
    }

    /// Notes that the peer has given back all that it held of this node's sessions.
    pub fn set_gave_back(&self) {
        self.returned.fetch_or(GAVE_BACK, Ordering::Relaxed);
    }

    /// Whether the peer has given back what it held of this node's sessions, since this node lost them.
    pub fn gave_back(&self) -> bool {
        self.returned.load(Ordering::Relaxed) & GAVE_BACK != 0
    }

    /// Notes that the peer says it has back what this node held of its sessions.
    pub fn set_has_its_own(&self) {
        self.returned.fetch_or(HAS_ITS_OWN, Ordering::Relaxed);
    }

    /// Whether the peer has back, in its present life, what this node held of its sessions: only then does what
    /// it does not have mean that there is no such session.
    pub fn has_its_own(&self) -> bool {
        self.returned.load(Ordering::Relaxed) & HAS_ITS_OWN != 0
    }

    /// Adds to the number of this sender's records that were applied.
    pub fn add_records(&self, count: u64) {
        add(&self.records, count);
    }

    /// Adds to the number of this sender's datagrams and records that were rejected.
    pub fn add_rejects(&self, count: u64) {
        add(&self.rejects, count);
    }

    /// What is known of the sender, if the slot is taken. Read word by word while its writer goes on.
    pub fn snapshot(&self) -> Option<PeerSnapshot> {
        let identity = self.identity.load(Ordering::Relaxed);
        if identity == 0 {
            return None;
        }
        // SYNC peer-slot-taken: pairs with the release store in `take`. A fence, for the mapping may be read-only.
        fence(Ordering::Acquire);
        let value = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Some(PeerSnapshot {
            node: NodeId(identity as u16),
            numa: NumaId((identity >> 16) as u8),
            boot_epoch: value(&self.boot_epoch),
            last_heard_ms: value(&self.last_heard_ms),
            datagrams: value(&self.datagrams),
            records: value(&self.records),
            gaps: value(&self.gaps),
            late: value(&self.late),
            rejects: value(&self.rejects),
            highest: std::array::from_fn(|stream| self.streams[stream].highest()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1000);

    #[test]
    fn sequence_numbers_go_on_after_a_restart() {
        let state = SyncState::new();
        assert_eq!(state.begin(77), 77);
        assert_eq!(state.take_sequence(StreamId::CHANGES), 1);

        assert_eq!(state.begin(99), 77, "the state was kept, so the life goes on");
        assert_eq!(state.take_sequence(StreamId::CHANGES), 2);
        assert_eq!(state.take_sequence(StreamId::RANGES), 1);
    }

    #[test]
    fn a_newer_boot_epoch_restarts_every_stream_and_an_older_one_is_rejected() {
        let state = SyncState::new();
        let peer = state.peer(NodeId(2), NumaId(0), NOW).unwrap();
        peer.accept(10, StreamId::CHANGES, 500, NOW).unwrap();
        peer.accept(10, StreamId::RANGES, 500, NOW).unwrap();

        assert_eq!(peer.accept(11, StreamId::CHANGES, 1, NOW), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(peer.accept(11, StreamId::RANGES, 1, NOW), Ok(Arrival::InOrder { gap: 0 }));
        assert_eq!(peer.accept(10, StreamId::CHANGES, 501, NOW), Err(Reject::Epoch));
    }

    #[test]
    fn a_full_state_takes_only_slots_that_were_silent_for_long() {
        let state = SyncState::new();
        for node in 1..=PEERS_MAX as u16 {
            let peer = state.peer(NodeId(node), NumaId(0), NOW).unwrap();
            peer.accept(1, StreamId::CHANGES, 1, Millis(1000 + u64::from(node))).unwrap();
        }
        let newcomer = || (NodeId(60_000), NumaId(1));

        let (node, numa) = newcomer();
        assert_eq!(state.peer(node, numa, NOW).err(), Some(Reject::PeersFull));

        let (node, numa) = newcomer();
        assert!(state.peer(node, numa, Millis(1002 + SLOT_REUSE_MS)).is_ok());
        assert_eq!(state.peers().count(), PEERS_MAX);
        assert!(state.peers().all(|peer| peer.node != NodeId(1)), "the longest silent went");
    }

    #[test]
    fn the_state_outlives_its_secondary() {
        let directory = tempfile::tempdir().unwrap();
        let path = FileKind::SyncState.path(directory.path(), 0);
        create(&path, 1472).unwrap();
        {
            let state = attach(&path).unwrap();
            state.begin(5);
            state.take_sequence(StreamId::CHANGES);
            state.peer(NodeId(2), NumaId(0), NOW).unwrap().accept(9, StreamId::CHANGES, 44, NOW).unwrap();
        }

        let state = attach(&path).unwrap();

        assert_eq!(state.begin(6), 5);
        assert_eq!(state.take_sequence(StreamId::CHANGES), 2);
        let peer = state.peer(NodeId(2), NumaId(0), NOW).unwrap();
        assert_eq!(peer.accept(9, StreamId::CHANGES, 44, NOW), Err(Reject::Duplicate));
        let seen: Vec<PeerSnapshot> = attach_read_only(&path).unwrap().peers().collect();
        assert_eq!((seen.len(), seen[0].highest), (1, [44, 0, 0, 0]));
    }

    #[test]
    fn snapshot_shows_what_was_heard() {
        let state = SyncState::new();
        let peer = state.peer(NodeId(3), NumaId(1), NOW).unwrap();
        peer.accept(9, StreamId::CHANGES, 1, NOW).unwrap();
        peer.accept(9, StreamId::CHANGES, 4, NOW).unwrap();
        peer.accept(9, StreamId::CHANGES, 3, Millis(1234)).unwrap();
        peer.accept(9, StreamId::RANGES, 1, Millis(1234)).unwrap();
        peer.accept(9, StreamId::RANGES, 5, Millis(1234)).unwrap();
        peer.add_records(7);
        peer.add_rejects(2);

        let snapshot = PeerSnapshot {
            node: NodeId(3),
            numa: NumaId(1),
            boot_epoch: 9,
            last_heard_ms: 1234,
            datagrams: 5,
            records: 7,
            gaps: 2,
            late: 1,
            rejects: 2,
            highest: [4, 5, 0, 0],
        };
        assert_eq!(state.peers().collect::<Vec<_>>(), [snapshot]);
    }
}
