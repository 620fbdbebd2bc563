//! `bench-table`: session tables at millions of sessions, Baton's beside what others would have used.
//!
//! Every contender gets the same sessions and is asked the same questions, in a process of its own. A contender that finds a
//! wrong number of sessions ends the run.

mod baton;
mod beside;
mod churn;
mod compact;
mod contender;
mod demand;
mod faults;
mod goals;
mod grace;
mod limits;
mod maps;
pub(crate) mod population;
mod quantity;
mod results;
mod rte_hash;
pub(crate) mod stopwatch;
mod trial;
mod two_indexes;

pub use contender::Kind;
pub use faults::{WRITER_COMMAND, WriterJob, write_for_ever};
pub use population::{Family, SESSIONS_MAX, SESSIONS_MIN};
pub use trial::Job;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dpdk::{EalOptions, ProcessType};

use self::baton::Baton;
use self::compact::{V4_WORDS, V6_WORDS};
use self::contender::{BATCH, BURST, Contender};
use self::demand::Demand;
use self::maps::{DashMap, Papaya, Scc};
use self::population::Population;
use self::quantity::Figure;
use self::results::{Case, Results};
use self::rte_hash::RteHash;
use self::trial::Trial;
use self::two_indexes::TwoIndexes;
use crate::host::child::{self, Lost, die_with_parent};
use crate::host::cpus::{self, Cpus};
use crate::host::hugepages::{self, Mount, PAGE_BYTES, Reservation};
use crate::host::{memory, signals};
use crate::report::{Machine, Report};

/// The command of a trial's process.
pub const TRIAL_COMMAND: &str = "table-trial";

/// Longest time of a trial.
const TRIAL_MAX: Duration = Duration::from_secs(240);

/// Memory that stays free for everybody else.
const MEMORY_LEFT: u64 = 1 << 30;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sessions in the tables, [`SESSIONS_MIN`] to [`SESSIONS_MAX`] each.
    pub sizes: Vec<u32>,
    /// Who.
    pub contenders: Vec<Kind>,
    /// How often.
    pub rounds: u32,
    /// How long each rate is measured.
    pub slice: Duration,
    /// Another seed gives other sessions.
    pub seed: u32,
    /// Where the results go.
    pub out: PathBuf,
}

/// Runs the benchmark, prints what it finds and writes it down. Must be called while the process has one thread.
///
/// # Errors
/// Not root, an option makes no sense, a contender is wrong, or the run was interrupted.
pub fn run(options: &Options) -> Result<()> {
    let cases = cases(&options.sizes)?;
    ensure!(options.rounds > 0, "rounds: at least one");
    let start = Instant::now();
    signals::note()?;
    let mount = Mount::of_our_own()?;
    let cpus = Cpus::choose()?;
    let demands = cases.iter().flat_map(|case| options.contenders.iter().map(|who| Demand::of(*who, *case)));
    let pages = demands.map(|demand| demand.hugepages).max().unwrap_or(0);
    let mut reservation = Reservation::none();
    // All at once, while memory is in one piece.
    reservation.fill(pages.min(affordable_pages()?))?;

    let mut results = Results::default();
    for round in 0..options.rounds {
        for case in cases.iter().copied() {
            for who in options.contenders.iter().copied() {
                // The others are there to compare with; goals are about the first ones, which are measured more often.
                if !who.is_in_goals() && round > 0 || results.is_skipped(case, who) {
                    continue;
                }
                // Again, for somebody else may have taken some meanwhile.
                reservation.fill(Demand::of(who, case).hugepages.min(affordable_pages()?))?;
                let Case { sessions, family } = case;
                let job = Job {
                    contender: who,
                    population: Population { family, sessions, seed: options.seed },
                    hugepages: mount.path().to_owned(),
                    cpus,
                    slice_ms: options.slice.as_millis() as u64,
                };
                trial_of(&job, case, round, &mut results)?;
                mount.clear()?;
            }
        }
    }
    let report = report(options, &results, start.elapsed());
    report.print();
    for path in report.write(&options.out)? {
        println!("{}", path.display());
    }
    println!(
        "{} of {} goals missed, {} s",
        report.missed().count(),
        report.goals.len(),
        start.elapsed().as_secs()
    );
    Ok(())
}

/// Each size once with each family, in order.
fn cases(sizes: &[u32]) -> Result<Vec<Case>> {
    ensure!(
        !sizes.is_empty() && sizes.iter().all(|size| (SESSIONS_MIN..=SESSIONS_MAX).contains(size)),
        "sizes {sizes:?}: {SESSIONS_MIN} to {SESSIONS_MAX} sessions are possible"
    );
    let of_size = |sessions: &u32| Family::ALL.map(|family| Case { sessions: *sessions, family });
    let mut cases: Vec<Case> = sizes.iter().flat_map(of_size).collect();
    cases.sort();
    cases.dedup();
    Ok(cases)
}

/// Hugepages that may be borrowed.
fn affordable_pages() -> Result<u64> {
    Ok(hugepages::free()? + memory::available()?.saturating_sub(2 * MEMORY_LEFT) / PAGE_BYTES)
}

/// Runs a trial in a child process, if there is memory for it.
fn trial_of(job: &Job, case: Case, round: u32, results: &mut Results) -> Result<()> {
    signals::check()?;
    let who = job.contender;
    let start = Instant::now();
    let outcome = match Demand::of(who, case).missing()? {
        Some(why) => Err(Lost(why).into()),
        None => child::run::<Vec<Figure>>(TRIAL_COMMAND, job, TRIAL_MAX),
    };
    let seconds = start.elapsed().as_secs_f64();
    match outcome {
        Ok(figures) => {
            eprintln!("round {}: {}, {}: {seconds:.1} s", round + 1, case.name(), who.name());
            results.add(case, who, round, figures);
        }
        Err(error) => match error.downcast::<Lost>() {
            Ok(Lost(why)) => {
                eprintln!("round {}: {}, {}: skipped: {why}", round + 1, case.name(), who.name());
                results.skip(case, who, why);
            }
            Err(error) => return Err(error.context(format!("{}, {}", case.name(), who.name()))),
        },
    }
    Ok(())
}

/// A trial, in its own process: what it finds.
///
/// # Errors
/// Memory is missing, or the contender is wrong.
pub fn trial(job: &Job) -> Result<Vec<Figure>> {
    die_with_parent()?;
    cpus::pin(job.cpus.reader)?;
    match (job.contender, job.population.family) {
        (Kind::Machine, _) => limits::measure(&job.population, job.slice()),
        (Kind::Baton, _) => {
            let mut trial = Trial::<Baton>::begin(job)?;
            trial.measure()?;
            faults::measure(job, &mut trial)?;
            trial.end()
        }
        (Kind::RteHash, family) => {
            let _eal = EalOptions::new(ProcessType::Primary, format!("baton-bench-{}", std::process::id()))
                .lcore(0, &[job.cpus.reader as u16])
                .argument("--in-memory")
                .argument("--single-file-segments")
                .argument("--log-level=error")
                .start()
                .context("cannot start DPDK")?;
            match family {
                Family::V4 => whole::<TwoIndexes<RteHash<V4_WORDS>, V4_WORDS>>(job),
                Family::V6 => whole::<TwoIndexes<RteHash<V6_WORDS>, V6_WORDS>>(job),
            }
        }
        (Kind::Papaya, Family::V4) => whole::<TwoIndexes<Papaya<V4_WORDS>, V4_WORDS>>(job),
        (Kind::Papaya, Family::V6) => whole::<TwoIndexes<Papaya<V6_WORDS>, V6_WORDS>>(job),
        (Kind::Scc, Family::V4) => whole::<TwoIndexes<Scc<V4_WORDS>, V4_WORDS>>(job),
        (Kind::Scc, Family::V6) => whole::<TwoIndexes<Scc<V6_WORDS>, V6_WORDS>>(job),
        (Kind::DashMap, Family::V4) => whole::<TwoIndexes<DashMap<V4_WORDS>, V4_WORDS>>(job),
        (Kind::DashMap, Family::V6) => whole::<TwoIndexes<DashMap<V6_WORDS>, V6_WORDS>>(job),
    }
}

fn whole<C: Contender>(job: &Job) -> Result<Vec<Figure>> {
    let mut trial = Trial::<C>::begin(job)?;
    trial.measure()?;
    trial.end()
}

fn report(options: &Options, results: &Results, took: Duration) -> Report {
    let method = [
        "All contenders have the same sessions, which follow from their numbers, and are asked the same questions in the \
         same order, each in a process of its own. Figures are millions a second on one core, medians of the rounds; goals \
         are medians of the ratios within a round. Rates of one thread are of its time on the CPU, those of a reader beside \
         something of time as it passes without what other processes took of the core. Making the keys is not part of any figure."
            .to_owned(),
        "Baton is its session table in a hugetlbfs file, both keys of a session in one index. The others are two hash tables \
         from key to record number, one a key, over an array of records in hugepages: rte_hash with lock-free read-write \
         concurrency, rte_hash_crc and 16-byte or 40-byte keys; papaya, scc (HashIndex) and dashmap with foldhash on the heap \
         (transparent hugepages asked for). They are measured in the first round only."
            .to_owned(),
        format!(
            "A lookup includes reading the whole record. Bulk is {BURST} keys, a batch of the writer {BATCH} sessions; the \
             writer of the others works one by one, for they have no batches, but refreshes by bulk lookups of {BURST} keys \
             with prefetched records. Lookups are of random sessions, half of them by either key. The writer beside the \
             reader inserts and removes on another core without a pause; foreign memory traffic is a core that writes to \
             other memory, which shows what the machine itself takes from the reader."
        ),
        "An insert's memory accesses: two random lines are read, changed and written and one more is written, with the best \
         of four prefetch distances, and nothing else is done."
            .to_owned(),
        format!(
            "{} round{}, {} ms for each rate, seed {}, {} s in all.",
            options.rounds,
            if options.rounds == 1 { "" } else { "s" },
            options.slice.as_millis(),
            options.seed,
            took.as_secs()
        ),
    ];
    Report {
        name: "table".into(),
        title: "Session tables".into(),
        method: method.into(),
        machine: Machine::this(),
        results: results.measurements(),
        goals: goals::goals(results),
    }
}
