//! A node's life under systemd, from boot to stop, in one container.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::container::{Container, last_cpu};
use crate::node::{HOOK_FILE, MEMORY_MIB};
use crate::wait::{equal, wait_for};
use crate::world::World;

const HUGEPAGES: &str = "baton-hugepages.service";
const PRIMARY: &str = "baton-primary.service";
const SYNC: &str = "baton-sync@0.service";

/// Datagrams sent to see that a node forwards.
const DATAGRAMS: u32 = 50;

#[test]
fn root_systemd_starts_watches_reloads_upgrades_and_stops_a_node() {
    let container = Container::boot(MEMORY_MIB);
    container.wait_active(SYNC);
    starts_in_order(&container);
    threads_run_on_their_cpus(&container);
    let mut world = World::connect(&container);
    world.exchange_all(DATAGRAMS);
    a_restart_of_the_secondary_leaves_the_primary_alone(&container, &mut world);
    a_reload_hands_over(&container, &mut world);
    a_killed_successor_comes_back(&container, &mut world);
    a_hung_secondary_is_restarted(&container, &mut world);
    an_upgrade_of_the_secondary_runs_the_new_program(&container, &mut world);
    assert_eq!(world.sessions().len(), 1, "one client, one session all the time: {:?}", world.sessions());
    let session = world.sessions().clone();
    drop(world);

    a_hung_primary_is_restarted(&container);
    let mut world = World::connect(&container);
    world.exchange_all(DATAGRAMS);
    drop(world);

    an_upgrade_of_the_primary_runs_the_new_program(&container);
    let mut world = World::connect(&container);
    world.exchange_all(DATAGRAMS);
    assert_eq!(world.sessions(), &session, "the session outlived two primaries");

    hooks_work_in_their_confinement(&container);
    stops_in_order(&container);
}

fn pid(container: &Container, unit: &str) -> u64 {
    container.number(unit, "MainPID")
}

fn counter(container: &Container, name: &str) -> u64 {
    let report: serde_json::Value =
        serde_json::from_str(&container.run(&["batonctl", "--json", "counters", "--all"])).expect("JSON");
    let counters = report["counters"].as_array().expect("counters");
    let found = counters.iter().find(|counter| counter["name"] == name).expect("the counter");
    found["total"].as_u64().expect("a total")
}

/// Waits until a unit's main process is another than `old` and the unit is active again.
fn wait_replaced(container: &Container, unit: &str, old: u64) {
    wait_for(30, &format!("a successor of {unit}'s process {old}"), || {
        let (now, state) = (pid(container, unit), container.property(unit, "ActiveState"));
        if now != old && now != 0 && state == "active" {
            Ok(())
        } else {
            Err(format!("process {now}, {state}"))
        }
    });
}

fn starts_in_order(container: &Container) {
    let at = |unit, moment: &str| container.number(unit, &format!("{moment}TimestampMonotonic"));
    let reserved = at(HUGEPAGES, "ActiveEnter");
    let (primary_started, primary_ready) = (at(PRIMARY, "ExecMainStart"), at(PRIMARY, "ActiveEnter"));
    let (sync_started, sync_ready) = (at(SYNC, "ExecMainStart"), at(SYNC, "ActiveEnter"));
    let order = [reserved, primary_started, primary_ready, sync_started, sync_ready];
    assert!(order.is_sorted() && reserved > 0, "{order:?}");
    // Started is not ready: systemd waited for the word of each, which comes after the work.
    let journal = container.journal();
    for (unit, work) in [(PRIMARY, "punt interface appeared"), (SYNC, "attached to DPDK")] {
        let line =
            journal.lines().find(|line| line.contains(work)).unwrap_or_else(|| panic!("{work}: {journal}"));
        // When the process sent the line, not when the journal came to it.
        let sent =
            line.split(' ').next().and_then(|time| time.strip_suffix("+0000")).expect("the line's time");
        let ready = ready_at(container, unit);
        assert!(*sent < *ready, "{unit} was ready at {ready}, before this:\n{line}");
        assert_eq!(container.number(unit, "NRestarts"), 0);
    }
    for unit in [PRIMARY, SYNC] {
        assert_eq!(container.property(unit, "Type"), "notify");
    }
}

/// Workers, main threads and what serves the primary's are pinned by the configuration, here to CPU 0; the rest stays where the
/// unit's `CPUAffinity=` puts it.
fn threads_run_on_their_cpus(container: &Container) {
    let cpus = |unit, thread: &str| {
        let script = format!(
            "for task in /proc/{}/task/*; do grep -qx {thread} $task/comm && sed -n 's/^Cpus_allowed_list:\\t//p' $task/status; done; true",
            pid(container, unit)
        );
        container.run(&["sh", "-ec", &script]).trim().to_owned()
    };
    for thread in ["baton-primary", "rte-worker-1", "punt", "netlink", "control"] {
        assert_eq!(cpus(PRIMARY, thread), "0", "{thread}");
    }
    assert_eq!(cpus(SYNC, "baton-sync"), "0");
    for thread in ["control", "netlink", "announcer", "eal-intr-thread"] {
        assert_eq!(cpus(SYNC, thread), last_cpu().to_string(), "{thread}");
    }
}

/// When a unit became active, as Baton's log writes times.
fn ready_at(container: &Container, unit: &str) -> String {
    let words =
        ["systemctl", "show", "--timestamp=us+utc", "--value", "--property=ActiveEnterTimestamp", unit];
    let shown = container.run(&words);
    let mut parts = shown.split_whitespace().skip(1);
    let (date, time) = (parts.next().expect("a date"), parts.next().expect("a time"));
    format!("{date}T{time}")
}

fn a_restart_of_the_secondary_leaves_the_primary_alone(container: &Container, world: &mut World) {
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    let forwarded = counter(container, "local_hits");
    container.run(&["systemctl", "restart", "--no-block", SYNC]);
    world.exchange_all(DATAGRAMS);
    wait_replaced(container, SYNC, secondary);
    world.exchange_all(DATAGRAMS);
    assert_eq!(pid(container, PRIMARY), primary);
    let forwarded = counter(container, "local_hits") - forwarded;
    // Each datagram passes twice.
    assert!(forwarded >= 4 * u64::from(DATAGRAMS), "{forwarded} packets were counted");
}

fn a_reload_hands_over(container: &Container, world: &mut World) {
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    let active_since = container.number(SYNC, "ActiveEnterTimestampMonotonic");
    let restarts = container.number(SYNC, "NRestarts");
    container.run(&["systemctl", "reload", SYNC]);
    wait_replaced(container, SYNC, secondary);
    world.exchange_all(DATAGRAMS);
    assert_eq!(
        container.number(SYNC, "ActiveEnterTimestampMonotonic"),
        active_since,
        "it was never inactive"
    );
    assert_eq!(container.number(SYNC, "NRestarts"), restarts);
    assert_eq!(pid(container, PRIMARY), primary);
    let shown = container.run(&["batonctl", "sync", "show"]);
    assert!(shown.contains("handed over after"), "{shown}");
}

/// It is not systemd that started it, but systemd watches it all the same.
fn a_killed_successor_comes_back(container: &Container, world: &mut World) {
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    container.run(&["kill", "-KILL", &secondary.to_string()]);
    world.exchange_all(DATAGRAMS);
    wait_replaced(container, SYNC, secondary);
    assert_eq!(pid(container, PRIMARY), primary);
}

fn a_hung_secondary_is_restarted(container: &Container, world: &mut World) {
    // The watchdog goes over to a successor as well.
    let before = pid(container, SYNC);
    container.run(&["systemctl", "reload", SYNC]);
    wait_replaced(container, SYNC, before);
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    container.run(&["kill", "-STOP", &secondary.to_string()]);
    world.exchange_all(DATAGRAMS);
    wait_replaced(container, SYNC, secondary);
    world.exchange_all(DATAGRAMS);
    assert_eq!(pid(container, PRIMARY), primary);
    assert_watchdog(container, SYNC);
}

fn a_hung_primary_is_restarted(container: &Container) {
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    container.run(&["kill", "-STOP", &primary.to_string()]);
    wait_replaced(container, PRIMARY, primary);
    // The secondary went with its primary, and comes back with it.
    wait_replaced(container, SYNC, secondary);
    assert_watchdog(container, PRIMARY);
}

fn assert_watchdog(container: &Container, unit: &str) {
    let journal = container.journal();
    assert!(journal.contains(&format!("{unit}: Watchdog timeout")), "{journal}");
}

/// Puts another file with the same program in the place of a running one, as `make install` does. Returns its inode.
fn install_over(container: &Container, binary: &str) -> u64 {
    let script = format!(
        "cp /usr/local/bin/{binary} /tmp/new && echo upgraded >>/tmp/new && install -m 755 /tmp/new /usr/local/bin/{binary}"
    );
    container.run(&["sh", "-ec", &script]);
    fs::metadata(container.path(&format!("/usr/local/bin/{binary}"))).expect("the binary").ino()
}

/// The inode of the program that a unit's main process runs.
fn program(container: &Container, unit: &str) -> u64 {
    let exe = format!("/proc/{}/exe", pid(container, unit));
    container.run(&["stat", "--dereference", "--format=%i", &exe]).trim().parse().expect("a number")
}

fn an_upgrade_of_the_secondary_runs_the_new_program(container: &Container, world: &mut World) {
    let (primary, secondary) = (pid(container, PRIMARY), pid(container, SYNC));
    let installed = install_over(container, "baton-sync");
    assert_ne!(program(container, SYNC), installed);
    container.run(&["systemctl", "reload", SYNC]);
    wait_replaced(container, SYNC, secondary);
    world.exchange_all(DATAGRAMS);
    assert_eq!(program(container, SYNC), installed);
    assert_eq!(pid(container, PRIMARY), primary);
}

fn an_upgrade_of_the_primary_runs_the_new_program(container: &Container) {
    let installed = install_over(container, "baton-primary");
    assert_ne!(program(container, PRIMARY), installed);
    container.run(&["systemctl", "restart", PRIMARY]);
    assert_eq!(program(container, PRIMARY), installed);
    container.wait_active(SYNC);
}

/// A hook runs in the secondary's confinement, and can do what hooks are for: change routes.
fn hooks_work_in_their_confinement(container: &Container) {
    let states = fs::read_to_string(container.path(HOOK_FILE)).expect("the hook has run");
    assert!(states.contains("joining"), "{states}");
    wait_for(5, "the hook's route", || {
        let routes = container.run(&["ip", "route", "show", "type", "blackhole"]);
        equal(routes.trim(), "blackhole 203.0.113.99")
    });
}

fn stops_in_order(container: &Container) {
    container.run(&["systemctl", "stop", "baton.target"]);
    // The target is stopped first, and nobody waits for what it stops in turn.
    wait_for(20, "the primary to stop", || {
        equal(container.property(PRIMARY, "ActiveState").as_str(), "inactive")
    });
    let at = |unit, moment: &str| container.number(unit, &format!("{moment}TimestampMonotonic"));
    let order = [
        at(SYNC, "ActiveExit"),
        at(SYNC, "InactiveEnter"),
        at(PRIMARY, "ActiveExit"),
        at(PRIMARY, "InactiveEnter"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    for unit in [SYNC, PRIMARY] {
        assert_eq!(container.property(unit, "ActiveState"), "inactive");
        assert_eq!(container.property(unit, "Result"), "success");
    }
    // The tables stay: they are there to outlive the services.
    assert_eq!(container.property(HUGEPAGES, "ActiveState"), "active");
    assert!(container.directory().join("run/hugepages.json").exists());
}
