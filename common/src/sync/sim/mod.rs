//! Whole clusters in one process: every seed is another story of faults, and what must be true is checked all along.
//!
//! A run begins with a start of all nodes, goes through storms and calm times, then calms down for good. In calm times no
//! packet of a living connection may find no session or another's, and no local port may be given out twice; states and
//! generations never go backwards. At the end all nodes become ready, their tables become equal within a bounded time, each session has
//! one owner; and when nobody speaks any more, everything ages and every port is free.
//!
//! `BATON_SIM_SEEDS` (how many) and `BATON_SIM_SEED0` (the first) choose what the test runs; a failure names its seed.

mod clients;
mod cluster;
mod keys;
pub(super) mod network;
mod node;
mod picture;
pub(super) mod random;
pub(super) mod tables;
mod turns;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};

use cluster::{Cluster, SECOND};
use node::Durable;
use random::Random;

use super::protocol::Tables;
use super::protocol::mutation::Mutation;
use crate::counter::Counter;

/// What a run came to.
#[derive(Debug, Default)]
struct Outcome {
    violation: Option<String>,
    opened: u64,
    broken: u64,
    datagrams: u64,
}

/// Runs the story of a seed.
fn run(seed: u64, mutation: Mutation) -> Outcome {
    let mut random = Random::new(seed ^ 0xc1a5_7e12);
    let sizes = if random.chance(100_000) { 7 } else { 3 };
    let nodes = 2 + random.below(sizes) as usize;
    let durable: Vec<Durable> = (0..nodes).map(|_| Durable::new()).collect();
    let mut cluster = Cluster::new(seed, &durable, mutation);
    if Random::new(!seed).chance(250_000) {
        cluster.seal();
    }
    if nodes > 2 && Random::new(!seed ^ 0x6a09).chance(250_000) {
        cluster.change_members();
    }
    let violation = story(&mut cluster, &mut random).err();
    Outcome {
        violation: violation
            .map(|violation| format!("{:.3} s, {nodes} nodes: {violation}", cluster.seconds())),
        opened: cluster.opened,
        broken: cluster.broken,
        datagrams: cluster.network.delivered,
    }
}

fn story(cluster: &mut Cluster<'_>, random: &mut Random) -> Result<(), String> {
    const TICK: u64 = 4_000;
    let check = |cluster: &mut Cluster<'_>| cluster.violation.take().map_or(Ok(()), Err);
    cluster.calm_down();
    cluster.run_for(3 * SECOND, TICK, true);
    check(cluster)?;
    if !cluster.all_ready() {
        return Err("a cluster that starts in calm weather is not ready after three seconds".to_owned());
    }
    for storm in 0..3 {
        cluster.go_and_come(storm);
        cluster.draw_plan();
        cluster.run_for(SECOND + random.below(4 * SECOND), TICK, true);
        check(cluster)?;
        cluster.calm_down();
        cluster.run_for(random.below(9 * SECOND), TICK, true);
        check(cluster)?;
    }
    cluster.run_for(8 * SECOND, TICK, true);
    check(cluster)?;
    if !cluster.all_ready() {
        return Err("not all nodes are ready eight seconds after the last fault".to_owned());
    }
    // Nobody speaks: what is on its way arrives, and all hold the same.
    let mut rounds = 0;
    cluster.run_for(SECOND, TICK, false);
    while let Some(difference) = cluster.difference() {
        cluster.run_for(SECOND / 4, TICK, false);
        check(cluster)?;
        rounds += 1;
        if rounds > 20 {
            return Err(format!("tables differ six seconds after the last packet: {difference}"));
        }
    }
    cluster.run_for(45 * SECOND, 10 * TICK, false);
    check(cluster)?;
    for node in &cluster.nodes {
        if let Some((place, session)) = node.tables.iter().next() {
            let home = if node.tables.is_remote(place) { "remote" } else { "local" };
            return Err(format!("node {} still has a {home} session: {session:?}", node.worker.node));
        }
    }
    Ok(())
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn clusters_of_many_seeds_obey_the_rules() {
    let (first, count) = (number_from("BATON_SIM_SEED0", 1), number_from("BATON_SIM_SEEDS", 60));
    let next = AtomicU64::new(first);
    let totals = [const { AtomicU64::new(0) }; 3];
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.lock().unwrap().len() > 20 {
                        return;
                    }
                    let outcome = run(seed, Mutation::None);
                    for (total, value) in
                        totals.iter().zip([outcome.opened, outcome.broken, outcome.datagrams])
                    {
                        total.fetch_add(value, Ordering::Relaxed);
                    }
                    if let Some(violation) = outcome.violation {
                        eprintln!("seed {seed}: {violation}");
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let [opened, broken, datagrams] = totals.map(AtomicU64::into_inner);
    println!(
        "{count} seeds from {first}: {opened} connections opened, {broken} given up, {datagrams} datagrams"
    );
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "seeds that failed: {failed:?}; run one with BATON_SIM_SEED0=… BATON_SIM_SEEDS=1"
    );
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    let (one, other) = (run(4714, Mutation::None), run(4714, Mutation::None));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert!(one.opened > 50 && one.datagrams > 1000, "{one:?}");
}

#[test]
fn a_node_that_lost_everything_while_its_clock_was_set_back_is_heard_again() {
    let durable: Vec<Durable> = (0..3).map(|_| Durable::new()).collect();
    let mut cluster = Cluster::new(1, &durable, Mutation::None);
    cluster.calm_down();
    cluster.run_for(3 * SECOND, 4_000, true);
    let first = durable[0].state.boot_epoch();

    cluster.nodes[0].wall = -1000 * SECOND as i64;
    cluster.nodes[0].crash(cluster.now, cluster.now);
    cluster.run_for(4 * SECOND, 4_000, false);

    assert!(cluster.all_ready() && cluster.violation.is_none(), "{:?}", cluster.violation);
    assert!(durable[0].state.boot_epoch() > first);
    assert_eq!(durable[0].counters.value(Counter::LivesPutAhead), 1);
    assert!(durable[1].counters.value(Counter::SyncRejectEpoch) > 0);
}

/// Where the tables of the others differ when a node has left, in silence, and another has joined after that.
fn difference_after_a_leave_and_a_join(mutation: Mutation) -> Option<String> {
    let durable: Vec<Durable> = (0..3).map(|_| Durable::new()).collect();
    let mut cluster = Cluster::new(2, &durable, mutation);
    cluster.change_members();
    cluster.calm_down();
    cluster.run_for(3 * SECOND, 4_000, true);
    cluster.go_and_come(0);
    cluster.run_for(6 * SECOND, 4_000, false);
    cluster.go_and_come(1);
    cluster.run_for(3 * SECOND, 4_000, false);
    assert!(cluster.all_ready() && cluster.violation.is_none(), "{:?}", cluster.violation);
    assert!(cluster.picture(2).len() + cluster.picture(1).len() > 4);
    cluster.difference()
}

#[test]
fn sessions_of_a_node_that_left_reach_one_that_joins_later() {
    assert_eq!(difference_after_a_leave_and_a_join(Mutation::None), None);
    assert!(difference_after_a_leave_and_a_join(Mutation::OrphansStaySo).is_some());
}

/// Seeds within which every planted bug must show.
const SEEDS_PER_BUG: u64 = 1000;

/// Shows that a planted bug is found: in a story that goes well without it. The search begins at a seed that is known to
/// show it, for most bugs need a rare turn of events; it goes on from there when the simulation has changed. What is rarer
/// still is brought about in [`turns`].
fn find(bug: Mutation, first: u64) {
    let shows =
        |seed: &u64| run(*seed, bug).violation.is_some() && run(*seed, Mutation::None).violation.is_none();
    let seed = (first..first + SEEDS_PER_BUG).find(shows);
    println!("{bug:?}: seed {seed:?}");
    assert!(seed.is_some(), "{bug:?} was not found in {SEEDS_PER_BUG} seeds");
}

macro_rules! planted_bugs_are_found {
    ($($test:ident => $bug:ident from $first:literal;)+) => {
        mod planted {
            use super::{Mutation, find};
            $(#[test] fn $test() { find(Mutation::$bug, $first); })+
        }
    };
}

planted_bugs_are_found! {
    any_generation_wins => AnyGenerationWins from 3;
    last_owner_wins => LastOwnerWins from 84;
    late_news_sets_back => LateNewsSetsBack from 10;
    claims_are_kept => ClaimsAreKept from 1;
    loser_goes_on => LoserGoesOn from 1;
    news_is_passed_on => NewsIsPassedOn from 1;
    ageing_is_silent => AgeingIsSilent from 41;
    departed_are_heard => DepartedAreHeard from 18;
    refresh_is_ignored => RefreshIsIgnored from 19;
    nothing_is_given_back => NothingIsGivenBack from 124;
    no_digests => NoDigests from 1;
    outdated_stay_so => OutdatedStaySo from 28;
    numbers_begin_anew => NumbersBeginAnew from 40;
}
