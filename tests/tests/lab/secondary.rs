//! The secondary is killed again and again under load: nothing is lost, and the peer learns everything in the end.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab};
use crate::load::{Load, Report};
use crate::random::Random;
use crate::sessions;
use crate::wait::{equal, wait_for};

const KILLS: u32 = 50;
/// Connections, or flows, to each service that go on all the time.
const EACH: u32 = 100;
/// Flows that each of the loads opens which come and go meanwhile.
const NEW: u32 = 20;
/// Flows that are opened at the end.
const MORE: u32 = 60;

#[test]
fn root_secondary_killed_fifty_times_under_load_costs_nothing() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]);
    // Both nodes carry traffic, so that the one that is killed both sends and receives.
    let mut http = [HTTP4, HTTP6].map(|target| Load::http(&lab, target, EACH, &[]));
    let mut udp = [ECHO4, ECHO6].map(|target| Load::udp(&lab, target, EACH, 500));
    http.iter_mut().chain(&mut udp).for_each(Load::wait_ready);
    let before = [1, 2].map(|node| Counters::read(&lab, node));
    let hugepages = lab.hugepage_bytes(1);

    let new = with_new_sessions(&lab, || kill_again_and_again(&lab));

    assert!(new.len() >= 5, "{} loads came and went", new.len());
    new.iter().for_each(|report| report.assert_udp_whole(NEW));
    assert_eq!(lab.hugepage_bytes(1), hugepages);
    let buffers = free_buffers(&lab);
    println!("free buffers {buffers:?}");
    assert!(buffers.len() > KILLS as usize / 2, "{buffers:?}");
    // What a dead process just held is found again.
    assert!(buffers.iter().all(|free| *free == buffers[0]), "{buffers:?}");
    // A session that was made while no secondary lived is known all the same.
    let replicated = sessions::wait_until_replicated(&lab, 1, 2);
    assert!(replicated >= u64::from(EACH), "{replicated} sessions");
    hears_of_new_sessions(&lab);
    for load in http {
        load.finish().assert_http_whole(EACH);
    }
    for load in udp {
        load.finish().assert_udp_whole(EACH);
    }
    let added = [1, 2].map(|node| Counters::settled(&lab, node).since(&before[usize::from(node) - 1]));
    for added in &added {
        assert_eq!(added.without(&[Counter::DropNotForUs]).drops(), Default::default());
    }
    let opened = u64::from(NEW) * new.len() as u64 + u64::from(MORE);
    let created = added.iter().map(|added| added.get(Counter::SessionsCreated)).sum::<u64>();
    // A few client ports may have come twice, and found their session again.
    assert!((opened * 9 / 10..=opened).contains(&created), "{created} sessions for {opened} flows");
}

#[test]
fn root_sessions_made_without_a_secondary_are_told_when_it_is_back() {
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]);
    lab.run(&["withdraw", "n2"]);
    lab.kill("n1", &["sync"]);
    let mut loads = [Load::http(&lab, HTTP6, EACH, &[]), Load::udp(&lab, ECHO4, EACH, 500)];
    loads.iter_mut().for_each(Load::wait_ready);
    assert_eq!(sessions::count(&lab, 1, &["--table", "local"]), u64::from(2 * EACH));
    assert_eq!(sessions::count(&lab, 2, &["--table", "remote"]), 0);

    lab.start("n1", &["sync"]);

    assert_eq!(sessions::wait_until_replicated(&lab, 1, 2), u64::from(2 * EACH));
    let [http, udp] = loads.map(Load::finish);
    http.assert_http_whole(EACH);
    udp.assert_udp_whole(EACH);
    assert_eq!(Counters::read(&lab, 1).get(Counter::EventsDeferred), 0, "the ring was large enough");
}

/// How many free packet buffers each of node 1's secondaries found in its pool.
fn free_buffers(lab: &Lab) -> Vec<u32> {
    let log = lab.log(1, "sync");
    let lines = log.lines().filter(|line| line.contains("took the packet buffers over"));
    let count = |line: &str| line.split_once(" count=")?.1.split(' ').next()?.parse().ok();
    lines.map(|line| count(line).unwrap_or_else(|| panic!("no count in {line}"))).collect()
}

/// Opens more sessions and checks that node 1 comes to know of each that is node 2's.
fn hears_of_new_sessions(lab: &Lab) {
    let before = sessions::clients(lab, 2, "local");
    let mut load = Load::udp(lab, ECHO4, MORE, 500);
    load.wait_ready();
    let new: Vec<String> = sessions::clients(lab, 2, "local").difference(&before).cloned().collect();
    assert!(!new.is_empty(), "none of {MORE} flows went through node 2");
    wait_for(10, "node 1 to know of all sessions that node 2 made last", || {
        let known = sessions::clients(lab, 1, "remote");
        equal(new.iter().filter(|client| !known.contains(*client)).collect(), Vec::new())
    });
    load.finish().assert_udp_whole(MORE);
}

/// Kills node 1's secondary at random moments, and starts it again each time; it must become ready.
fn kill_again_and_again(lab: &Lab) {
    let mut random = Random::seeded();
    let primary = lab.pid("n1", "primary");
    assert!(primary.is_some());
    let mut kills = 0;
    while kills < KILLS {
        std::thread::sleep(Duration::from_millis(random.below(400)));
        lab.kill("n1", &["sync"]);
        kills += 1;
        // Every other successor is hit while it starts.
        if random.below(2) == 0 {
            kill_while_it_starts(lab, random.below(60));
            kills += 1;
        }
        lab.start("n1", &["sync"]);
    }
    assert_eq!(lab.pid("n1", "primary"), primary, "the primary is the same all along");
}

/// Starts the secondary and kills it so many milliseconds later, ready or not.
fn kill_while_it_starts(lab: &Lab, after_ms: u64) {
    let mut command = lab.command(&["start", "n1", "sync"]);
    let starting = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut starting = starting.expect("baton-lab starts");
    std::thread::sleep(Duration::from_millis(after_ms));
    lab.kill("n1", &["sync"]);
    starting.wait().expect("the end of the start");
    // It may not have been there yet when it was to be killed.
    lab.kill("n1", &["sync"]);
}

/// Runs `work`, and all the while opens new UDP sessions; returns what became of these.
fn with_new_sessions(lab: &Lab, work: impl FnOnce()) -> Vec<Report> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            let mut reports = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let target = if reports.len() % 2 == 0 { ECHO4 } else { ECHO6 };
                let mut load = Load::udp(lab, target, NEW, 200);
                load.wait_ready();
                std::thread::sleep(Duration::from_millis(300));
                reports.push(load.finish());
            }
            reports
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        over.store(true, Ordering::Relaxed);
        let reports = opening.join().expect("the thread that opens sessions");
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        reports
    })
}
