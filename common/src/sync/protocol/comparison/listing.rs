//! Listing: the sessions of ranges that differ, as the peer has them, beside those that stand here.

use super::{APART_MS, Kind, RETRY_MS, Running, SESSIONS, Step, kind_of, unmarked};
use crate::id::NodeId;
use crate::session::Session;
use crate::sync::protocol::digest::word_of;
use crate::sync::protocol::inbox::Origin;
use crate::sync::protocol::{Place, Protocol, Tables, Turn};
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, RangeEnd, RangeId, RangeRequest, Reported};
use crate::sync::{address, ageing};
use crate::time::Millis;

/// Sessions in a batch of ranges; one range may have more.
const BATCH_SESSIONS: u64 = 16_384;

/// Ranges in a batch.
const BATCH_RANGES: usize = 8;

/// Sessions of this node's that a batch keeps in mind; what is more is looked at one by one.
const HERE_MAX: usize = 1 << 18;

/// Places looked at in one call.
const PLACES: u32 = 8192;

/// Times that a range is asked for.
const TRIES_MAX: u32 = 8;

/// A session that stands here.
#[derive(Clone, Copy, Debug)]
struct Here {
    word: u64,
    place: Place,
    seen: bool,
}

/// A range that was asked for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    range: RangeId,
    nonce: u32,
    /// Sessions that came of the last attempt, and in all attempts without those that came before.
    got: u32,
    distinct: u32,
    /// How many there are, once that is known.
    all: Option<u32>,
    tries: u32,
    retry_at: Millis,
}

impl Asked {
    fn is_complete(&self) -> bool {
        self.all.is_some_and(|all| self.got >= all || self.distinct >= all)
    }

    fn is_over(&self) -> bool {
        self.is_complete() || self.tries > TRIES_MAX
    }
}

/// A batch of ranges.
#[derive(Debug)]
pub(super) struct Listing {
    ranges: Vec<Asked>,
    /// The place from which on to look for sessions; `None` once all were looked at.
    gather_from: Option<u32>,
    /// By word, once all are there.
    here: Vec<Here>,
}

impl Listing {
    /// The next batch of the ranges that are to be listed, at least one.
    pub(super) fn new(to_list: &mut Vec<(RangeId, u32)>) -> Listing {
        let mut sessions = 0;
        let fits = |(_, of_range): &&(RangeId, u32)| {
            let first = sessions == 0;
            sessions += 1 + u64::from(*of_range);
            first || sessions <= BATCH_SESSIONS
        };
        let count = to_list.iter().take(BATCH_RANGES).take_while(fits).count();
        let asked = |(range, _)| Asked {
            range,
            nonce: 0,
            got: 0,
            distinct: 0,
            all: None,
            tries: 0,
            retry_at: Millis(0),
        };
        let ranges = to_list.drain(..count).map(asked).collect();
        Listing { ranges, gather_from: Some(0), here: Vec::new() }
    }
}

impl Protocol<'_> {
    pub(super) fn poll_listing<T: Tables, X: Transmit>(
        &mut self,
        running: &mut Running,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Step::Listing(listing) = &mut running.step else { return };
        if let Some(first) = listing.gather_from {
            running.heard = turn.millis();
            let owner = running.task.side.owner(self.peers[running.task.peer].slot);
            for (place, entry) in self.ledger.scan(first, PLACES) {
                let range = self.ledger.range_of(entry.word);
                if entry.owner == owner
                    && listing.ranges.iter().any(|asked| asked.range == range)
                    && listing.here.len() < HERE_MAX
                {
                    listing.here.push(Here { word: entry.word, place, seen: false });
                }
            }
            let next = first.saturating_add(PLACES);
            listing.gather_from = (next < self.ledger.places()).then_some(next);
            if listing.gather_from.is_none() {
                listing.here.sort_unstable_by_key(|here| here.word);
            }
            return;
        }
        if listing.ranges.iter().all(Asked::is_over) {
            self.end_listing(running, turn);
            return;
        }
        let (to, stream) = (self.peers[running.task.peer].addressee(), running.task.side.asking());
        for asked in listing.ranges.iter_mut().filter(|asked| !asked.is_over()) {
            if turn.millis() < asked.retry_at {
                continue;
            }
            asked.tries += 1;
            if asked.is_over() {
                continue;
            }
            asked.nonce = self.comparing.next_nonce();
            (asked.got, asked.all) = (0, None);
            asked.retry_at = turn.millis() + APART_MS;
            let first = RangeId(asked.range.0 | SESSIONS);
            let request = Body::RangeRequest(RangeRequest { first, count: 1, nonce: asked.nonce });
            self.courier.write(to, stream, &request, turn.out);
        }
    }

    /// A session of a list has come.
    pub(super) fn on_listed_session<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        nonce: u32,
        reported: &Reported,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Some(mut running) = self.comparing.running.take() else { return };
        let owner = self.owner_of(running.task);
        let session = self.listed(reported, owner, turn.millis());
        let word = word_of(&session);
        let is_answer = running.task.is_answer(origin);
        let Running { step, positions, .. } = &mut *running;
        if let Step::Listing(listing) = step
            && is_answer
            && let Some(asked) = listing.ranges.iter_mut().find(|asked| asked.nonce == nonce)
        {
            asked.got += 1;
            asked.retry_at = turn.millis() + RETRY_MS;
            let at = listing.here.binary_search_by_key(&word, |here| here.word);
            let is_new = match at.map(|at| &mut listing.here[at]) {
                Ok(here) => !std::mem::replace(&mut here.seen, true),
                Err(_) => !positions.contains_key(&session.client_key()),
            };
            asked.distinct += u32::from(is_new);
            running.heard = turn.millis();
            if at.is_err() && !running.suspect(session.client_key()) {
                self.add_unconfirmed();
            }
        }
        self.comparing.running = Some(running);
    }

    /// A list has come to its end.
    pub(super) fn on_listed<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        end: &RangeEnd,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Some(running) = &mut self.comparing.running else { return };
        let Step::Listing(listing) = &mut running.step else { return };
        if !running.task.is_answer(origin) || kind_of(end.range) != Some(Kind::Sessions) {
            return;
        }
        let range = unmarked(end.range);
        let asked = listing.ranges.iter_mut().find(|asked| (asked.range, asked.nonce) == (range, end.nonce));
        if let Some(asked) = asked {
            asked.all = Some(end.sessions);
            asked.retry_at = turn.millis() + RETRY_MS;
            running.heard = turn.millis();
        }
    }

    /// What stands here and was in no list is suspect as well.
    fn end_listing<T: Tables, X: Transmit>(&mut self, running: &mut Running, turn: &mut Turn<'_, T, X>) {
        let Step::Listing(listing) = &mut running.step else { return };
        let here = std::mem::take(&mut listing.here);
        let cut_short = |asked: &&Asked| !asked.is_complete();
        let incomplete: Vec<RangeId> =
            listing.ranges.iter().filter(cut_short).map(|asked| asked.range).collect();
        let heard: u64 = listing.ranges.iter().map(|asked| u64::from(asked.distinct)).sum();
        let mut unseen = 0;
        for Here { word, place, .. } in here.iter().filter(|here| !here.seen) {
            if incomplete.contains(&self.ledger.range_of(*word)) {
                continue;
            }
            let session = turn.tables.session(*place).filter(|session| word_of(session) == *word);
            let Some(session) = session else { continue };
            unseen += 1;
            if !running.suspect(session.client_key()) {
                self.add_unconfirmed();
            }
        }
        if let Some(view) = &mut self.comparing.view {
            view.ranges_skipped += incomplete.len() as u32;
            view.sessions += heard + unseen;
        }
        running.heard = turn.millis();
        self.begin_listing(running);
    }

    fn add_unconfirmed(&mut self) {
        if let Some(view) = &mut self.comparing.view {
            view.unconfirmed += 1;
        }
    }

    /// A session as the peer has it.
    pub(super) fn listed(&self, reported: &Reported, owner: NodeId, now: Millis) -> Session {
        let timeouts = &self.config.timeouts;
        Session {
            protocol: address::protocol_of(reported.state),
            client: reported.client,
            vip: reported.vip,
            local: reported.local,
            server: reported.server,
            owner,
            generation: reported.generation,
            state: reported.state,
            last_seen: ageing::last_seen(reported.state, reported.remaining_ms, timeouts, now),
            last_sent: Millis(0),
        }
    }
}
