//! The receiver: peers' datagrams in, changes of the remote table out.

use std::net::IpAddr;

use super::Reject;
use super::apply::{Circumstances, apply};
use super::position::Arrival;
use super::remote::RemoteTable;
use super::roster::{Identity, Roster};
use super::seal::Opener;
use super::state::{PeerState, SyncState};
use super::wire::{Body, Header, Reader};
use crate::config::Timeouts;
use crate::counter::{Counter, CounterBlock};
use crate::flow::FlowKey;
use crate::time::Millis;

/// What became of the records of an accepted datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Records applied.
    pub applied: u32,
    /// Records rejected, skipped ones included.
    pub rejected: u32,
}

/// Decides what of the peers' datagrams is news, and applies it.
pub struct Receiver<'a, R> {
    identity: Identity,
    roster: R,
    timeouts: Timeouts,
    opener: Opener,
    /// The records of the datagram that was opened last.
    opened: Vec<u8>,
    state: &'a SyncState,
    counters: &'a CounterBlock,
    reader: Reader,
}

impl<'a, R: Roster> Receiver<'a, R> {
    /// A receiver that goes on where `state` says. `counters` is this thread's block.
    pub fn new(
        identity: Identity,
        roster: R,
        timeouts: Timeouts,
        opener: Opener,
        state: &'a SyncState,
        counters: &'a CounterBlock,
    ) -> Receiver<'a, R> {
        let (opened, reader) = (Vec::new(), Reader::new());
        Receiver { identity, roster, timeouts, opener, opened, state, counters, reader }
    }

    /// Takes one datagram: the UDP payload of a packet from `source` to this secondary's address and port, whose checksum
    /// was right. `is_local` says whether a session of this node's own tables has a key.
    ///
    /// # Errors
    /// The datagram was rejected as a whole: it has changed nothing but a counter. Rejected records within an accepted one
    /// are counted too, and the rest of it is applied.
    pub fn receive(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        now: Millis,
        table: &mut impl RemoteTable,
        is_local: impl Fn(&FlowKey) -> bool,
    ) -> Result<Received, Reject> {
        self.counters.add(Counter::SyncRxDatagrams, 1);
        self.counters.add(Counter::SyncRxBytes, datagram.len() as u64);
        let believed = self.admit(source, datagram).and_then(|header| {
            let bytes = self.opener.open(&header, datagram, &mut self.opened)?;
            let (peer, arrival) = place(self.state, &header, now)?;
            Ok((header, bytes, peer, arrival))
        });
        let (header, bytes, peer, arrival) =
            believed.inspect_err(|reject| self.counters.add(reject.counter(), 1))?;
        match arrival {
            Arrival::InOrder { gap } => self.counters.add(Counter::SyncRxGaps, gap),
            Arrival::Late => self.counters.add(Counter::SyncRxLate, 1),
        }
        let circumstances = Circumstances {
            sender: header.node,
            late: arrival == Arrival::Late,
            now,
            timeouts: &self.timeouts,
            is_local,
        };
        let mut received = Received::default();
        for record in self.reader.records(bytes) {
            match record.and_then(|record| apply(&record.body, &circumstances, table).map(|()| record)) {
                Ok(record) => {
                    received.applied += 1;
                    if let Some(counter) = applied_counter(&record.body) {
                        self.counters.add(counter, 1);
                    }
                    self.counters.add(Counter::SyncSkippedExtensions, u64::from(record.extensions_skipped));
                }
                Err(reject) => {
                    received.rejected += 1;
                    self.counters.add(reject.counter(), 1);
                }
            }
        }
        peer.add_records(u64::from(received.applied));
        peer.add_rejects(u64::from(received.rejected));
        Ok(received)
    }

    /// Decides, by what stands in the clear, whether to listen to a datagram at all.
    fn admit(&self, source: IpAddr, datagram: &[u8]) -> Result<Header, Reject> {
        let (header, _) = Header::decode(datagram)?;
        if header.cluster != self.identity.cluster {
            return Err(Reject::Cluster);
        }
        if header.node == self.identity.node {
            return Err(Reject::OwnNode);
        }
        if !self.roster.is_member(header.node, header.numa, source.to_canonical()) {
            return Err(Reject::Member);
        }
        if header.to.is_some_and(|to| to != (self.identity.node, self.identity.numa)) {
            return Err(Reject::Addressee);
        }
        if header.membership_epoch != 0 {
            return Err(Reject::MembershipEpoch);
        }
        // Once more when it was opened. Here it saves deriving a key.
        if header.boot_epoch < self.state.boot_epoch_of(header.node, header.numa) {
            return Err(Reject::Epoch);
        }
        Ok(header)
    }
}

/// Decides whether a datagram that was opened is news, and remembers it. Nothing is remembered of others.
fn place<'a>(state: &'a SyncState, header: &Header, now: Millis) -> Result<(&'a PeerState, Arrival), Reject> {
    let peer = state.peer(header.node, header.numa, now)?;
    let arrival = peer
        .accept(header.boot_epoch, header.stream, header.sequence, now)
        .inspect_err(|_| peer.add_rejects(1))?;
    Ok((peer, arrival))
}

fn applied_counter(body: &Body) -> Option<Counter> {
    match body {
        Body::Upsert(_) => Some(Counter::SyncRxUpserts),
        Body::Delete(_) => Some(Counter::SyncRxDeletes),
        Body::Refresh(_) => Some(Counter::SyncRxRefreshes),
        _ => None,
    }
}
