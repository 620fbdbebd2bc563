//! The attachment: how this process becomes a DPDK secondary of its primary, one at a time and by permission.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use baton_common::config::{Config, SyncDomain};
use baton_common::control::{CallError, Callee, Client, RefusalCode};
use baton_common::flow::HashKey;
use baton_common::id::{NumaId, QueueId, SyncDomainId};
use baton_common::packet::MacAddress;
use baton_common::steering::{SteeringBackend, SteeringPlan};
use dpdk::{Eal, EalOptions, Mempool, Port, ProcessType, RxQueue, TakeOver, TapQueue, TxQueue};

use baton_common::runtime::ProcessWatch;

/// How long the primary may take to answer. It makes a secondary wait for its turn for five seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How long to go on asking a primary that has just started, or is busy with another secondary.
const TURN_WAIT: Duration = Duration::from_secs(20);

/// How long to pause before asking again.
const ASK_PAUSE: Duration = Duration::from_millis(20);

/// The part of the port that is this secondary's own.
pub struct OwnQueues {
    pub rx: RxQueue,
    pub tx: TxQueue,
    pub pool: Mempool,
    /// The queue as its driver sees it, if that is a tap's.
    tap: Option<TapQueue>,
}

impl OwnQueues {
    /// Puts right what a predecessor left of the packet buffers. Before each time that this process begins to use them.
    pub fn take_over(&mut self, numa: NumaId) {
        let (recovered, TakeOver { giving, taking }) = match &mut self.tap {
            // Whatever was half done is seen by a buffer that is missing.
            Some(tap) => (tap.deal_anew(), TakeOver { giving: 0, taking: 0 }),
            // What the predecessor held when it was killed stays lost until the primary starts anew: at most a burst.
            None => (0, self.pool.take_over()),
        };
        let count = self.pool.available();
        tracing::info!(numa = numa.0, count, recovered, giving, taking, "took the packet buffers over");
    }
}

/// This process's place in DPDK. Nothing is allocated or looked up there afterwards.
pub struct Attachment {
    /// `None` if the port has no queues for secondaries: the workers receive and send for them.
    pub queues: Option<OwnQueues>,
    /// Baton's link-layer address on the port.
    pub mac: MacAddress,
}

impl Attachment {
    /// Waits for this secondary's turn, starts DPDK, finds the queues that the primary's steering gives it, and tells the primary,
    /// so that the next one may attach. With `succeeds` another process uses the queues until it gives them up.
    ///
    /// # Errors
    /// The primary ends, refuses or does not answer, or DPDK does not start.
    pub fn begin(
        config: &Config,
        id: SyncDomainId,
        domain: &SyncDomain,
        primary: &ProcessWatch,
        succeeds: bool,
    ) -> anyhow::Result<Attachment> {
        let mut client = ask(config, domain.numa, primary, succeeds)?;
        let status = client.status().context("asking the primary for its steering")?;
        let backend = backend_of(&status.steering)?;
        let mac = match config.port.mac {
            Some(mac) => mac,
            None => mac_of(&status.port.mac)?,
        };
        let began = Instant::now();
        let eal = start_eal(config, domain)?;
        // The hash key spreads clients over workers: no matter here.
        let queue = SteeringPlan::new(config, backend, HashKey([0; 2])).sync_queue(id);
        let queues = queue.map(|queue| take_queues(&eal, config, domain.numa, queue)).transpose()?;
        client
            .secondary_ready(domain.numa)
            .context("telling the primary that this secondary has attached")?;
        tracing::info!(
            numa = domain.numa.0,
            queue = queue.map(|queue| queue.0),
            steering = backend.name(),
            elapsed_ms = began.elapsed().as_millis() as u64,
            "attached to DPDK"
        );
        Ok(Attachment { queues, mac })
    }
}

/// Asks the primary to let this process attach, until it does.
fn ask(config: &Config, numa: NumaId, primary: &ProcessWatch, succeeds: bool) -> anyhow::Result<Client> {
    let deadline = Instant::now() + TURN_WAIT;
    loop {
        let asked = Client::connect(&config.paths.runtime, Callee::Primary, ANSWER_WAIT)
            .and_then(|mut client| client.attach_secondary(numa, succeeds).map(|()| client));
        match asked {
            Ok(client) => return Ok(client),
            Err(error) if may_ask_again(&error) && Instant::now() < deadline && primary.lives() => {
                std::thread::sleep(ASK_PAUSE);
            }
            Err(error) => return Err(error).context("asking the primary to attach"),
        }
    }
}

/// A primary that is just starting does not listen yet; one that is busy has another secondary attaching.
fn may_ask_again(error: &CallError) -> bool {
    match error {
        CallError::NotRunning { .. } => true,
        CallError::Refused { refusal, .. } => refusal.code == RefusalCode::Busy,
        _ => false,
    }
}

fn start_eal(config: &Config, domain: &SyncDomain) -> anyhow::Result<Eal> {
    let options = EalOptions::new(ProcessType::Secondary, &config.eal.file_prefix)
        .lcore(domain.lcore, &[domain.cpu])
        .hugepage_dir(&config.paths.hugepages)
        .runtime_dir(&config.paths.runtime);
    options.start().context("starting DPDK")
}

fn take_queues(eal: &Eal, config: &Config, numa: NumaId, queue: QueueId) -> anyhow::Result<OwnQueues> {
    let port = Port::attach(eal, &config.port.device).context("attaching to the primary's port")?;
    let pool = Mempool::lookup(eal, &format!("sync-{numa}"))?;
    let (rx, tx) = (port.take_rx_queue(queue.0)?, port.take_tx_queue(queue.0)?);
    let tap = TapQueue::find(&port, &rx, &pool)?;
    Ok(OwnQueues { rx, tx, pool, tap })
}

/// The backend of that name, as the primary's status says it.
fn backend_of(name: &str) -> anyhow::Result<SteeringBackend> {
    use SteeringBackend::{RteFlow, Software, TapBpf};
    let backend = [RteFlow, TapBpf, Software].into_iter().find(|backend| backend.name() == name);
    backend.with_context(|| {
        format!(
            "the primary steers by {name:?}, which this version does not know: are both of the same version?"
        )
    })
}

/// A link-layer address from its usual text, `02:ba:70:00:00:01`.
fn mac_of(text: &str) -> anyhow::Result<MacAddress> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = value.with_context(|| format!("the primary's link-layer address {text:?} is none"))?;
    }
    if parts.next().is_some() {
        bail!("the primary's link-layer address {text:?} is none");
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_layer_address_is_six_bytes() {
        assert_eq!(mac_of("02:ba:70:00:00:01").unwrap(), [2, 0xba, 0x70, 0, 0, 1]);
        for wrong in ["", "02:ba:70:00:00", "02:ba:70:00:00:01:02", "02:ba:70:00:00:0g", "2:ba:70:00:00:001"]
        {
            assert!(mac_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_backend_is_known_by_its_name() {
        use SteeringBackend::{RteFlow, Software, TapBpf};
        for backend in [RteFlow, TapBpf, Software] {
            assert_eq!(backend_of(backend.name()).unwrap(), backend);
        }
        assert!(backend_of("magic").is_err());
    }
}
