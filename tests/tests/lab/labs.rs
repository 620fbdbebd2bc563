//! Labs side by side, and what is left of one that is gone: nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::wait::{equal, wait_for};

#[test]
fn root_two_labs_run_side_by_side() {
    let options = ["--nodes", "1", "--servers", "1"];
    let labs = [Lab::up(&options), Lab::up(&options)];
    let mut loads = labs.each_ref().map(|lab| Load::http(lab, HTTP4, 20, &[]));
    loads.iter_mut().for_each(Load::wait_ready);
    let [first, mut second] = loads;

    // What happens to one is nothing to the other.
    first.finish().assert_http_whole(20);
    labs[0].kill("n1", &[]);
    labs[0].down();

    let mut more = Load::http(&labs[1], HTTP6, 20, &[]);
    more.wait_ready();
    second.wait_ready();
    std::thread::sleep(std::time::Duration::from_millis(500));
    more.finish().assert_http_whole(20);
    second.finish().assert_http_whole(20);
    assert_eq!(left_of(&labs[0]), Left::default());
    assert_ne!(left_of(&labs[1]), Left::default());
}

#[test]
fn root_down_leaves_nothing() {
    let lab = Lab::up(&["--nodes", "2", "--servers", "1"]);
    let mut load = Load::http(&lab, HTTP4, 20, &[]);
    load.wait_ready();
    lab.run(&["impair", "n1", "--loss", "1"]);
    let there = left_of(&lab);
    assert_eq!((there.namespaces, there.mounts), (5, 2), "{there:?}");
    assert!(there.processes >= 8, "{there:?}");

    lab.down();

    assert_eq!(left_of(&lab), Left::default());
    drop(load);
}

#[test]
fn root_down_gives_every_hugepage_back() {
    // Somebody else may change the machine's pool at the same moment: what is kept is kept every time.
    let kept = || {
        let lab = Lab::up(&["--nodes", "1", "--servers", "1"]);
        let reserved = pages_reserved(&lab, 1);
        let before = pool_pages();
        lab.down();
        let after = pool_pages();
        if before == after + reserved { Ok(()) } else { Err((before, after, reserved)) }
    };
    let attempts = [kept(), kept(), kept()];
    assert!(attempts.contains(&Ok(())), "pages before, after, and of the lab's: {attempts:?}");
}

#[test]
fn root_a_lab_without_baton_gets_it_later() {
    let lab = Lab::up(&["--nodes", "1", "--servers", "1", "--no-baton"]);
    assert_eq!(lab.pid("n1", "primary"), None);

    lab.start("n1", &[]);

    let mut load = Load::http(&lab, HTTP4, 10, &[]);
    load.wait_ready();
    load.finish().assert_http_whole(10);
}

#[test]
fn root_a_lab_goes_with_its_owner() {
    let mut owner = Command::new("sleep").arg("120").spawn().expect("sleep starts");
    let lab = Lab::owned_by(owner.id(), &["--nodes", "1", "--servers", "1"]);
    assert_ne!(left_of(&lab), Left::default());

    owner.kill().expect("the owner dies");
    owner.wait().expect("the owner's end");

    wait_for(10, "the lab to go by itself", || equal(left_of(&lab), Left::default()));
}

/// What there is of a lab.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    namespaces: usize,
    mounts: usize,
    processes: usize,
    directory: bool,
    entry: bool,
}

fn left_of(lab: &Lab) -> Left {
    let directory = lab.directory();
    let text = directory.display().to_string();
    let names = fs::read_dir("/run/netns").map_or(0, |entries| {
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&lab.netns(""))).count()
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    Left {
        namespaces: names,
        mounts: mounts.lines().filter(|line| line.contains(&text)).count(),
        processes: processes_of(lab.name(), &text),
        directory: directory.exists(),
        entry: Path::new("/run/baton-lab").join(lab.name()).is_symlink(),
    }
}

/// How many processes have the lab's name or directory on their command line.
fn processes_of(name: &str, directory: &str) -> usize {
    let entries = fs::read_dir("/proc").expect("the processes");
    let lines = entries.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            let mut words = line.split(|&byte| byte == 0).map(String::from_utf8_lossy);
            words.any(|word| word == name || word.contains(directory))
        })
        .count()
}

/// Pages that were added to the kernel's pool for a node.
fn pages_reserved(lab: &Lab, number: u16) -> u64 {
    let path = lab.node_directory(number).join("run/hugepages.json");
    let record: Value = serde_json::from_slice(&fs::read(path).expect("the record")).expect("a record");
    record["added"].as_object().expect("pages").values().filter_map(Value::as_u64).sum()
}

/// Pages in the kernel's pool of 2 MiB pages.
fn pool_pages() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages").expect("a pool");
    text.trim().parse().expect("a number of pages")
}
