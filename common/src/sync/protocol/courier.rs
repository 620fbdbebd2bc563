//! The courier: gathers records into datagrams, numbers them, keeps them for who misses one, and sends them.

use std::net::IpAddr;

use super::OwnerSlot;
use super::retransmit::RetransmitRing;
use crate::counter::{Counter, CounterBlock};
use crate::id::{NodeId, NumaId};
use crate::sync::roster::Identity;
use crate::sync::seal::Sealer;
use crate::sync::state::SyncState;
use crate::sync::transmit::{Transmission, Transmit};
use crate::sync::wire::{BatchWriter, Body, Header, PushError, Reported, StreamId};
use crate::time::Micros;

/// One peer, as a datagram's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Addressee {
    pub(super) slot: OwnerSlot,
    pub(super) node: NodeId,
    pub(super) numa: NumaId,
    pub(super) address: IpAddr,
}

/// A datagram for one peer in the making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Letter {
    to: Addressee,
    stream: StreamId,
}

/// Makes and sends datagrams.
///
/// The change stream goes to every peer and is numbered without gaps; its last datagrams can be had again. The other streams
/// carry letters to single peers: whoever misses an answer asks again.
pub(super) struct Courier<'a> {
    identity: Identity,
    boot_epoch: u64,
    state: &'a SyncState,
    pub(super) sealer: Sealer,
    /// The longest datagram that this node sends and receives.
    datagram_bytes_max: usize,
    ring: RetransmitRing<'a>,
    counters: &'a CounterBlock,
    flush_us: u64,
    /// Every address that gets the change stream.
    pub(super) everyone: Vec<IpAddr>,
    /// Not a member: nothing is sent.
    pub(super) silent: bool,
    /// Which membership this node goes by.
    pub(super) membership_epoch: u32,
    changes: BatchWriter,
    opened: Micros,
    letter: BatchWriter,
    addressed: Option<Letter>,
    again: Vec<u8>,
    full: bool,
}

impl<'a> Courier<'a> {
    pub(super) fn new(
        identity: Identity,
        datagram_bytes_max: usize,
        flush_us: u32,
        sealer: Sealer,
        state: &'a SyncState,
        ring: RetransmitRing<'a>,
        counters: &'a CounterBlock,
    ) -> Courier<'a> {
        let records_max = datagram_bytes_max.saturating_sub(sealer.overhead_bytes());
        Courier {
            identity,
            boot_epoch: state.boot_epoch(),
            state,
            sealer,
            datagram_bytes_max,
            ring,
            counters,
            flush_us: flush_us.into(),
            everyone: Vec::new(),
            silent: false,
            membership_epoch: 0,
            changes: BatchWriter::new(records_max),
            opened: Micros(0),
            letter: BatchWriter::new(records_max),
            addressed: None,
            again: Vec::with_capacity(datagram_bytes_max),
            full: false,
        }
    }

    /// Sends no datagrams that are longer than the peers can receive: the change stream is the same for all.
    pub(super) fn limit(&mut self, peers_bytes_max: impl Iterator<Item = usize>) {
        let bytes_max = peers_bytes_max.fold(self.datagram_bytes_max, usize::min);
        let records_max = bytes_max.saturating_sub(self.sealer.overhead_bytes());
        self.changes.set_limit(records_max);
        self.letter.set_limit(records_max);
    }

    /// Goes on in another life of this sender.
    pub(super) fn begin_life(&mut self, boot_epoch: u64, sealer: Sealer) {
        (self.boot_epoch, self.sealer) = (boot_epoch, sealer);
    }

    /// Whether a transmit queue was full since the last call.
    pub(super) fn take_full(&mut self) -> bool {
        std::mem::take(&mut self.full)
    }

    /// Tells every peer. Sent when the datagram is full or `flush_us` after its first record.
    pub(super) fn tell(&mut self, body: &Body, now: Micros, out: &mut impl Transmit) {
        let mut pushed = self.changes.push(body);
        if pushed == Err(PushError::Full) {
            self.flush_changes(out);
            pushed = self.changes.push(body);
        }
        if pushed.is_err() {
            self.counters.add(Counter::EventsInvalid, 1);
            return;
        }
        if let Some(counter) = sent_counter(body) {
            self.counters.add(counter, 1);
        }
        if self.changes.records() == 1 {
            self.opened = now;
        }
        if self.changes.is_full() {
            self.flush_changes(out);
        }
    }

    /// Writes to one peer; sent by [`Courier::post`], or before a letter to somebody else is begun.
    pub(super) fn write(&mut self, to: Addressee, stream: StreamId, body: &Body, out: &mut impl Transmit) {
        if self.try_write(to, stream, body, out) {
            return;
        }
        self.post(out);
        self.addressed = Some(Letter { to, stream });
        let _ = self.letter.push(body);
    }

    /// Writes to one peer if there is room in the letter; `false` if it is full.
    pub(super) fn try_write(
        &mut self,
        to: Addressee,
        stream: StreamId,
        body: &Body,
        out: &mut impl Transmit,
    ) -> bool {
        self.address(to, stream, out);
        self.letter.push(body) != Err(PushError::Full)
    }

    /// [`Courier::try_write`] of an upsert.
    #[inline(always)]
    pub(super) fn try_write_upsert(
        &mut self,
        to: Addressee,
        stream: StreamId,
        reported: &Reported,
        out: &mut impl Transmit,
    ) -> bool {
        self.address(to, stream, out);
        self.letter.push_upsert(reported) != Err(PushError::Full)
    }

    /// Begins a letter to a peer, if the one that is being written is another.
    #[inline(always)]
    fn address(&mut self, to: Addressee, stream: StreamId, out: &mut impl Transmit) {
        let letter = Letter { to, stream };
        if self.addressed != Some(letter) {
            self.post(out);
            self.addressed = Some(letter);
        }
    }

    /// Sends the letter that is being written.
    pub(super) fn post(&mut self, out: &mut impl Transmit) {
        let Some(Letter { to, stream }) = self.addressed.take() else { return };
        if self.letter.is_empty() {
            return;
        }
        if !self.silent {
            let header = Header { to: Some((to.node, to.numa)), ..self.header(stream) };
            let datagram = self.letter.datagram(&header);
            if self.sealer.seal(&header, datagram).is_ok() {
                let sent = out.transmit(to.address, datagram);
                self.full |= count(self.counters, sent, datagram.len());
            } else {
                self.counters.add(Counter::SyncTxUnsealed, 1);
            }
        }
        self.letter.clear();
    }

    fn header(&self, stream: StreamId) -> Header {
        Header {
            cluster: self.identity.cluster,
            node: self.identity.node,
            numa: self.identity.numa,
            to: None,
            key: self.sealer.key(),
            stream,
            boot_epoch: self.boot_epoch,
            sequence: self.state.take_sequence(stream),
            membership_epoch: self.membership_epoch,
        }
    }

    /// Sends the changes whose first record has waited long enough, and the letter.
    pub(super) fn flush_due(&mut self, now: Micros, out: &mut impl Transmit) {
        self.post(out);
        if now.since(self.opened) >= self.flush_us {
            self.flush_changes(out);
        }
    }

    /// When the changes are due, if there are any.
    pub(super) fn next_flush(&self) -> Option<Micros> {
        (!self.changes.is_empty()).then(|| Micros(self.opened.0.saturating_add(self.flush_us)))
    }

    /// Sends the changes.
    pub(super) fn flush_changes(&mut self, out: &mut impl Transmit) {
        if self.changes.is_empty() {
            return;
        }
        if !self.silent {
            let header = self.header(StreamId::CHANGES);
            let datagram = self.changes.datagram(&header);
            if self.sealer.seal(&header, datagram).is_ok() {
                // Sealed: what is sent again are these bytes.
                self.ring.keep(header.sequence, datagram);
                for peer in &self.everyone {
                    let sent = out.transmit(*peer, datagram);
                    self.full |= count(self.counters, sent, datagram.len());
                }
            } else {
                self.counters.add(Counter::SyncTxUnsealed, 1);
            }
        }
        self.changes.clear();
    }

    /// Sends a datagram of the change stream again, if it is still there.
    pub(super) fn send_again(&mut self, to: IpAddr, sequence: u64, out: &mut impl Transmit) -> bool {
        if self.silent || !self.ring.copy(sequence, &mut self.again) {
            return false;
        }
        let sent = out.transmit(to, &self.again);
        self.full |= count(self.counters, sent, self.again.len());
        true
    }
}

/// Counts what became of a datagram; whether the queue was full.
fn count(counters: &CounterBlock, sent: Transmission, bytes: usize) -> bool {
    match sent {
        Transmission::Sent => {
            counters.add(Counter::SyncTxDatagrams, 1);
            counters.add(Counter::SyncTxBytes, bytes as u64);
        }
        Transmission::QueueFull => counters.add(Counter::SyncTxFull, 1),
        Transmission::NoNeighbour => counters.add(Counter::SyncTxNoNeighbour, 1),
    }
    sent == Transmission::QueueFull
}

fn sent_counter(body: &Body) -> Option<Counter> {
    match body {
        Body::Upsert(_) => Some(Counter::SyncTxUpserts),
        Body::Delete(_) => Some(Counter::SyncTxDeletes),
        Body::Refresh(_) => Some(Counter::SyncTxRefreshes),
        _ => None,
    }
}
