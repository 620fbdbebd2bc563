//! The sender: events of this node's workers in, datagrams for every peer out.

use std::net::IpAddr;

use super::ageing;
use super::event::{Event, EventKind};
use super::roster::Identity;
use super::seal::Sealer;
use super::state::SyncState;
use super::transmit::{Transmission, Transmit};
use super::wire::{BatchWriter, Body, Ended, Header, PushError, Refreshed, Reported, STREAMS_MAX, StreamId};
use crate::config::Timeouts;
use crate::counter::{Counter, CounterBlock};
use crate::session::Session;
use crate::time::{Micros, Millis};

/// What a sender is made of.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Who sends.
    pub identity: Identity,
    /// Every peer's every sync address: each gets every datagram.
    pub peers: Vec<IpAddr>,
    /// Largest UDP payload, bytes; see [`payload_bytes_max`](super::wire::payload_bytes_max).
    pub payload_max: usize,
    /// Longest time that a record waits for its datagram to fill, microseconds.
    pub flush_us: u32,
    /// This node's timeouts.
    pub timeouts: Timeouts,
}

/// One stream's datagram in the making.
struct Stream {
    batch: BatchWriter,
    /// When its first record came.
    opened: Micros,
}

/// Encodes what the workers report. It decides nothing about when a session is worth reporting: the workers do.
pub struct Sender<'a> {
    config: SenderConfig,
    state: &'a SyncState,
    counters: &'a CounterBlock,
    boot_epoch: u64,
    sealer: Sealer,
    streams: [Stream; STREAMS_MAX],
}

impl<'a> Sender<'a> {
    /// A sender that goes on where `state` says. [`SyncState::begin`] was called before. `counters` is this thread's block.
    pub fn new(
        config: SenderConfig,
        sealer: Sealer,
        state: &'a SyncState,
        counters: &'a CounterBlock,
    ) -> Sender<'a> {
        let records_max = config.payload_max.saturating_sub(sealer.overhead_bytes());
        let stream = || Stream { batch: BatchWriter::new(records_max), opened: Micros(0) };
        let streams = std::array::from_fn(|_| stream());
        Sender { boot_epoch: state.boot_epoch(), config, state, counters, sealer, streams }
    }

    /// Adds an event to a stream's datagram, which is sent when it is full or [`flush_due`](Sender::flush_due).
    ///
    /// Events of sessions that another node owns are skipped. The end of a session never overtakes older news of it: what
    /// the other streams have gathered goes out first.
    pub fn push(&mut self, stream: StreamId, event: &Event, now: Micros, out: &mut impl Transmit) {
        if event.session.owner != self.config.identity.node {
            self.counters.add(Counter::EventsForeign, 1);
            return;
        }
        if event.kind == EventKind::Delete {
            for other in StreamId::ALL.into_iter().filter(|other| *other != stream) {
                self.flush(other, out);
            }
        }
        let body = body_of(event, &self.config.timeouts, now.millis());
        let mut pushed = self.streams[stream.index()].batch.push(&body);
        if pushed == Err(PushError::Full) {
            self.flush(stream, out);
            pushed = self.streams[stream.index()].batch.push(&body);
        }
        if pushed.is_err() {
            self.counters.add(Counter::EventsInvalid, 1);
            return;
        }
        self.counters.add(sent_counter(event.kind), 1);
        let open = &mut self.streams[stream.index()];
        if open.batch.records() == 1 {
            open.opened = now;
        }
        if open.batch.is_full() {
            self.flush(stream, out);
        }
    }

    /// Sends the datagrams whose first record has waited for `flush_us`.
    pub fn flush_due(&mut self, now: Micros, out: &mut impl Transmit) {
        for stream in StreamId::ALL {
            if now.since(self.streams[stream.index()].opened) >= u64::from(self.config.flush_us) {
                self.flush(stream, out);
            }
        }
    }

    /// Sends everything, due or not: before a pause or the end.
    pub fn flush_all(&mut self, out: &mut impl Transmit) {
        for stream in StreamId::ALL {
            self.flush(stream, out);
        }
    }

    /// When [`flush_due`](Sender::flush_due) has something to do, if there is anything to send.
    pub fn next_flush(&self) -> Option<Micros> {
        let open = self.streams.iter().filter(|stream| !stream.batch.is_empty());
        open.map(|stream| Micros(stream.opened.0.saturating_add(u64::from(self.config.flush_us)))).min()
    }

    fn flush(&mut self, stream: StreamId, out: &mut impl Transmit) {
        let batch = &mut self.streams[stream.index()].batch;
        if batch.is_empty() {
            return;
        }
        let identity = &self.config.identity;
        let header = Header {
            cluster: identity.cluster,
            node: identity.node,
            numa: identity.numa,
            key: self.sealer.key(),
            to: None,
            stream,
            boot_epoch: self.boot_epoch,
            sequence: self.state.take_sequence(stream),
            membership_epoch: 0,
        };
        let payload = batch.datagram(&header);
        if self.sealer.seal(&header, payload).is_err() {
            // Its place was used before. The next number is taken then, and this one's records are found missing.
            self.counters.add(Counter::SyncTxUnsealed, 1);
            batch.clear();
            return;
        }
        for peer in &self.config.peers {
            match out.transmit(*peer, payload) {
                Transmission::Sent => {
                    self.counters.add(Counter::SyncTxDatagrams, 1);
                    self.counters.add(Counter::SyncTxBytes, payload.len() as u64);
                }
                Transmission::QueueFull => self.counters.add(Counter::SyncTxFull, 1),
                Transmission::NoNeighbour => self.counters.add(Counter::SyncTxNoNeighbour, 1),
            }
        }
        batch.clear();
    }
}

fn sent_counter(kind: EventKind) -> Counter {
    match kind {
        EventKind::Upsert | EventKind::Claim => Counter::SyncTxUpserts,
        EventKind::Delete => Counter::SyncTxDeletes,
        EventKind::Refresh => Counter::SyncTxRefreshes,
    }
}

/// What peers are told of an event.
fn body_of(event: &Event, timeouts: &Timeouts, now: Millis) -> Body {
    let Session { generation, state, client, vip, local, server, .. } = event.session;
    let remaining_ms = ageing::remaining_ms(&event.session, timeouts, now);
    match event.kind {
        EventKind::Upsert | EventKind::Claim => {
            Body::Upsert(Reported { generation, state, remaining_ms, client, vip, local, server })
        }
        EventKind::Delete => Body::Delete(Ended { generation, state, client, vip }),
        EventKind::Refresh => Body::Refresh(Refreshed { generation, state, remaining_ms, client, vip }),
    }
}
