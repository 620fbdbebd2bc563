//! Comparison: whether this node and a peer have the same of each other's sessions, for an operator who asks. The asking side.
//!
//! Two things are compared, one after the other: what the peer owns with what is held here of it, and what this node owns with
//! what the peer holds of it. Each of them in steps that sort out what is only on its way:
//!
//! 1. The digests of all ranges, and half a second later again of those that differed.
//! 2. The sessions of ranges that differed twice, as a list.
//! 3. Each session that is not in both lists as it is, by itself, twice with half a second in between. What is then as different
//!    as it was before is a difference.
//!
//! Nothing is changed by it, in no table and not in what resync knows. Its questions and answers are those of resync, marked in the
//! number of the range; the mark keeps both apart. What it keeps is bounded: a batch of ranges, and lists of fixed length.

mod answering;
mod listing;
#[cfg(test)]
mod tests;
mod view;

pub use view::{CompareError, Comparison, ComparisonState, Difference, DifferenceKind, Version};

use answering::Allowance;
use listing::Listing;
use rustc_hash::FxHashMap;

use super::digest::{Digest, word_of};
use super::inbox::Origin;
use super::peer::RangeSet;
use super::{CONTROL, HELD, OwnerSlot, Protocol, Tables, Turn};
use crate::flow::FlowKey;
use crate::id::NodeId;
use crate::session::{Direction, Session};
use crate::sync::Reject;
use crate::sync::transmit::Transmit;
use crate::sync::wire::{Body, RangeBegin, RangeDigest, RangeId, RangeRequest, Reported, Sought, StreamId};
use crate::time::Millis;

/// The mark of a list of sessions.
pub(super) const SESSIONS: u16 = 1 << 13;

/// The mark of digests.
const DIGESTS: u16 = 2 << 13;

/// The mark of single sessions; they are of no range.
const SINGLES: RangeId = RangeId(MARKS);

const MARKS: u16 = 3 << 13;

/// Between two looks at the same thing, milliseconds: longer than a datagram that was lost takes to come after all.
const APART_MS: u64 = 500;

/// How long to wait for an answer before asking again, milliseconds.
const RETRY_MS: u64 = 100;

/// How long a peer may be silent, milliseconds.
const SILENCE_MS: u64 = 3000;

/// The longest that a comparison takes, milliseconds.
const LONGEST_MS: u64 = 120_000;

/// Ranges whose digests are asked for in one question.
const SPAN: u16 = 64;

/// Ranges of one side whose sessions are looked at.
const RANGES_LISTED: usize = 64;

/// Sessions of one side that are looked at by themselves.
const SUSPECTS_MAX: usize = 4096;

/// Of these, how many are asked for at a time.
const ASKED_MAX: usize = 256;

/// Differences that are listed.
const DIFFERENCES_MAX: usize = 1000;

/// What the number of a range in a question or an answer is marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Sessions,
    Digests,
    Singles,
}

/// The mark on a range's number, if it is a comparison's.
pub(super) fn kind_of(range: RangeId) -> Option<Kind> {
    match range.0 & !(SESSIONS - 1) {
        SESSIONS => Some(Kind::Sessions),
        DIGESTS => Some(Kind::Digests),
        MARKS => Some(Kind::Singles),
        _ => None,
    }
}

/// The range's number without the mark.
pub(super) fn unmarked(range: RangeId) -> RangeId {
    if kind_of(range).is_some() { RangeId(range.0 & !MARKS) } else { range }
}

/// Whose sessions are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Theirs,
    Ours,
}

/// What the present step waits for.
#[derive(Debug)]
enum Step {
    /// Digests; of `missing` they have not come yet.
    Digests { again: bool, nonce: u32, missing: RangeSet, retry_at: Millis },
    /// Half a second.
    Apart { until: Millis, then: Then },
    /// The lists of a batch of ranges.
    Listing(Listing),
    /// Single sessions.
    Singles { again: bool, nonce: u32, waiting: u32, retry_at: Millis },
}

/// What comes after a wait.
#[derive(Clone, Copy, Debug)]
enum Then {
    DigestsAgain,
    Singles { again: bool },
}

/// A session that was not the same in both lists, by what it adds to a digest on each side.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    key: FlowKey,
    words: Option<(Option<u64>, Option<u64>)>,
    answered: bool,
    /// It is the same after all.
    cleared: bool,
}

/// One side of one sender.
#[derive(Clone, Copy, Debug)]
struct Task {
    peer: usize,
    side: Side,
}

/// A comparison under way.
struct Running {
    began: Millis,
    heard: Millis,
    tasks: Vec<Task>,
    task: Task,
    step: Step,
    /// Ranges that differed when they were last compared.
    differing: RangeSet,
    /// Those that are still to be listed, with the sessions that the other side has there.
    to_list: Vec<(RangeId, u32)>,
    suspects: Vec<Suspect>,
    /// Where each suspect stands.
    positions: FxHashMap<FlowKey, u32>,
}

/// What is compared, was compared, and was answered.
#[derive(Default)]
pub(super) struct Comparing {
    nonce: u32,
    view: Option<Comparison>,
    running: Option<Box<Running>>,
    answers: Allowance,
}

impl Comparing {
    fn next_nonce(&mut self) -> u32 {
        self.nonce = self.nonce.wrapping_add(1);
        self.nonce
    }
}

impl Protocol<'_> {
    /// Begins to compare what this node and a peer have of each other's sessions. One at a time: another one that is under way
    /// ends. [`poll`](Protocol::poll) goes on with it.
    ///
    /// # Errors
    /// The node is no peer.
    pub fn compare(&mut self, node: NodeId, now: Millis) -> Result<(), CompareError> {
        if !self.is_member(node) {
            return Err(CompareError::NoPeer(node));
        }
        let of_node = || (0..self.peers.len()).filter(|at| self.peers[*at].node == node);
        // The one that was made up for a node which was not heard yet counts if there is no other.
        let heard = |at: &usize| self.peers[*at].heard.is_some();
        let mut senders: Vec<usize> = of_node().filter(heard).collect();
        if senders.is_empty() {
            senders.extend(of_node().next());
        }
        let mut tasks: Vec<Task> = (senders.iter())
            .flat_map(|peer| [Side::Ours, Side::Theirs].map(|side| Task { peer: *peer, side }))
            .collect();
        let task = tasks.pop().ok_or(CompareError::NoPeer(node))?;
        let ranges = self.config.ranges;
        self.comparing.view = Some(Comparison::new(node));
        self.comparing.running = Some(Box::new(Running {
            began: now,
            heard: now,
            tasks,
            task,
            step: Step::digests(false, self.comparing.next_nonce(), &all(ranges)),
            differing: RangeSet::new(ranges),
            to_list: Vec::new(),
            suspects: Vec::new(),
            positions: FxHashMap::default(),
        }));
        Ok(())
    }

    /// The comparison that was begun last, and how far it is.
    pub fn comparison(&self) -> Option<&Comparison> {
        self.comparing.view.as_ref()
    }

    /// Goes on with the comparison.
    pub(super) fn poll_comparison<T: Tables, X: Transmit>(&mut self, turn: &mut Turn<'_, T, X>) {
        let Some(mut running) = self.comparing.running.take() else { return };
        let now = turn.millis();
        let goes_on = self.step(&mut running, turn);
        let silent = now.since(running.heard) >= SILENCE_MS || now.since(running.began) >= LONGEST_MS;
        if let Some(view) = &mut self.comparing.view {
            view.elapsed_ms = now.since(running.began);
            view.state = match (goes_on, silent) {
                (false, _) => ComparisonState::Done,
                (true, true) => ComparisonState::TimedOut,
                (true, false) => ComparisonState::Running,
            };
        }
        if goes_on && !silent {
            self.comparing.running = Some(running);
        }
        self.courier.post(turn.out);
    }

    /// Does what is due in the present step, or begins the next one; whether there is one.
    fn step<T: Tables, X: Transmit>(&mut self, running: &mut Running, turn: &mut Turn<'_, T, X>) -> bool {
        let now = turn.millis();
        match &mut running.step {
            Step::Digests { again, missing, .. } if missing.len() == 0 => {
                if *again || running.differing.len() == 0 {
                    return self.begin_listing(running);
                }
                running.to_list.clear();
                running.step = Step::Apart { until: now + APART_MS, then: Then::DigestsAgain };
            }
            Step::Digests { nonce, missing, retry_at, .. } => {
                if now >= *retry_at {
                    *retry_at = now + RETRY_MS;
                    let (nonce, missing) = (*nonce, missing.clone());
                    self.ask_for_digests(running.task, nonce, &missing, turn);
                }
            }
            Step::Apart { until, then } => {
                running.heard = now;
                if now >= *until {
                    let nonce = self.comparing.next_nonce();
                    running.step = match *then {
                        Then::DigestsAgain => Step::digests(true, nonce, &running.differing),
                        Then::Singles { again } => running.begin_singles(again, nonce),
                    };
                }
            }
            Step::Listing(_) => self.poll_listing(running, turn),
            Step::Singles { .. } => return self.poll_singles(running, turn),
        }
        true
    }

    fn ask_for_digests<T: Tables, X: Transmit>(
        &mut self,
        task: Task,
        nonce: u32,
        missing: &RangeSet,
        turn: &mut Turn<'_, T, X>,
    ) {
        if task.side == Side::Ours && missing.contains(RangeId(0)) {
            self.tell_total(turn);
        }
        if task.side == Side::Ours {
            self.courier.flush_changes(turn.out);
        }
        let to = self.peers[task.peer].addressee();
        let mut asked_below = 0;
        for range in missing.iter() {
            if range.0 < asked_below {
                continue;
            }
            let first = range.0 / SPAN * SPAN;
            asked_below = first + SPAN;
            let request = RangeRequest { first: RangeId(first | DIGESTS), count: SPAN, nonce };
            self.courier.write(to, task.side.asking(), &Body::RangeRequest(request), turn.out);
        }
    }

    /// Begins to list ranges that differed twice, or goes on to the next task if there are none; whether there is one.
    fn begin_listing(&mut self, running: &mut Running) -> bool {
        let view = self.comparing.view.as_mut();
        if let (Some(view), Step::Digests { .. }) = (view, &running.step) {
            view.ranges_differing += running.differing.len();
            let skipped = running.to_list.len().saturating_sub(RANGES_LISTED);
            view.ranges_skipped += skipped as u32;
            running.to_list.truncate(RANGES_LISTED);
        }
        if running.to_list.is_empty() && !running.suspects.is_empty() {
            running.step =
                Step::Apart { until: running.heard + APART_MS, then: Then::Singles { again: false } };
            return true;
        }
        if running.to_list.is_empty() {
            return self.begin_task(running);
        }
        running.step = Step::Listing(Listing::new(&mut running.to_list));
        true
    }

    fn begin_task(&mut self, running: &mut Running) -> bool {
        let Some(task) = running.tasks.pop() else { return false };
        running.task = task;
        running.differing.clear();
        running.to_list.clear();
        running.suspects.clear();
        running.positions.clear();
        running.step = Step::digests(false, self.comparing.next_nonce(), &all(self.config.ranges));
        true
    }

    /// Asks for suspects one by one; whether there is more to do in all.
    fn poll_singles<T: Tables, X: Transmit>(
        &mut self,
        running: &mut Running,
        turn: &mut Turn<'_, T, X>,
    ) -> bool {
        let Step::Singles { again, nonce, ref mut waiting, ref mut retry_at } = running.step else {
            return true;
        };
        if *waiting > 0 && turn.millis() < *retry_at {
            return true;
        }
        let unanswered = || running.suspects.iter().filter(|suspect| !suspect.answered && !suspect.cleared);
        if unanswered().next().is_none() {
            if again || running.suspects.iter().all(|suspect| suspect.cleared) {
                return self.begin_task(running);
            }
            let until = turn.millis() + APART_MS;
            running.step = Step::Apart { until, then: Then::Singles { again: true } };
            return true;
        }
        *retry_at = turn.millis() + RETRY_MS;
        *waiting = 0;
        let (to, stream) = (self.peers[running.task.peer].addressee(), running.task.side.asking());
        let begin = Body::RangeBegin(RangeBegin { range: SINGLES, nonce });
        self.courier.post(turn.out);
        self.courier.write(to, stream, &begin, turn.out);
        for suspect in unanswered().take(ASKED_MAX) {
            *waiting += 1;
            let query = Body::Query(Sought { direction: Direction::Inbound, key: suspect.key });
            if !self.courier.try_write(to, stream, &query, turn.out) {
                self.courier.post(turn.out);
                self.courier.write(to, stream, &begin, turn.out);
                self.courier.write(to, stream, &query, turn.out);
            }
        }
        self.courier.post(turn.out);
        true
    }

    /// Takes a record if it is a comparison's: a question of a peer's, or an answer to one of this node's.
    #[inline]
    pub(super) fn take_of_comparison<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        body: &Body,
        turn: &mut Turn<'_, T, X>,
    ) -> Option<Result<(), Reject>> {
        match body {
            Body::RangeRequest(request) if kind_of(request.first).is_some() => {
                Some(self.on_compare_request(origin, request, turn))
            }
            Body::RangeEnd(end) if kind_of(end.range).is_some() => {
                origin.range = None;
                self.on_listed(origin, end, turn);
                Some(Ok(()))
            }
            _ => {
                let (range, nonce) = origin.range?;
                let kind = kind_of(range)?;
                self.take_marked(origin, (kind, nonce), body, turn)
            }
        }
    }

    fn take_marked<T: Tables, X: Transmit>(
        &mut self,
        origin: &mut Origin,
        (kind, nonce): (Kind, u32),
        body: &Body,
        turn: &mut Turn<'_, T, X>,
    ) -> Option<Result<(), Reject>> {
        match (kind, body) {
            (Kind::Digests, Body::RangeDigest(digest)) => {
                self.on_compared_digest(origin, nonce, digest, turn)
            }
            (Kind::Sessions, Body::Upsert(reported)) => self.on_listed_session(origin, nonce, reported, turn),
            (Kind::Singles, Body::Query(sought)) => {
                return Some(self.on_compare_query(origin, sought, nonce, turn));
            }
            (Kind::Singles, Body::Upsert(reported)) => {
                origin.range = None;
                self.on_single(origin, nonce, &reported.client_key(), Some(reported), turn);
            }
            (Kind::Singles, Body::NotMine(sought)) => {
                origin.range = None;
                self.on_single(origin, nonce, &sought.key, None, turn);
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    fn on_compared_digest<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        nonce: u32,
        digest: &RangeDigest,
        turn: &mut Turn<'_, T, X>,
    ) {
        let (Some(running), Some(view)) = (&mut self.comparing.running, &mut self.comparing.view) else {
            return;
        };
        let slot = running.task.side.owner(self.peers[running.task.peer].slot);
        let range = unmarked(digest.range);
        let Step::Digests { again, nonce: asked, missing, .. } = &mut running.step else { return };
        if !running.task.is_answer(origin) || *asked != nonce || !missing.contains(range) {
            return;
        }
        missing.remove(range);
        running.heard = turn.millis();
        view.ranges += u32::from(!*again);
        if self.ledger.digest(slot, range) == (Digest { sessions: digest.sessions, sum: digest.digest }) {
            running.differing.remove(range);
            view.sessions += u64::from(digest.sessions);
        } else {
            running.differing.insert(range);
            running.to_list.push((range, digest.sessions));
        }
    }

    /// The peer's word on one session.
    fn on_single<T: Tables, X: Transmit>(
        &mut self,
        origin: &Origin,
        nonce: u32,
        key: &FlowKey,
        reported: Option<&Reported>,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Some(mut running) = self.comparing.running.take() else { return };
        self.judge_single(&mut running, origin, nonce, key, reported, turn);
        self.comparing.running = Some(running);
    }

    fn judge_single<T: Tables, X: Transmit>(
        &mut self,
        running: &mut Running,
        origin: &Origin,
        nonce: u32,
        key: &FlowKey,
        reported: Option<&Reported>,
        turn: &mut Turn<'_, T, X>,
    ) {
        let Step::Singles { again, nonce: asked, ref mut waiting, .. } = running.step else { return };
        let Some(&at) = running.positions.get(key) else { return };
        let suspect = &mut running.suspects[at as usize];
        if !running.task.is_answer(origin) || asked != nonce || suspect.answered || suspect.cleared {
            return;
        }
        suspect.answered = true;
        *waiting = waiting.saturating_sub(1);
        running.heard = turn.millis();
        let owner = self.owner_of(running.task);
        let there = reported.map(|reported| self.listed(reported, owner, turn.millis()));
        let held = turn.tables.find(key).filter(|held| held.direction == Direction::Inbound);
        let held = held.map(|held| held.session);
        let here =
            held.filter(|session| session.owner == owner && self.counts_here(session, running.task.side));
        let words = (here.as_ref().map(word_of), there.as_ref().map(word_of));
        let as_before = suspect.words.replace(words).is_none_or(|before| before == words);
        suspect.cleared = words.0 == words.1 || !as_before;
        if again && !suspect.cleared {
            let version = |session: &Session| Version {
                owner: session.owner,
                generation: session.generation.0,
                local: session.local,
                server: session.server,
                state: session.state,
            };
            let (here, there) = (held.as_ref().map(version), there.as_ref().map(version));
            let FlowKey { source: client, destination: vip, protocol } = *key;
            let kind = Difference::kind_of(here.as_ref(), there.as_ref());
            let Some(view) = &mut self.comparing.view else { return };
            if view.differences.len() < DIFFERENCES_MAX {
                view.differences.push(Difference { kind, owner, protocol, client, vip, here, there });
            } else {
                view.differences_unlisted += 1;
            }
        }
    }

    fn counts_here(&self, session: &Session, side: Side) -> bool {
        side == Side::Theirs || self.is_reported(session)
    }

    fn owner_of(&self, task: Task) -> NodeId {
        match task.side {
            Side::Theirs => self.peers[task.peer].node,
            Side::Ours => self.node,
        }
    }
}

impl Side {
    /// The stream that questions go in.
    fn asking(self) -> StreamId {
        if self == Side::Theirs { CONTROL } else { HELD }
    }

    /// The owner in the ledger here, if the peer has this slot.
    fn owner(self, peer: OwnerSlot) -> OwnerSlot {
        if self == Side::Theirs { peer } else { OwnerSlot::SELF }
    }
}

impl Task {
    /// Whether a record may answer this task's questions.
    fn is_answer(self, origin: &Origin) -> bool {
        let stream = if self.side == Side::Theirs { StreamId::RANGES } else { HELD };
        (origin.peer, origin.stream) == (self.peer, stream)
    }
}

impl Step {
    fn digests(again: bool, nonce: u32, missing: &RangeSet) -> Step {
        Step::Digests { again, nonce, missing: missing.clone(), retry_at: Millis(0) }
    }
}

impl Running {
    fn begin_singles(&mut self, again: bool, nonce: u32) -> Step {
        for suspect in &mut self.suspects {
            suspect.answered = false;
        }
        Step::Singles { again, nonce, waiting: 0, retry_at: Millis(0) }
    }

    /// Adds a suspect; `false` if there is no room.
    fn suspect(&mut self, key: FlowKey) -> bool {
        if self.positions.contains_key(&key) {
            return true;
        }
        if self.suspects.len() >= SUSPECTS_MAX {
            return false;
        }
        self.positions.insert(key, self.suspects.len() as u32);
        self.suspects.push(Suspect { key, words: None, answered: false, cleared: false });
        true
    }
}

fn all(ranges: u16) -> RangeSet {
    let mut all = RangeSet::new(ranges);
    (0..ranges).map(RangeId).for_each(|range| {
        all.insert(range);
    });
    all
}
