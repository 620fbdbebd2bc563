//! The secondary at work: one thread that receives, reports and looks after its sessions in turn.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use baton_common::config::{Config, SyncDomain};
use baton_common::control::{SuccessionStatus, SyncStatus};
use baton_common::counter::Counter;
use baton_common::flow::Endpoint;
use baton_common::id::NumaId;
use baton_common::idle::Backoff;
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
use crate::control::{Command, Desk};
use crate::link::{self, Inlet};
use crate::memory::{Memory, Records};
use crate::outbox::Outbox;
use crate::post::Post;
use crate::predecessor::Predecessor;
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
    /// Its successor waits for its part.
    GivenUp,
}

/// When things were done last that are not done every turn.
struct Upkeep {
    looked: Micros,
    published: Micros,
    /// What is to be published at once.
    is_news: bool,
    notified: Micros,
    began: Micros,
    /// Whether there is any use in sending: the peers' link-layer addresses are known, or were waited for long enough.
    sending: bool,
}

/// How this secondary came to its part.
struct Debut {
    /// When its predecessor looked at its queues last, if there was one.
    last_turn: Option<Micros>,
    /// Whether it has looked at its own.
    begun: bool,
    status: SuccessionStatus,
    /// To be told that the part was taken.
    predecessor: Option<Predecessor>,
    telling: Option<JoinHandle<()>>,
}

/// A sync secondary.
pub struct Secondary<'p> {
    numa: NumaId,
    protocol: Protocol<'static>,
    tables: SharedTables,
    reports: Reports,
    inlet: Inlet<'p>,
    outbox: Outbox<'p>,
    desk: &'p mut Desk,
    announcer: &'p mut Announcer,
    keyring: &'p mut Option<Arc<Keyring>>,
    peers: Vec<IpAddr>,
    backoff: Backoff,
    records: Records,
    debut: Debut,
    received: u64,
}

impl<'p> Secondary<'p> {
    /// Takes the part: maps the memory that has one writer, puts right what a predecessor left half done, and goes on where
    /// it stopped. The caller holds the lock. `predecessor` gave the part up, and is told when it is taken.
    ///
    /// # Errors
    /// Something cannot be mapped, or somebody else has it.
    pub fn new(post: &'p mut Post<'_>, predecessor: Option<Predecessor>) -> anyhow::Result<Secondary<'p>> {
        let Post { config, id, domain, records, queues, mac, mirror, desk, announcer, keyring, .. } = post;
        let Memory { tables, sources, from_workers, to_worker } = Memory::attach(config, *id, domain)?;
        records.begin(domain.numa)?;
        let Records { state, ring, counters } = *records;
        let last_turn = state.last_turn();
        let own = Endpoint { address: domain.address.into(), port: config.sync.port };
        if let Some(queues) = queues {
            queues.take_over(domain.numa);
        }
        let (inlet, outlet) = link::open(queues.as_mut(), to_worker, from_workers, own, counters);
        let protocol = protocol_config(config, domain, keyring.clone());
        let status = SuccessionStatus { handed_over: predecessor.is_some(), ..SuccessionStatus::default() };
        Ok(Secondary {
            numa: domain.numa,
            protocol: Protocol::new(
                protocol,
                &members(config),
                state,
                ring,
                counters,
                &tables,
                Micros::now(),
            ),
            tables,
            reports: Reports::new(sources, counters),
            inlet,
            outbox: Outbox::new(outlet, mirror, *mac, own, config.sync.mtu),
            desk,
            announcer,
            keyring,
            peers: peers(config),
            backoff: Backoff::new(config.idle),
            records: *records,
            debut: Debut { last_turn, begun: false, status, predecessor, telling: None },
            received: 0,
        })
    }

    /// Works until it is told to stop, its successor wants the part, or the primary is gone.
    pub fn run(mut self, primary: &ProcessWatch, stop: &AtomicBool) -> End {
        let now = Micros::now();
        let mut upkeep = Upkeep {
            looked: now,
            published: Micros(0),
            is_news: true,
            notified: now,
            began: now,
            sending: false,
        };
        loop {
            let now = Micros::now();
            if now.since(upkeep.looked) >= LOOK_US || !upkeep.sending {
                if !primary.lives() {
                    return End::PrimaryGone;
                }
                self.look_after(now, &mut upkeep);
            }
            if stop.load(Ordering::Relaxed) {
                self.finish();
                return End::Stopped;
            }
            if self.desk.succession().is_asked() {
                self.finish();
                self.records.state.set_last_turn(Micros::now());
                return End::GivenUp;
            }
            let work = self.turn(now, upkeep.sending);
            if self.debut.status.first_datagram_us.is_none() {
                // Whoever waits for a successor asks it at once.
                upkeep.is_news |= self.note_debut(now);
            }
            if !work {
                self.records.counters.add(Counter::EmptyPolls, 1);
            }
            self.backoff.after_poll(work);
        }
    }

    /// One turn: what has come in, then what is to go out.
    fn turn(&mut self, now: Micros, sending: bool) -> bool {
        let Secondary { protocol, tables, outbox, received, .. } = self;
        self.records.state.set_last_turn(now);
        let mut work = self.inlet.receive(|source, datagram| {
            *received += 1;
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

    /// Notes when this secondary began, and tells so who waits for it; and when its first datagram came or went. Whether
    /// there was anything to note.
    fn note_debut(&mut self, now: Micros) -> bool {
        let Debut { last_turn, begun, status, predecessor, telling } = &mut self.debut;
        let since = |last: Micros| now.since(last);
        let begins = !std::mem::replace(begun, true);
        if begins {
            status.silence_us = last_turn.map(since);
            let (silence_us, handed_over) = (status.silence_us, status.handed_over);
            tracing::info!(numa = self.numa.0, silence_us, handed_over, "took the secondary's part");
            if let Some(predecessor) = predecessor.take() {
                *telling = Some(tell_taken(predecessor, silence_us.unwrap_or_default()));
            }
        }
        let is_first = self.received + self.outbox.sent() > 0;
        if is_first {
            // Without a predecessor there was nothing to be silent.
            status.first_datagram_us = Some(last_turn.map_or(0, since));
            let first_datagram_us = status.first_datagram_us;
            tracing::info!(numa = self.numa.0, first_datagram_us, "first datagram");
        }
        begins || is_first
    }

    /// Goes on as who is in charge, once the predecessor knows: answers on its socket.
    fn settle(&mut self) {
        if self.debut.telling.take_if(|telling| telling.is_finished()).is_some()
            && let Err(error) = self.desk.step_in()
        {
            tracing::error!(error = format!("{error:#}"), "the control socket stays the predecessor's");
        }
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
        self.settle();
        while let Some(order) = self.desk.next_order() {
            let done = self.carry_out(&order.command, now);
            self.publish(now);
            // Whoever asked may have gone.
            let _ = order.done.send(done);
        }
        let (state, alarm) = (self.protocol.ready_state(), self.protocol.alarm());
        let is_news = self.announcer.tell(Announcement::Up { state, alarm });
        let is_news = std::mem::take(&mut upkeep.is_news) || is_news;
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
            Command::UseKeys(keyring) => {
                self.protocol.use_keyring(keyring);
                *self.keyring = Some(keyring.clone());
            }
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
            succession: self.debut.status.clone(),
            peers: self.protocol.peers(now.millis()).collect(),
        }
    }
}

/// Tells the predecessor, while the sync thread goes on.
fn tell_taken(predecessor: Predecessor, silence_us: u64) -> JoinHandle<()> {
    std::thread::spawn(move || {
        if let Err(error) = predecessor.tell_taken(silence_us) {
            tracing::warn!(error = format!("{error:#}"), "the predecessor does not answer any more");
        }
    })
}

/// The peers' addresses.
pub fn peers(config: &Config) -> Vec<IpAddr> {
    config.sync.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect()
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
