//! The post: everything that a process keeps, whether it has a secondary's part or waits for it or has given it up.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::config::{Config, SyncDomain};
use baton_common::id::SyncDomainId;
use baton_common::metrics::Server;
use baton_common::netlink::{Mirror, MirrorOptions};
use baton_common::packet::MacAddress;
use baton_common::runtime::ProcessWatch;
use baton_common::sync::seal::Keyring;

use crate::announcer::Announcer;
use crate::attachment::{Attachment, OwnQueues};
use crate::control::Desk;
use crate::memory::{Memory, Records};
use crate::metrics;
use crate::outbox::Neighbourhood;
use crate::secondary::peers;
use crate::security::load_keys;
use crate::successor::Program;

/// How long a successor waits, at most, for the peers' link-layer addresses.
const NEIGHBOURS_WAIT: Duration = Duration::from_secs(2);

/// How often it looks.
const NEIGHBOURS_POLL: Duration = Duration::from_millis(2);

/// What does not change hands.
pub struct Post<'c> {
    pub config: &'c Config,
    pub id: SyncDomainId,
    pub domain: &'c SyncDomain,
    pub records: Records,
    /// `None` if the port has no queues for secondaries: the workers receive and send for them.
    pub queues: Option<OwnQueues>,
    /// Baton's link-layer address on the port.
    pub mac: MacAddress,
    pub mirror: Mirror,
    pub desk: Desk,
    pub announcer: Announcer,
    pub keyring: Option<Arc<Keyring>>,
    /// A predecessor that still has the address keeps it until it leaves.
    _metrics: Option<Server>,
}

impl<'c> Post<'c> {
    /// Starts what surrounds the sync thread, maps what is mapped once, and attaches to DPDK. With `succeeds` somebody else has
    /// the part, and nothing of it is touched.
    ///
    /// # Errors
    /// Something is missing, of another version, or refused.
    pub fn set_up(
        config: &'c Config,
        id: SyncDomainId,
        domain: &'c SyncDomain,
        primary: &ProcessWatch,
        successor: Program,
        succeeds: bool,
    ) -> anyhow::Result<Post<'c>> {
        let (runtime, security) = (&config.paths.runtime, &config.sync.security);
        let keyring = load_keys(security)?;
        // Before DPDK binds this thread to its CPU: other threads are not to share it.
        let desk = Desk::open(runtime, domain.numa, security, successor, succeeds)?;
        let announcer = Announcer::start(config, domain.numa)?;
        let keep = peers(config).into_iter().map(IpAddr::into).collect();
        let mirror = Mirror::start(MirrorOptions { interface: config.punt.interface.clone(), keep })
            .context("mirroring the kernel's routes and neighbours")?;
        let records = Records::attach(config, id, domain)?;
        Memory::check(config, domain)?;
        let metrics = metrics::start(config, id, domain, &desk)?;
        let Attachment { queues, mac } = Attachment::begin(config, id, domain, primary, succeeds)?;
        Ok(Post {
            config,
            id,
            domain,
            records,
            queues,
            mac,
            mirror,
            desk,
            announcer,
            keyring,
            _metrics: metrics,
        })
    }

    /// Waits until the peers' link-layer addresses are known, so that a successor need not once it has the part.
    ///
    /// # Errors
    /// It is told to stop, or the primary is gone.
    pub fn know_neighbours(&self, primary: &ProcessWatch, stop: &AtomicBool) -> anyhow::Result<()> {
        let mut neighbourhood = Neighbourhood::new(&self.mirror);
        let peers = peers(self.config);
        let deadline = Instant::now() + NEIGHBOURS_WAIT;
        while !neighbourhood.knows_all(&peers) && Instant::now() < deadline {
            if stop.load(Ordering::Relaxed) || !primary.lives() {
                bail!("told to stop, or the primary is gone, before the predecessor was succeeded");
            }
            std::thread::sleep(NEIGHBOURS_POLL);
        }
        Ok(())
    }
}
