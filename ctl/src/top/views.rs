//! The views: what each says of the time between two readings.

use baton_common::counter::Counter;
use baton_common::id::NumaId;
use baton_common::sync::protocol::readiness::PeerView;
use baton_common::sync::state::PeerSnapshot;

use super::grid::{Cell, Grid, Sorting, Unit};
use super::reading::{Interval, Reading, Thread};
use crate::peers::state_of;

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum View {
    /// What each worker forwards, and its sessions
    Workers,
    /// New sessions of each service
    Services,
    /// New sessions of each real server
    Servers,
    /// How far this node is with each peer, and what comes from it
    Peers,
    /// Packets dropped, by reason
    Drops,
    /// What the sync secondaries count
    Sync,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [View; 6] =
        [View::Workers, View::Services, View::Servers, View::Peers, View::Drops, View::Sync];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            View::Workers => "workers",
            View::Services => "services",
            View::Servers => "servers",
            View::Peers => "peers",
            View::Drops => "drops",
            View::Sync => "sync",
        }
    }

    /// How its rows are ordered unless somebody wants it otherwise.
    pub fn sorting(self) -> Sorting {
        match self {
            View::Workers | View::Peers => Sorting { column: 0, is_descending: false },
            View::Services => Sorting { column: 3, is_descending: true },
            View::Servers => Sorting { column: 3, is_descending: true },
            View::Drops | View::Sync => Sorting { column: 1, is_descending: true },
        }
    }

    /// Its rows, in no order.
    pub fn grid(self, interval: &Interval<'_>) -> Grid {
        match self {
            View::Workers => workers(interval),
            View::Services => services(interval),
            View::Servers => servers(interval),
            View::Peers => peers(interval),
            View::Drops => drops(interval),
            View::Sync => sync(interval),
        }
    }
}

fn drop_counters() -> impl Iterator<Item = Counter> {
    Counter::ALL.iter().copied().filter(|counter| counter.name().starts_with("drop_"))
}

/// Packets that a thread dropped a second, for whatever reason.
fn drop_rate(interval: &Interval<'_>, thread: &Thread) -> Option<f64> {
    drop_counters().map(|counter| interval.counter_rate(thread, counter)).sum()
}

/// Packets dropped a second by all.
pub fn drops_per_second(interval: &Interval<'_>) -> Option<f64> {
    interval.now.workers.iter().map(|thread| drop_rate(interval, thread)).sum()
}

fn workers(interval: &Interval<'_>) -> Grid {
    use Counter::{
        HandoffOut, LocalHits, Punted, RemoteHits, RxBytes, RxPackets, SessionsCreated, SessionsExpired,
        TxBytes, TxPackets,
    };
    let mut grid = Grid::new(&[
        ("worker", "worker"),
        ("rx_packets_per_second", "rx/s"),
        ("tx_packets_per_second", "tx/s"),
        ("drops_per_second", "drops/s"),
        ("sessions", "sessions"),
        ("created_per_second", "new/s"),
        ("full", "full"),
        ("rx_bits_per_second", "rx bit/s"),
        ("tx_bits_per_second", "tx bit/s"),
        ("ended_per_second", "ended/s"),
        ("own_hits_per_second", "own/s"),
        ("remote_hits_per_second", "remote/s"),
        ("handed_on_per_second", "handed/s"),
        ("punted_per_second", "punted/s"),
    ]);
    for thread in &interval.now.workers {
        let rate = |counter| interval.counter_rate(thread, counter);
        let table = interval.now.tables.iter().find(|table| table.name == thread.name);
        let sessions = table.map(|table| f64::from(table.sessions));
        let full = table.map(|table| f64::from(table.sessions) / f64::from(table.capacity.max(1)));
        grid.rows.push(vec![
            Cell::text(&thread.name),
            Cell::rate(rate(RxPackets)),
            Cell::rate(rate(TxPackets)),
            Cell::rate(drop_rate(interval, thread)),
            Cell::Number(sessions, Unit::Count),
            Cell::rate(rate(SessionsCreated)),
            Cell::Number(full, Unit::Share),
            Cell::rate(rate(RxBytes).map(|bytes| 8.0 * bytes)),
            Cell::rate(rate(TxBytes).map(|bytes| 8.0 * bytes)),
            Cell::rate(rate(SessionsExpired)),
            Cell::rate(rate(LocalHits)),
            Cell::rate(rate(RemoteHits)),
            Cell::rate(rate(HandoffOut)),
            Cell::rate(rate(Punted)),
        ]);
    }
    grid
}

/// Sessions created so far: of the real server at `position` of a service, or of the whole service. None if the reading
/// does not have it.
fn created(reading: &Reading, service: &str, position: Option<usize>) -> Option<u64> {
    let service = reading.services.iter().find(|other| other.name == service)?;
    match position {
        Some(position) => service.real_servers.get(position).map(|server| server.sessions_created),
        None => Some(service.real_servers.iter().map(|server| server.sessions_created).sum()),
    }
}

fn creation_rate(interval: &Interval<'_>, service: &str, position: Option<usize>) -> Option<f64> {
    let before = interval.before.and_then(|before| created(before, service, position));
    interval.rate(before, created(interval.now, service, position)?)
}

fn services(interval: &Interval<'_>) -> Grid {
    let mut grid = Grid::new(&[
        ("service", "service"),
        ("vip", "vip"),
        ("protocol", "protocol"),
        ("created_per_second", "new/s"),
        ("created", "created"),
        ("servers", "servers"),
    ]);
    for service in &interval.now.services {
        grid.rows.push(vec![
            Cell::text(&service.name),
            Cell::text(service.vip.to_string()),
            Cell::text(service.protocol.name()),
            Cell::rate(creation_rate(interval, &service.name, None)),
            Cell::count(created(interval.now, &service.name, None).unwrap_or_default()),
            Cell::count(service.real_servers.len() as u64),
        ]);
    }
    grid
}

fn servers(interval: &Interval<'_>) -> Grid {
    let mut grid = Grid::new(&[
        ("service", "service"),
        ("server", "server"),
        ("weight", "weight"),
        ("created_per_second", "new/s"),
        ("created", "created"),
    ]);
    for service in &interval.now.services {
        for (position, server) in service.real_servers.iter().enumerate() {
            grid.rows.push(vec![
                Cell::text(&service.name),
                Cell::text(server.endpoint.to_string()),
                Cell::count(server.weight),
                Cell::rate(creation_rate(interval, &service.name, Some(position))),
                Cell::count(server.sessions_created),
            ]);
        }
    }
    grid
}

fn peers(interval: &Interval<'_>) -> Grid {
    let mut grid = Grid::new(&[
        ("peer", "peer"),
        ("state", "state"),
        ("behind", "behind"),
        ("records_per_second", "records/s"),
        ("silent_ms", "silent"),
        ("differing_ranges", "differ"),
        ("missing_datagrams", "missing"),
        ("wanted_ranges", "wanted"),
        ("owns", "owns"),
        ("held", "held"),
        ("datagrams_per_second", "dgrams/s"),
        ("skipped_per_second", "skipped/s"),
        ("rejected_per_second", "rejected/s"),
        ("heard_by_numa", "by"),
        ("numa", "numa"),
    ]);
    for (by, peer) in &interval.now.peers {
        let view = view_of(interval.now, *by, peer);
        let before = interval.before.and_then(|before| {
            before
                .peers
                .iter()
                .find(|(other, known)| other == by && (known.node, known.numa) == (peer.node, peer.numa))
        });
        let rate = |count: fn(&PeerSnapshot) -> u64| {
            Cell::rate(interval.rate(before.map(|(_, peer)| count(peer)), count(peer)))
        };
        let silent_ms = interval.now.at.millis().0.saturating_sub(peer.last_heard_ms);
        let state = match view {
            None => "secondary not running",
            Some(_) if silent_ms > PeerView::SILENCE_MS => "silent",
            Some(view) => state_of(view),
        };
        let number = |value: Option<u64>| Cell::Number(value.map(|value| value as f64), Unit::Count);
        let owns = view.and_then(|view| view.announced).map(u64::from);
        let held = view.map(|view| u64::from(view.held));
        grid.rows.push(vec![
            Cell::text(format!("node {}", peer.node)),
            Cell::text(state),
            number(owns.zip(held).map(|(owns, held)| owns.saturating_sub(held))),
            rate(|peer| peer.records),
            Cell::Number(Some(silent_ms as f64), Unit::Time),
            number(view.map(|view| view.differing.into())),
            number(view.map(|view| view.missing)),
            number(view.map(|view| view.ranges_wanted.into())),
            number(owns),
            number(held),
            rate(|peer| peer.datagrams),
            rate(|peer| peer.gaps),
            rate(|peer| peer.rejects),
            Cell::count(by.0),
            Cell::count(peer.numa.0),
        ]);
    }
    for node in &interval.now.members {
        if interval.now.peers.iter().all(|(_, peer)| peer.node != *node) {
            let mut row = vec![Cell::Number(None, Unit::Count); grid.columns.len()];
            (row[0], row[1]) = (Cell::text(format!("node {node}")), Cell::text("never heard"));
            grid.rows.push(row);
        }
    }
    grid
}

fn view_of<'r>(reading: &'r Reading, by: NumaId, peer: &PeerSnapshot) -> Option<&'r PeerView> {
    let secondary = reading.sync.iter().find(|secondary| secondary.numa == by)?;
    secondary.peers.iter().find(|view| (view.node, view.numa) == (peer.node.0, peer.numa.0))
}

fn drops(interval: &Interval<'_>) -> Grid {
    let mut grid = Grid::new(&[
        ("reason", "reason"),
        ("per_second", "drops/s"),
        ("share", "of rx"),
        ("total", "total"),
        ("meaning", "meaning"),
    ]);
    let threads = &interval.now.workers;
    let received = interval.sum_rate(threads, Counter::RxPackets).filter(|&received| received > 0.0);
    for counter in drop_counters() {
        let rate = interval.sum_rate(threads, counter);
        let total: u64 = threads.iter().map(|thread| thread.value(counter)).sum();
        if total > 0 {
            grid.rows.push(vec![
                Cell::text(counter.name().trim_start_matches("drop_")),
                Cell::rate(rate),
                Cell::Number(rate.zip(received).map(|(rate, received)| rate / received), Unit::Share),
                Cell::count(total),
                Cell::text(counter.help().trim()),
            ]);
        }
    }
    grid
}

fn sync(interval: &Interval<'_>) -> Grid {
    let mut grid = Grid::new(&[
        ("counter", "counter"),
        ("per_second", "per s"),
        ("total", "total"),
        ("unit", "unit"),
        ("secondary", "secondary"),
    ]);
    for thread in &interval.now.secondaries {
        for &counter in Counter::ALL.iter().filter(|&&counter| counter != Counter::EmptyPolls) {
            if thread.value(counter) > 0 {
                grid.rows.push(vec![
                    Cell::text(counter.name()),
                    Cell::rate(interval.counter_rate(thread, counter)),
                    Cell::count(thread.value(counter)),
                    Cell::text(counter.unit()),
                    Cell::text(&thread.name),
                ]);
            }
        }
    }
    grid
}

#[cfg(test)]
mod tests;
