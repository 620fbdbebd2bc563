//! The secondary at work: one thread that receives, reports and sweeps in turn.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_common::config::{Config, SyncDomain, Timeouts};
use baton_common::counter::{Counter, CounterBlock};
use baton_common::flow::{Endpoint, FlowKey};
use baton_common::idle::Backoff;
use baton_common::membership::StaticRoster;
use baton_common::netlink::Mirror;
use baton_common::session::expiry::Sweep;
use baton_common::session::table::{Lookup, SessionTable, TableWriter};
use baton_common::sync::ageing;
use baton_common::sync::receiver::Receiver;
use baton_common::sync::roster::Identity;
use baton_common::sync::sender::{Sender, SenderConfig};
use baton_common::sync::wire::payload_bytes_max;
use baton_common::time::{Micros, Millis};
use sd_notify::NotifyState;

use crate::attachment::Attachment;
use crate::link::SyncLink;
use crate::memory::Memory;
use crate::outbox::Outbox;
use crate::reports::Reports;
use crate::security::Keys;
use baton_common::runtime::ProcessWatch;

/// How often to look whether the primary lives, and after other things that are no packets. Microseconds.
const LOOK_US: u64 = 2_000;

/// How often the service manager hears that this thread lives. Microseconds.
const WATCHDOG_US: u64 = 1_000_000;

/// How long events wait, at most, for the peers' link-layer addresses after a start. Microseconds.
const NEIGHBOURS_WAIT_US: u64 = 2_000_000;

/// How long one sweep over the whole remote table takes, when nothing delays it. Microseconds.
const SWEEP_US: u64 = 4_000_000;

/// Most slots that are looked at for expiry between two bursts.
const SWEEP_SLOTS_MAX: u64 = 8192;

/// Why the secondary came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stopped,
    /// Its primary is gone.
    PrimaryGone,
}

/// When things were done last that are not done every turn.
struct Upkeep {
    looked: Micros,
    notified: Micros,
    began: Micros,
    /// Whether events may be sent: the peers' link-layer addresses are known, or were waited for long enough.
    sending: bool,
}

/// A sync secondary.
pub struct Secondary {
    receiver: Receiver<'static, StaticRoster>,
    sender: Sender<'static>,
    reports: Reports,
    outbox: Outbox,
    remote: TableWriter,
    local: Vec<SessionTable>,
    sweep: Sweep,
    timeouts: Timeouts,
    peers: Vec<IpAddr>,
    backoff: Backoff,
    counters: &'static CounterBlock,
}

impl Secondary {
    /// Puts a secondary together from what was attached, and tells the primary that it is complete.
    ///
    /// # Errors
    /// The primary refuses or does not answer.
    pub fn new(
        config: &Config,
        domain: &SyncDomain,
        keys: &Keys,
        memory: Memory,
        attachment: Attachment,
        mirror: &Mirror,
    ) -> anyhow::Result<Secondary> {
        let Memory { remote, local, sources, from_workers, to_worker, state, counters } = memory;
        let identity = Identity::new(config, domain.numa);
        let own = Endpoint { address: domain.address.into(), port: config.sync.port };
        let mac = attachment.mac;
        let link = SyncLink::new(attachment.complete()?, to_worker, from_workers, own, counters);
        let peers: Vec<IpAddr> =
            config.sync.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
        let sender = SenderConfig {
            identity,
            peers: peers.clone(),
            payload_max: payload_bytes_max(config.sync.mtu, domain.address.is_ipv6(), 0),
            flush_us: config.sync.flush_us,
            timeouts: config.timeouts,
        };
        let roster = StaticRoster::new(config);
        let sealer = keys.sealer(identity, state.boot_epoch());
        Ok(Secondary {
            receiver: Receiver::new(identity, roster, config.timeouts, keys.opener(), state, counters),
            sender: Sender::new(sender, sealer, state, counters),
            reports: Reports::new(sources, config.node.id, counters),
            outbox: Outbox::new(link, mirror, mac, own, config.sync.mtu),
            remote,
            local,
            sweep: Sweep::new(),
            timeouts: config.timeouts,
            peers,
            backoff: Backoff::new(config.idle),
            counters,
        })
    }

    /// Works until it is told to stop or the primary is gone.
    pub fn run(&mut self, primary: &ProcessWatch, stop: &AtomicBool) -> End {
        let now = Micros::now();
        let mut upkeep = Upkeep { looked: now, notified: now, began: now, sending: false };
        loop {
            let now = Micros::now();
            let since_look = now.since(upkeep.looked);
            if since_look >= LOOK_US || !upkeep.sending {
                if !primary.lives() {
                    return End::PrimaryGone;
                }
                self.look_after(now, &mut upkeep);
            }
            if stop.load(Ordering::Relaxed) {
                self.reports.finish(&mut self.sender, &mut self.outbox);
                return End::Stopped;
            }
            let work = self.turn(now, upkeep.sending);
            if !work {
                self.counters.add(Counter::EmptyPolls, 1);
            }
            self.backoff.after_poll(work);
        }
    }

    /// One turn: what has come in, then what is to go out.
    fn turn(&mut self, now: Micros, sending: bool) -> bool {
        let mut work = self.receive(now.millis());
        if sending {
            work |= self.reports.poll(now, &self.local, &mut self.sender, &mut self.outbox);
        }
        work
    }

    fn receive(&mut self, now: Millis) -> bool {
        let (receiver, remote, local) = (&mut self.receiver, &mut self.remote, &self.local);
        self.outbox.link.receive(|source, payload| {
            // A reject is counted where it is found; there is nothing else to do about it.
            let _ = receiver.receive(source, payload, now, remote, |key| is_local(local, key));
        })
    }

    /// What is done now and then: the sweep, the watchdog, the wait for the peers' addresses.
    fn look_after(&mut self, now: Micros, upkeep: &mut Upkeep) {
        let passed = now.since(upkeep.looked);
        upkeep.looked = now;
        self.expire(now.millis(), sweep_slots(passed, self.remote.capacity()));
        if now.since(upkeep.notified) >= WATCHDOG_US {
            upkeep.notified = now;
            // A service manager that does not listen is no reason to stop.
            let _ = sd_notify::notify(false, &[NotifyState::Watchdog]);
        }
        if !upkeep.sending {
            let waited = now.since(upkeep.began);
            let all_known = self.outbox.knows_all(&self.peers);
            upkeep.sending = all_known || waited >= NEIGHBOURS_WAIT_US;
            if upkeep.sending {
                tracing::info!(all_known, elapsed_ms = waited / 1000, "sending to the peers");
            }
        }
    }

    /// Removes sessions of other nodes of which nothing was heard for too long.
    fn expire(&mut self, now: Millis, slots: u32) {
        let timeouts = self.timeouts;
        let deadline = |session: &_| ageing::remote_deadline(session, &timeouts);
        let expired = self.sweep.poll(now, &mut self.remote, slots, deadline, |_, _| {});
        self.counters.add(Counter::RemoteExpired, expired.into());
    }
}

/// Whether a session of this node's own tables has a key: then no other node's may have it.
fn is_local(tables: &[SessionTable], key: &FlowKey) -> bool {
    tables.iter().any(|table| matches!(table.lookup(key), Lookup::Hit { .. }))
}

/// How many slots of a table the sweep looks at after so much time.
fn sweep_slots(passed_us: u64, capacity: u32) -> u32 {
    (passed_us * u64::from(capacity) / SWEEP_US + 1).min(SWEEP_SLOTS_MAX) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_comes_round_in_seconds_and_never_takes_long_at_once() {
        for capacity in [64, 65_536, 1_048_576] {
            let turns = SWEEP_US / LOOK_US;
            let slots = u64::from(sweep_slots(LOOK_US, capacity));
            assert!(slots * turns >= u64::from(capacity), "{capacity}");
            assert!(slots * turns <= 2 * u64::from(capacity) + turns, "{capacity}");
        }
        assert_eq!(u64::from(sweep_slots(u64::MAX / u64::from(u32::MAX), u32::MAX)), SWEEP_SLOTS_MAX);
    }
}
