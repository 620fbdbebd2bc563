//! The inbox: a peer's datagram, from its header to what each of its records changes.

use std::net::IpAddr;

use super::mutation::Mutation;
use super::news::Upsert;
use super::{HELD, Protocol, Tables, Turn, comparison};
use crate::counter::Counter;
use crate::sync::Reject;
use crate::sync::position;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, Header, NodeState, Piece, RangeId, Record, StreamId};
use crate::time::{Micros, Millis};

/// What is to be known of the datagram that a record came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The sender's place among the peers.
    pub(super) peer: usize,
    pub(super) stream: StreamId,
    /// Whether a later datagram of the same stream was received before.
    pub(super) late: bool,
    /// Whether everything that the sender said before was received, and nothing that it said later.
    pub(super) exact: bool,
    /// In a range that is sent as a whole: which.
    pub(super) range: Option<(RangeId, u32)>,
}

impl Origin {
    /// Whether what comes belongs to a comparison: it is looked at and not believed.
    #[inline]
    pub(super) fn is_compared(&self) -> bool {
        self.range.is_some_and(|(range, _)| comparison::unmarked(range) != range)
    }
}

/// What a datagram's records came to.
#[derive(Default)]
pub(super) struct Told {
    pub(super) applied: u64,
    pub(super) rejected: u64,
    pub(super) upserts: u64,
    extensions_skipped: u64,
}

impl Protocol<'_> {
    /// Takes one datagram: the UDP payload of a packet from `source`.
    ///
    /// # Errors
    /// The datagram was rejected as a whole: it has changed nothing but a counter. Rejected records within an accepted one are
    /// counted too, and the rest of it is applied.
    pub fn on_datagram<T: Tables, X: Transmit>(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        now: Micros,
        tables: &mut T,
        out: &mut X,
    ) -> Result<(), Reject> {
        self.count(Counter::SyncRxDatagrams);
        self.counters.add(Counter::SyncRxBytes, datagram.len() as u64);
        let mut opened = std::mem::take(&mut self.opened);
        let taken = self.take_datagram(source, datagram, &mut opened, now, tables, out);
        self.opened = opened;
        taken.inspect_err(|reject| self.count(reject.counter()))
    }

    /// Takes a datagram, whose records are put into `opened` if they are sealed.
    fn take_datagram<T: Tables, X: Transmit>(
        &mut self,
        source: IpAddr,
        datagram: &[u8],
        opened: &mut Vec<u8>,
        now: Micros,
        tables: &mut T,
        out: &mut X,
    ) -> Result<(), Reject> {
        let header = self.admit(source, datagram).inspect_err(|reject| {
            if *reject == Reject::Epoch {
                self.note_outdated(datagram);
            }
        })?;
        let records = self.opener.open(&header, datagram, opened)?;
        let mut origin = self.place(&header, source.to_canonical(), now.millis())?;
        let mut turn = Turn { tables, out, now };
        let mut reader = self.reader.take().unwrap_or_default();
        let mut told = Told::default();
        let mut records = reader.records(records);
        while let Some(piece) = records.next_piece() {
            match piece {
                Ok(Piece::UpsertsV4(upserts)) => {
                    self.take_upserts(&mut origin, &upserts, &mut turn, &mut told)
                }
                Ok(Piece::UpsertsV6(upserts)) => {
                    self.take_upserts(&mut origin, &upserts, &mut turn, &mut told)
                }
                Ok(Piece::Record(record)) => self.take_record(&mut origin, &record, &mut turn, &mut told),
                Err(reject) => self.note(Err(reject), &mut told),
            }
        }
        let Told { applied, rejected, upserts, extensions_skipped } = told;
        self.counters.add(Counter::SyncSkippedExtensions, extensions_skipped);
        self.counters.add(Counter::SyncRxUpserts, upserts);
        self.reader = Some(reader);
        self.peers[origin.peer].state.add_records(applied);
        self.peers[origin.peer].state.add_rejects(rejected);
        self.courier.post(turn.out);
        Ok(())
    }

    /// Decides, by what stands in the clear, whether to listen to a datagram at all.
    fn admit(&self, source: IpAddr, datagram: &[u8]) -> Result<Header, Reject> {
        let (header, _) = Header::decode(datagram)?;
        let identity = self.config.identity;
        let source = source.to_canonical();
        if header.cluster != identity.cluster {
            return Err(Reject::Cluster);
        }
        if header.node == identity.node {
            return Err(Reject::OwnNode);
        }
        let member = self.members.iter().find(|member| member.node == header.node);
        let is_welcome = member.is_some_and(|member| member.addresses.contains(&source));
        if !is_welcome && !self.breaks(Mutation::DepartedAreHeard) {
            return Err(Reject::Member);
        }
        if header.to.is_some_and(|to| to != (identity.node, identity.numa)) {
            return Err(Reject::Addressee);
        }
        if (header.membership_epoch == 0) != (self.courier.membership_epoch == 0) {
            return Err(Reject::MembershipEpoch);
        }
        // Once more when it was opened. Here it saves deriving a key.
        if header.boot_epoch < self.state.boot_epoch_of(header.node, header.numa) {
            return Err(Reject::Epoch);
        }
        Ok(header)
    }

    /// Decides whether a datagram that was opened is news, and remembers it. Nothing is remembered of others.
    fn place(&mut self, header: &Header, source: IpAddr, now: Millis) -> Result<Origin, Reject> {
        let at = self.open_peer(header.node, header.numa, source, now).ok_or(Reject::PeersFull)?;
        let state = self.peers[at].state;
        let known_epoch = state.boot_epoch();
        let arrival = state
            .accept(header.boot_epoch, header.stream, header.sequence, now)
            .inspect_err(|_| state.add_rejects(1))?;
        if header.stream == StreamId::CHANGES {
            match arrival {
                position::Arrival::InOrder { gap } => self.counters.add(Counter::SyncRxGaps, gap),
                position::Arrival::Late => self.count(Counter::SyncRxLate),
            }
        }
        let peer = &mut self.peers[at];
        if known_epoch != header.boot_epoch {
            peer.begin_anew();
        }
        peer.address = source;
        peer.heard = Some(now);
        let position = state.position(header.stream);
        let exact = header.stream == StreamId::CHANGES
            && position.highest() == header.sequence
            && position.is_whole();
        let origin = Origin {
            peer: at,
            stream: header.stream,
            late: arrival == position::Arrival::Late,
            exact,
            range: None,
        };
        Ok(origin)
    }

    /// Counts what a record came to.
    #[inline]
    pub(super) fn note(&self, outcome: Result<(), Reject>, told: &mut Told) {
        match outcome {
            Ok(()) => told.applied += 1,
            Err(reject) => {
                told.rejected += 1;
                self.count(reject.counter());
            }
        }
    }

    fn take_record<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        record: &Record,
        turn: &mut Turn<'_, T, X>,
        told: &mut Told,
    ) {
        told.extensions_skipped += u64::from(record.extensions_skipped);
        let outcome = match record.body {
            Body::Upsert(reported) if !origin.is_compared() => {
                self.take_upsert(origin, &Upsert::new(reported, turn.tables), turn, told)
            }
            body => self.take(origin, &body, turn),
        };
        #[cfg(test)]
        self.print(origin, &record.body, outcome);
        self.note(outcome, told);
    }

    /// Takes an upsert that belongs to no comparison.
    pub(super) fn take_upsert<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        upsert: &Upsert,
        turn: &mut Turn<'_, T, X>,
        told: &mut Told,
    ) -> Result<(), Reject> {
        let outcome = self.on_upsert(origin, upsert, turn);
        told.upserts += u64::from(outcome.is_ok());
        if origin.stream == HELD {
            self.on_given_back(origin);
        }
        outcome
    }

    #[cfg(test)]
    pub(super) fn print(&self, origin: &Origin, body: &Body, outcome: Result<(), Reject>) {
        if self.prints {
            let sender = self.peers[origin.peer].node;
            eprintln!("node {} took of {sender}: {body:?} {origin:?}: {outcome:?}", self.node);
        }
    }

    /// Does what a record says, an upsert only if it belongs to a comparison.
    pub(super) fn take<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        body: &Body,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if let Some(taken) = self.take_of_comparison(origin, body, turn) {
            return taken;
        }
        match *body {
            Body::Upsert(reported) => self.on_upsert(origin, &Upsert::new(reported, turn.tables), turn),
            Body::Delete(ended) => {
                self.on_delete(origin, &ended, turn).map(|()| self.count(Counter::SyncRxDeletes))
            }
            Body::Refresh(refreshed) => {
                self.on_refresh(origin, &refreshed, turn).map(|()| self.count(Counter::SyncRxRefreshes))
            }
            Body::Hello(hello) => self.on_hello(origin, hello, turn),
            Body::RangeDigest(digest) => self.on_digest(origin, &digest, turn),
            Body::RangeRequest(request) => self.on_request(origin, &request),
            Body::RangeBegin(begin) => {
                origin.range = Some((begin.range, begin.nonce));
                Ok(())
            }
            Body::RangeEnd(end) => self.on_end(origin, &end, turn),
            Body::Query(sought) => self.on_query(origin, &sought, turn),
            Body::NotMine(sought) => self.on_not_mine(&sought),
            Body::Nack(nack) => self.on_nack(origin, &nack, turn),
            Body::EpochHeard(heard) => self.on_epoch_heard(origin, &heard),
            // Receivers pace a sender by how many ranges they ask for; there is nothing else that they could be sent too much of.
            Body::Credit(_) => Ok(()),
        }
    }

    /// A peer says how it is.
    fn on_hello<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        hello: crate::sync::wire::Hello,
        turn: &mut Turn<'_, T, X>,
    ) -> Result<(), Reject> {
        if origin.stream == HELD {
            self.peers[origin.peer].state.set_has_its_own();
        }
        self.peers[origin.peer].hello = Some(hello);
        let hellos = self.peers.iter().filter_map(|peer| peer.hello);
        self.courier.limit(hellos.map(|hello| hello.datagram_bytes_max.into()));
        if hello.wants_answer {
            self.say_hello(origin.peer, false, turn);
        }
        // It waits for the digest with which it finds that it has everything.
        if hello.wants_answer || matches!(hello.state, NodeState::Joining | NodeState::Syncing) {
            self.housekeeping.tell_total_soon(turn.millis());
        }
        Ok(())
    }
}
