//! `bench-sync`: sessions from one node to another, beside what others would have used.
//!
//! Every trial has processes of its own. One that does not have the right number of sessions in the end fails the run.

pub mod conntrackd;
pub mod memory;
pub mod node;
pub mod port;
pub mod redis;
mod results;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::results::Results;
use crate::host::child;
use crate::host::cpus::Cpus;
use crate::host::hugepages::{Mount, PAGE_BYTES, Reservation};
use crate::host::signals;
use crate::report::{Better, Machine, Report};
use crate::table::Family;

/// The command of a trial in memory.
pub const MEMORY_COMMAND: &str = "sync-memory";

/// The command of a trial's receiving end.
pub const PORT_COMMAND: &str = "sync-port";

/// Longest time of a trial.
const TRIAL_MAX: Duration = Duration::from_secs(180);

/// Fewest sessions of a full sync.
const SESSIONS_MIN: u32 = 2000;

/// Most sessions of a full sync: the population has no more clients that packets can come from.
const SESSIONS_MAX: u32 = 28_000_000;

/// Most sessions that open one by one.
const EVENTS_MAX: u32 = 5_000_000;

/// Most messages to Redis.
const MESSAGES_MAX: u32 = 2_000_000;

/// Pipelines that Redis is tried with; the first is one message at a time.
const PIPELINES: [u32; 4] = [1, 100, 1000, 5000];

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sessions of a full sync.
    pub sizes: Vec<u32>,
    /// How often.
    pub rounds: u32,
    /// Where the results go.
    pub out: PathBuf,
}

/// Runs the benchmark, prints what it finds and writes it down. Must be called while the process has one thread.
///
/// # Errors
/// Not root, an option makes no sense, something is missing or wrong, or the run was interrupted.
pub fn run(options: &Options) -> Result<()> {
    let possible = SESSIONS_MIN..=SESSIONS_MAX;
    ensure!(
        !options.sizes.is_empty() && options.sizes.iter().all(|size| possible.contains(size)),
        "sizes {:?}: {SESSIONS_MIN} to {SESSIONS_MAX} sessions are possible",
        options.sizes
    );
    ensure!(options.rounds > 0, "rounds: at least one");
    let start = Instant::now();
    signals::note()?;
    let mount = Mount::of_our_own()?;
    let cpus = Cpus::choose()?;
    let largest = options.sizes.iter().copied().max().unwrap_or(0);
    let mut pages = Reservation::none();
    pages.fill(pages_of(largest))?;
    let mut results = Results::default();
    for _ in 0..options.rounds {
        round(options, &mount, cpus, &mut results)?;
    }
    let report = report(options, &results, start.elapsed());
    report.print();
    for path in report.write(&options.out)? {
        println!("{}", path.display());
    }
    let missed = report.missed().count();
    println!("{missed} of {} goals missed, {} s", report.goals.len(), start.elapsed().as_secs());
    Ok(())
}

/// Hugepages of a trial: tables at both ends with a fifth more room than sessions, at 90 bytes each, and DPDK's.
fn pages_of(sessions: u32) -> u64 {
    u64::from(sessions) * 90 * 3 / PAGE_BYTES + 400
}

/// "20 M IPv4".
fn case_of(sessions: u32, family: Family) -> String {
    match sessions {
        whole if whole.is_multiple_of(1_000_000) => format!("{} M {}", whole / 1_000_000, family.name()),
        other => format!("{} k {}", other / 1000, family.name()),
    }
}

fn round(options: &Options, mount: &Mount, cpus: Cpus, results: &mut Results) -> Result<()> {
    for sessions in options.sizes.iter().copied() {
        for family in Family::ALL {
            for sealed in [true, false] {
                in_memory(sessions, family, sealed, mount, cpus, results)?;
            }
        }
        for sealed in [true, false] {
            over_port(port::Traffic::FullSync, sessions, sealed, mount, cpus, results)?;
        }
    }
    let events = options.sizes.iter().copied().max().unwrap_or(0).min(EVENTS_MAX);
    over_port(port::Traffic::Bare, events, false, mount, cpus, results)?;
    for sealed in [true, false] {
        over_port(port::Traffic::Events, events, sealed, mount, cpus, results)?;
    }
    beside(options, cpus, results)
}

fn in_memory(
    sessions: u32,
    family: Family,
    sealed: bool,
    mount: &Mount,
    cpus: Cpus,
    results: &mut Results,
) -> Result<()> {
    signals::check()?;
    let job = memory::Job { family, sessions, sealed, hugepages: mount.path().to_owned(), cpu: cpus.reader };
    let (case, who) = (case_of(sessions, family), results::who(sealed));
    let found: memory::InMemory =
        child::run(MEMORY_COMMAND, &job, TRIAL_MAX).with_context(|| format!("{case}, {who}, in memory"))?;
    port::clear(mount.path())?;
    let count = f64::from(found.sessions);
    results.add(&case, results::INGEST, who, count / found.ingest_s / 1e6);
    results.add(&case, results::SERVE, who, count / found.serve_s / 1e6);
    results.add(&case, results::BYTES, who, found.bytes as f64 / count);
    Ok(())
}

fn over_port(
    traffic: port::Traffic,
    sessions: u32,
    sealed: bool,
    mount: &Mount,
    cpus: Cpus,
    results: &mut Results,
) -> Result<()> {
    signals::check()?;
    let directory = port::socket_directory()?;
    let job = port::Job {
        traffic,
        family: Family::V4,
        sessions,
        key: if sealed { Some(node::new_key()?) } else { None },
        hugepages: mount.path().to_owned(),
        directory: directory.path().to_owned(),
        cpus: [cpus.writer, cpus.reader],
    };
    let (case, who) = (case_of(sessions, job.family), results::who(sealed));
    let found: port::OverPort =
        child::run(PORT_COMMAND, &job, TRIAL_MAX).with_context(|| format!("{case}, {who}, {traffic:?}"))?;
    port::clear(mount.path())?;
    let (count, datagrams) = (f64::from(found.sessions), found.datagrams as f64);
    match traffic {
        port::Traffic::Bare => {
            results.add(&case, results::DATAGRAMS, "the port alone", datagrams / found.seconds / 1e6);
        }
        port::Traffic::FullSync => {
            results.add(&case, results::SYNC_TIME, who, found.seconds);
            results.add(&case, results::SYNC, who, count / found.flow_seconds / 1e6);
            results.add(&case, results::SYNC_DATAGRAMS, who, datagrams / found.flow_seconds / 1e6);
            results.add(&case, results::BUSY, who, found.busy_seconds / found.flow_seconds);
        }
        port::Traffic::Events => {
            results.add(&case, results::EVENTS, who, count / found.flow_seconds / 1e6);
            results.add(&case, results::EVENT_BYTES, who, found.bytes as f64 / count);
        }
    }
    Ok(())
}

/// The others, with as many sessions as they can hold in the time.
fn beside(options: &Options, cpus: Cpus, results: &mut Results) -> Result<()> {
    let largest = options.sizes.iter().copied().max().unwrap_or(0);
    signals::check()?;
    let messages = largest.min(MESSAGES_MAX);
    let case = case_of(messages, Family::V4);
    let published = redis::publish(messages, &PIPELINES, cpus)?;
    if let Some(one) = published.iter().find(|one| one.pipeline == 1) {
        results.add(&case, results::EVENTS, "Redis, one by one", one.rate());
    }
    if let Some(best) = published.iter().max_by(|one, other| one.rate().total_cmp(&other.rate())) {
        results.add(&case, results::SYNC, "Redis, best pipeline", best.rate());
    }
    signals::check()?;
    let connections = largest.min(conntrackd::SESSIONS_MAX);
    let case = case_of(connections, Family::V4);
    let tracked = conntrackd::track(connections)?;
    let rate = |sessions: u32, seconds: f64| f64::from(sessions) / seconds / 1e6;
    results.add(&case, results::EVENTS, "conntrackd", rate(tracked.event_sessions, tracked.event_seconds));
    results.add(&case, results::SYNC, "conntrackd", rate(tracked.bulk_sessions, tracked.bulk_seconds));
    results.add(&case, results::BYTES, "conntrackd", tracked.bytes);
    let arrived = f64::from(tracked.bulk_sessions) / f64::from(tracked.sessions);
    results.add(&case, results::ARRIVED, "conntrackd", arrived);
    Ok(())
}

fn report(options: &Options, results: &Results, took: Duration) -> Report {
    let method = [
        "In memory: both nodes run on one core, and the receiver's time is that of the thread in datagrams of a full sync: \
         decrypt, verify, decode, decide by the protocol's rules, insert under both keys, enter in the ledger. Its workers \
         have a tenth as many sessions of their own, in two tables that are looked into for each. The sender's time is that \
         of serving ranges, and making the register of them."
            .to_owned(),
        "Over the port: a process on a core each, datagrams of at most 1472 bytes as whole UDP frames over DPDK's memif, \
         which copies; frames are made and opened with UDP checksums, in software. Time to full sync is from the receiver's \
         first turn until it is ready: the greeting, the ranges that it asks back, the comparison of digests and up to a \
         second of waiting for their time included. Rates are from the first session that came to the last. New sessions \
         are told from events."
            .to_owned(),
        format!(
            "The port alone: full datagrams that nobody looks at, over the same port. Redis: messages of 32 bytes over a Unix \
             socket, pipelines of {PIPELINES:?}, at most {MESSAGES_MAX} messages, 100,000 one by one; the subscriber counts \
             bytes and keeps nothing. conntrackd: NOTRACK over a veth pair between two network namespaces, at most {} \
             connections, because the kernel's table holds no more; events of `conntrack -R`, a bulk of `conntrackd -B`, \
             from one daemon's memory to the other's (nothing is put into the peer's kernel); its bytes are those of frames.",
            conntrackd::SESSIONS_MAX
        ),
        format!(
            "{} round{}, {} s in all. Rates of one case and those of others that can hold fewer sessions are of the same run.",
            options.rounds,
            if options.rounds == 1 { "" } else { "s" },
            took.as_secs()
        ),
    ];
    Report {
        name: "sync".into(),
        title: "Sessions from node to node".into(),
        method: method.into(),
        machine: Machine::this(),
        results: results.measurements(),
        goals: results.goals(),
    }
}

/// Which way a quantity is good.
fn better(what: &str) -> Better {
    match what {
        results::BYTES | results::EVENT_BYTES | results::SYNC_TIME => Better::Less,
        results::BUSY | results::ARRIVED => Better::Neither,
        _ => Better::More,
    }
}
