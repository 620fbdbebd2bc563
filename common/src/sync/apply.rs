//! Applying a record: whether a peer's news of a session is news here, and what it does to the remote table.

use super::Reject;
use super::address;
use super::ageing;
use super::remote::RemoteTable;
use super::wire::{Body, Ended, Refreshed, Reported};
use crate::config::Timeouts;
use crate::flow::FlowKey;
use crate::id::{Generation, NodeId};
use crate::session::tcp::merge;
use crate::session::{Direction, Session};
use crate::time::Millis;

/// The circumstances in which a record came.
pub(super) struct Circumstances<'a, L> {
    /// The node that sent it, and so owns the session that it tells of.
    pub(super) sender: NodeId,
    /// Whether a later datagram of the same stream was received before.
    pub(super) late: bool,
    /// Now.
    pub(super) now: Millis,
    /// This node's timeouts.
    pub(super) timeouts: &'a Timeouts,
    /// Whether a key belongs to a session of this node's own tables.
    pub(super) is_local: L,
}

/// Applies a record to the remote table.
///
/// # Errors
/// The table has not changed; except that with `TableFull`, what the new session was to replace is gone.
pub(super) fn apply<L: Fn(&FlowKey) -> bool>(
    body: &Body,
    circumstances: &Circumstances<'_, L>,
    table: &mut impl RemoteTable,
) -> Result<(), Reject> {
    match body {
        Body::Upsert(reported) => upsert(reported, circumstances, table),
        Body::Delete(ended) => delete(ended, circumstances, table),
        Body::Refresh(refreshed) => refresh(refreshed, circumstances, table),
        _ => Err(Reject::SkippedRecord),
    }
}

fn upsert<L: Fn(&FlowKey) -> bool>(
    reported: &Reported,
    circumstances: &Circumstances<'_, L>,
    table: &mut impl RemoteTable,
) -> Result<(), Reject> {
    let (client_key, server_key) = (reported.client_key(), reported.server_key());
    if (circumstances.is_local)(&client_key) || (circumstances.is_local)(&server_key) {
        return Err(Reject::LocalSession);
    }
    let mut session = session_of(reported, circumstances);
    let held = held(&client_key, table)?;
    if let Some(held) = &held {
        if !supersedes(circumstances.sender, reported.generation, held) {
            return Err(Reject::Stale);
        }
        let same_endpoints = held.server_key() == server_key;
        if circumstances.late && reported.generation == held.generation {
            // The order is lost, so only what cannot be older counts: the same connection, no less far on.
            let merged = merge(reported.state, held.state);
            if !same_endpoints || merged == held.state && merged != reported.state {
                return Err(Reject::Stale);
            }
            session.state = merged;
        }
        if same_endpoints {
            session.last_seen = session.last_seen.max(held.last_seen);
            table.update(&session);
            return Ok(());
        }
    }
    let displaced = displaced(&server_key, &client_key, circumstances, table)?;
    for old in [held.map(|_| client_key), displaced].into_iter().flatten() {
        table.remove(&old);
    }
    table.insert(&session).map_err(|_| Reject::TableFull)
}

fn delete<L>(
    ended: &Ended,
    circumstances: &Circumstances<'_, L>,
    table: &mut impl RemoteTable,
) -> Result<(), Reject> {
    let client_key = ended.client_key();
    let held = held(&client_key, table)?.ok_or(Reject::UnknownSession)?;
    if !supersedes(circumstances.sender, ended.generation, &held) {
        return Err(Reject::Stale);
    }
    table.remove(&client_key);
    Ok(())
}

fn refresh<L>(
    refreshed: &Refreshed,
    circumstances: &Circumstances<'_, L>,
    table: &mut impl RemoteTable,
) -> Result<(), Reject> {
    let held = held(&refreshed.client_key(), table)?.ok_or(Reject::UnknownSession)?;
    if !supersedes(circumstances.sender, refreshed.generation, &held) {
        return Err(Reject::Stale);
    }
    // A refresh says that a session is in use, whatever else is known of it: it can only make it younger and further on.
    let claimed = refreshed.generation > held.generation;
    let seen =
        ageing::last_seen(refreshed.state, refreshed.remaining_ms, circumstances.timeouts, circumstances.now);
    table.update(&Session {
        owner: circumstances.sender,
        generation: refreshed.generation,
        state: if claimed { refreshed.state } else { merge(refreshed.state, held.state) },
        last_seen: seen.max(held.last_seen),
        ..held
    });
    Ok(())
}

/// The session that a client-side key belongs to.
fn held(client_key: &FlowKey, table: &impl RemoteTable) -> Result<Option<Session>, Reject> {
    match table.lookup(client_key) {
        None => Ok(None),
        Some((Direction::Inbound, session)) => Ok(Some(session)),
        // A real server talks to a local address: a client that has the same addresses is in somebody's way.
        Some((Direction::Outbound, _)) => Err(Reject::Conflict),
    }
}

/// The client-side key of a session that must go because the new one has its server-side flow.
///
/// A local endpoint towards a real server serves one session at a time. If its node says that it serves another now, the
/// end of the first was lost on the way.
fn displaced<L>(
    server_key: &FlowKey,
    client_key: &FlowKey,
    circumstances: &Circumstances<'_, L>,
    table: &impl RemoteTable,
) -> Result<Option<FlowKey>, Reject> {
    match table.lookup(server_key) {
        None => Ok(None),
        Some((Direction::Outbound, other)) if other.client_key() == *client_key => Ok(None),
        Some((Direction::Outbound, other)) if other.owner == circumstances.sender && !circumstances.late => {
            Ok(Some(other.client_key()))
        }
        Some(_) => Err(Reject::Conflict),
    }
}

/// Whether a statement of this owner and generation is to be believed over what the table has.
fn supersedes(owner: NodeId, generation: Generation, held: &Session) -> bool {
    generation > held.generation || generation == held.generation && owner <= held.owner
}

fn session_of<L>(reported: &Reported, circumstances: &Circumstances<'_, L>) -> Session {
    Session {
        protocol: address::protocol_of(reported.state),
        client: reported.client,
        vip: reported.vip,
        local: reported.local,
        server: reported.server,
        owner: circumstances.sender,
        generation: reported.generation,
        state: reported.state,
        last_seen: ageing::last_seen(
            reported.state,
            reported.remaining_ms,
            circumstances.timeouts,
            circumstances.now,
        ),
        last_sent: Millis(0),
    }
}
