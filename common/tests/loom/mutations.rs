//! Mutations: each mistake in the table below is seen to fail its model.
//!
//! A mistake is made in a process of its own, named by the environment; the code is the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_common::shm::atomic::mutation::Kind::{self, AcqRel, Defer, Relax, Repeat, Skip, Value};
use baton_common::shm::atomic::mutation::VARIABLE;

const BUCKET: &str = "shm/bucket.rs";
const SLAB: &str = "shm/slab.rs";
const READERS: &str = "shm/readers.rs";
const RING: &str = "shm/ring.rs";
const DIRTY: &str = "shm/dirty.rs";
const RECORD: &str = "session/record.rs";
const ADDRESSES: &str = "session/addresses.rs";
const RECOVERY: &str = "session/table/recovery.rs";

/// Files whose `// SYNC` names are all in one of the tables.
const FILES: [&str; 8] = [BUCKET, SLAB, READERS, RING, DIRTY, RECORD, ADDRESSES, RECOVERY];

/// An access to shared memory: the first line of a function in which this text begins; it may go on in the next.
type Site = (&'static str, &'static str, &'static str);

/// Mistakes made together, and the model that fails of them.
type Mutation = (&'static [(Site, Kind)], &'static str);

const APPEARS: &str = "table::a_session_appears_whole";
const REUSED: &str = "table::a_record_is_not_used_again_under_its_reader";
const ONLINE: &str = "table::a_record_is_not_used_again_under_a_reader_that_comes_online";
const SCAN: &str = "table::a_scan_sees_no_mixture";
const OVERWRITTEN: &str = "table::an_observer_sees_no_address_of_another_session";
const MOVED: &str = "table::an_entry_that_is_moved_is_found_meanwhile";
const ENDS: &str = "ring::a_dead_end_loses_nothing";
const TAKEN: &str = "ring::a_range_that_is_taken_shows_its_change";
const OUTLIVED: &str = "ring::a_range_outlives_who_took_it";

// Sites that cover others.
const BEGIN: Site = (BUCKET, "begin_change", "fence(");
const LOOK: Site = (BUCKET, "read", "let before");
const NUMBERED: Site = (BUCKET, "read", "fence(Ordering::Acquire)");
const GLANCED: Site = (BUCKET, "glance", "fence(");
const ADVANCE: Site = (READERS, "advance", "fence(");
const ADDRESS: Site = (ADDRESSES, "find_or_add", "fence(");
const DECLARE: Site = (RECOVERY, "declare", "fence(");

/// The table. Where several mistakes are made together, each one alone is made good by the others' sites.
const MUTATIONS: &[Mutation] = &[
    // record-published
    (&[((RECORD, "publish", "word.store("), Relax)], APPEARS),
    (&[((RECORD, "read", ".load("), Relax)], SCAN),
    // record-reused
    (&[((RECORD, "read_alone", "fence("), Relax)], SCAN),
    (&[((RECORD, "read_alone", "let after"), Repeat)], SCAN),
    (&[((RECORD, "retire", "word.store("), Skip)], SCAN),
    (&[((SLAB, "write", "fence("), Relax), (ADVANCE, Relax), (BEGIN, Relax), (DECLARE, Relax)], SCAN),
    (&[(ADDRESS, Relax), (ADVANCE, Relax), (BEGIN, Relax), ((SLAB, "write", "fence("), Relax)], OVERWRITTEN),
    // bucket-changing, bucket-changed, record-numbered
    (&[(LOOK, Relax), (NUMBERED, Relax)], OVERWRITTEN),
    (&[((BUCKET, "read", "fence(Ordering::Acquire); let after"), Relax), (NUMBERED, Relax)], MOVED),
    (&[((BUCKET, "read", "let after"), Repeat)], MOVED),
    (&[(GLANCED, Relax)], MOVED),
    (&[((BUCKET, "glance", "let after"), Repeat)], MOVED),
    (&[(BEGIN, Relax), (DECLARE, Relax), ((SLAB, "write", "fence("), Relax)], MOVED),
    (&[(BEGIN, Relax), ((BUCKET, "set_tag", ".store("), Relax)], MOVED),
    (&[((BUCKET, "end_change", ".store("), Skip)], APPEARS),
    (&[((BUCKET, "set_strays", ".store("), Skip)], MOVED),
    // epoch-begun, reader-quiet, reader-online
    (&[((READERS, "advance", ".store("), Relax), (BEGIN, Relax)], REUSED),
    (&[((READERS, "quiesce", ".load("), Relax), (GLANCED, Relax)], REUSED),
    (&[(ADVANCE, Relax)], ONLINE),
    (&[(ADVANCE, AcqRel)], ONLINE),
    (&[((READERS, "have_passed", ".load("), Relax)], ONLINE),
    (&[((READERS, "have_passed", ".load("), Value(0))], ONLINE),
    (&[((READERS, "quiesce", ".store("), Relax)], REUSED),
    (&[((READERS, "quiesce", ".store("), Skip)], ONLINE),
    (&[((READERS, "quiesce", "fence("), Relax)], ONLINE),
    (&[((READERS, "quiesce", "fence("), AcqRel)], ONLINE),
    (&[((READERS, "leave", ".store("), Relax)], ONLINE),
    // ring-published, ring-consumed
    (&[((RING, "try_push_parts", "tail.store("), Relax)], ENDS),
    (&[((RING, "try_push_parts", "tail.store("), Skip)], ENDS),
    (&[((RING, "available", "tail.load("), Relax)], ENDS),
    (&[((RING, "store_whole", "word.store("), Defer)], ENDS),
    (&[((RING, "refresh_head", ".load("), Value(2))], ENDS),
    // range-marked
    (&[((DIRTY, "mark", "fetch_or("), Relax)], TAKEN),
    (&[((DIRTY, "mark", "fetch_or("), Skip)], OUTLIVED),
    (&[((DIRTY, "take_next", "fetch_and("), Relax)], TAKEN),
    (&[((DIRTY, "take_next", "].store("), Skip)], OUTLIVED),
];

/// Orderings that can be weakened alone without a model failing, and why they stay.
const COVERED: &[(Site, &str)] = &[
    (
        (BUCKET, "glance", "let before"),
        "its fence orders all but the tags, and tags older than the head miss new keys only",
    ),
    ((BUCKET, "end_change", ".store("), "the fence of the next change orders it, or the tag's own release"),
    ((BUCKET, "set_strays", ".store("), "nothing is read because of it that is not checked again"),
    ((RING, "refresh_head", ".load("), LOADS),
    ((RING, "commit", ".store("), LOADS),
    ((RECOVERY, "done", ".store("), "its reader is a successor, behind the kernel's lock"),
];

const LOADS: &str = "loom lets no load see a store that comes later, so it cannot show a slot that is overwritten while it is read";

fn source(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The number of a site's line.
fn line_of((file, function, text): Site) -> usize {
    let lines = source(file);
    let heads = [format!("fn {function}("), format!("fn {function}<")];
    let start = lines.iter().position(|line| heads.iter().any(|head| line.contains(head)));
    let start = start.unwrap_or_else(|| panic!("{file} has no function {function}"));
    let within = lines[start..].windows(2).position(|pair| {
        let joined = format!("{} {}", pair[0], pair[1].trim_start());
        joined.find(text).is_some_and(|begin| begin < pair[0].len())
    });
    start + 1 + within.unwrap_or_else(|| panic!("{file}: {function} does not contain {text}"))
}

/// The accesses that stand under a `// SYNC` name: file and line.
fn named_sites() -> BTreeSet<(&'static str, usize)> {
    let is_access = |line: &String| {
        let access = [".load(", ".store(", "fence(", ".fetch_or(", ".fetch_and(", ".compare_exchange("];
        !line.trim_start().starts_with("//") && access.iter().any(|access| line.contains(access))
    };
    let mut sites = BTreeSet::new();
    for file in FILES {
        let lines = source(file);
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.contains("// SYNC ")) {
            let access = lines[number..].iter().position(is_access).expect("an access after each SYNC name");
            sites.insert((file, number + access + 1));
        }
    }
    sites
}

#[test]
fn every_named_ordering_is_weakened_or_said_to_be_covered() {
    let mistakes = MUTATIONS.iter().flat_map(|(mistakes, _)| mistakes.iter());
    let mutated = mistakes.filter(|(_, kind)| *kind == Relax).map(|(site, _)| *site);
    let known: BTreeSet<_> = mutated
        .chain(COVERED.iter().map(|(site, why)| {
            println!("{site:?} alone: {why}");
            *site
        }))
        .map(|site| (site.0, line_of(site)))
        .collect();
    let missing: Vec<_> = named_sites().difference(&known).copied().collect();
    assert!(missing.is_empty(), "neither mutated nor covered: {missing:?}");
}

/// What the model says with these mistakes made; `None` if it passes.
fn failure(mistakes: &[(Site, Kind)], model: &str) -> Option<String> {
    let mistakes: Vec<String> = mistakes
        .iter()
        .map(|(site, kind)| format!("{}:{}:{}", site.0, line_of(*site), kind.to_text()))
        .collect();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", model, "--nocapture"])
        .env(VARIABLE, mistakes.join(","))
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
    (!output.status.success()).then(|| lines.nth(1).unwrap_or("no panic").to_owned())
}

#[test]
fn every_mutation_fails_its_model() {
    let (next, unseen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((mistakes, model)) = MUTATIONS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match failure(mistakes, model) {
                        Some(said) if said != "no panic" => println!("{mistakes:?}: {model}: {said}"),
                        other => unseen.lock().unwrap().push(format!("{mistakes:?}: {model}: {other:?}")),
                    }
                }
            });
        }
    });
    let unseen = unseen.into_inner().unwrap();
    assert!(unseen.is_empty(), "not seen:\n{}", unseen.join("\n"));
}
