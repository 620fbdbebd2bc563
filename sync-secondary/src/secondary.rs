//! The secondary at work: one thread that receives, reports and looks after its sessions in turn.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use baton_common::config::{Config, SyncDomain};
use baton_common::control::SyncStatus;
use baton_common::counter::{Counter, CounterBlock};
use baton_common::flow::Endpoint;
use baton_common::id::NumaId;
use baton_common::idle::Backoff;
use baton_common::netlink::Mirror;
use baton_common::runtime::ProcessWatch;
use baton_common::sync::protocol::digest::RANGES;
use baton_common::sync::protocol::{Member, Protocol, ProtocolConfig};
use baton_common::sync::roster::Identity;
use baton_common::sync::seal::Keyring;
use baton_common::sync::tables::SharedTables;
use baton_common::sync::wire::payload_bytes_max;
use baton_common::time::Micros;
use sd_notify::NotifyState;

use crate::announcer::{Announcement, Announcer};
use crate::attachment::Attachment;
use crate::control::{Command, Desk};
use crate::link::{self, Inlet};
use crate::memory::Memory;
use crate::outbox::Outbox;
use crate::reports::{Listener, Reports};

/// How often to look whether the primary lives, and after other things that are no packets. Microseconds.
const LOOK_US: u64 = 2_000;

/// How often it is published how this secondary is. Microseconds.
const PUBLISH_US: u64 = 100_000;

/// How often the service manager hears that this thread lives. Microseconds.
const WATCHDOG_US: u64 = 1_000_000;

/// How long to wait, at most, for the peers' link-layer addresses after a start. Microseconds.
const NEIGHBOURS_WAIT_US: u64 = 2_000_000;

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
    published: Micros,
    notified: Micros,
    began: Micros,
    /// Whether there is any use in sending: the peers' link-layer addresses are known, or were waited for long enough.
    sending: bool,
}

/// A sync secondary.
pub struct Secondary {
    numa: NumaId,
    protocol: Protocol<'static>,
    tables: SharedTables,
    reports: Reports,
    inlet: Inlet,
    outbox: Outbox,
    desk: Desk,
    announcer: Announcer,
    peers: Vec<IpAddr>,
    backoff: Backoff,
    counters: &'static CounterBlock,
}

impl Secondary {
    /// Puts a secondary together from what was attached, and tells the primary that it is complete.
    ///
    /// # Errors
    /// The primary refuses or does not answer.
    #[expect(clippy::too_many_arguments, reason = "the one place where every part meets")]
    pub fn new(
        config: &Config,
        domain: &SyncDomain,
        keyring: Option<Arc<Keyring>>,
        memory: Memory,
        attachment: Attachment,
        mirror: &Mirror,
        desk: Desk,
        announcer: Announcer,
    ) -> anyhow::Result<Secondary> {
        let Memory { tables, sources, from_workers, to_worker, state, ring, counters } = memory;
        let own = Endpoint { address: domain.address.into(), port: config.sync.port };
        let mac = attachment.mac;
        let (inlet, outlet) = link::open(attachment.complete()?, to_worker, from_workers, own, counters);
        let protocol = protocol_config(config, domain, keyring);
        let now = Micros::now();
        Ok(Secondary {
            numa: domain.numa,
            protocol: Protocol::new(protocol, &members(config), state, ring, counters, &tables, now),
            tables,
            reports: Reports::new(sources, counters),
            inlet,
            outbox: Outbox::new(outlet, mirror, mac, own, config.sync.mtu),
            desk,
            announcer,
            peers: config.sync.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect(),
            backoff: Backoff::new(config.idle),
            counters,
        })
    }

    /// Works until it is told to stop or the primary is gone.
    pub fn run(mut self, primary: &ProcessWatch, stop: &AtomicBool) -> End {
        let now = Micros::now();
        let mut upkeep =
            Upkeep { looked: now, published: Micros(0), notified: now, began: now, sending: false };
        loop {
            let now = Micros::now();
            if now.since(upkeep.looked) >= LOOK_US || !upkeep.sending {
                if !primary.lives() {
                    self.announcer.tell_last(Announcement::Down);
                    return End::PrimaryGone;
                }
                self.look_after(now, &mut upkeep);
            }
            if stop.load(Ordering::Relaxed) {
                self.finish();
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
        let Secondary { protocol, tables, outbox, .. } = self;
        let mut work = self.inlet.receive(|source, datagram| {
            // A reject is counted where it is found; there is nothing else to do about it.
            let _ = protocol.on_datagram(source, datagram, now, tables, outbox);
        });
        if sending {
            let mut listener = Listener { protocol, tables, out: outbox };
            work |= self.reports.poll(now, &mut listener);
            protocol.poll(now, tables, outbox);
            work |= protocol.is_busy();
        }
        tables.quiesce();
        work
    }

    /// Sends what was read, before the end.
    fn finish(&mut self) {
        self.protocol.flush(&mut self.outbox);
        self.reports.commit();
        self.tables.leave();
    }

    /// What is done now and then: commands, the watchdog, the wait for the peers' addresses, the word to the world.
    fn look_after(&mut self, now: Micros, upkeep: &mut Upkeep) {
        upkeep.looked = now;
        while let Some(order) = self.desk.next_order() {
            let done = self.carry_out(&order.command, now);
            self.publish(now);
            // Whoever asked may have gone.
            let _ = order.done.send(done);
        }
        let (state, alarm) = (self.protocol.ready_state(), self.protocol.alarm());
        let is_news = self.announcer.tell(Announcement::Up { state, alarm });
        if is_news || now.since(upkeep.published) >= PUBLISH_US {
            upkeep.published = now;
            self.publish(now);
        }
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

    /// Does what an operator wants; or says why not.
    fn carry_out(&mut self, command: &Command, now: Micros) -> Result<(), String> {
        match command {
            Command::Drain(draining) => self.protocol.set_draining(*draining),
            Command::Accept => self.protocol.accept_fraction(),
            Command::UseKeys(keyring) => self.protocol.use_keyring(keyring),
            Command::Compare(node) => {
                return self.protocol.compare(*node, now.millis()).map_err(|error| error.to_string());
            }
        }
        Ok(())
    }

    fn publish(&self, now: Micros) {
        self.desk.publish(self.status(now), self.protocol.comparison());
    }

    fn status(&self, now: Micros) -> SyncStatus {
        SyncStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            numa: self.numa,
            state: self.protocol.ready_state(),
            alarm: self.protocol.alarm(),
            member: self.protocol.is_member_itself(),
            sessions_owned: self.protocol.sessions_owned(),
            peers: self.protocol.peers(now.millis()).collect(),
        }
    }
}

/// Who takes part, this node included.
fn members(config: &Config) -> Vec<Member> {
    let own = config.sync.domains.iter().map(|domain| domain.address).collect();
    let peers =
        config.sync.peers.iter().map(|peer| Member { node: peer.node, addresses: peer.addresses.clone() });
    std::iter::once(Member { node: config.node.id, addresses: own }).chain(peers).collect()
}

fn protocol_config(config: &Config, domain: &SyncDomain, keyring: Option<Arc<Keyring>>) -> ProtocolConfig {
    let sync = &config.sync;
    ProtocolConfig {
        identity: Identity::new(config, domain.numa),
        datagram_bytes_max: payload_bytes_max(sync.mtu, domain.address.is_ipv6(), 0),
        flush_us: sync.flush_us,
        timeouts: config.timeouts,
        ranges: RANGES,
        tombstones: sync.tombstones,
        tombstone_ms: sync.tombstone_ms,
        digest_ms: sync.digest_ms,
        ready_timeout_ms: sync.ready_timeout_ms,
        ready_fraction: f32::from(sync.ready_percent) / 100.0,
        config_digest: config.cluster_digest(),
        keyring,
    }
}

#[cfg(test)]
mod tests {
    use baton_common::id::NodeId;

    use super::*;

    #[test]
    fn the_members_are_this_node_and_its_peers() {
        let config = Config::parse(baton_common::config::SAMPLE, "sample").unwrap();
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let expected = [(1, 101), (2, 102)]
            .map(|(node, last)| Member { node: NodeId(node), addresses: vec![address(last)] });
        assert_eq!(members(&config), expected);
    }
}
