//! Boots that cannot succeed, and what becomes of containers whose owner is killed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::container::Container;
use crate::install::text;
use crate::node::{self, MEMORY_MIB};
use crate::wait::wait_for;

/// More memory than any machine has that runs this test.
const TOO_MUCH_MIB: u32 = 1_048_576;

/// All persistent hugepages of this machine.
fn hugepages() -> String {
    fs::read_to_string("/proc/sys/vm/nr_hugepages").expect("the pool's size")
}

#[test]
fn root_a_boot_with_too_few_hugepages_says_so_and_starts_nothing() {
    let before = hugepages();
    let container = Container::boot(TOO_MUCH_MIB);
    wait_for(20, "the hugepages to be refused", || {
        match container.property("baton-hugepages.service", "ActiveState").as_str() {
            "failed" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    let status = text(
        &container
            .command(&["systemctl", "status", "--full", "baton-hugepages"])
            .output()
            .expect("it starts"),
    );
    for part in ["needs ", " pages of 2 MiB", "lower `tables` or eal.memory_mib"] {
        assert!(status.contains(part), "{part:?} is not in\n{status}");
    }
    assert_eq!(container.property("baton-primary.service", "ActiveState"), "inactive");
    assert_eq!(container.property("baton-sync@0.service", "ActiveState"), "inactive");
    let journal = container.journal();
    assert!(journal.contains("Dependency failed for baton-primary.service"), "{journal}");
    assert_eq!(hugepages(), before);

    // With a configuration that fits, the same machine starts it.
    let good = node::config(Path::new("/run/baton"), &container.directory().join("hugepages"), MEMORY_MIB);
    fs::write(container.path("/etc/baton/baton.ron"), good).expect("the config is writable");
    container.run(&["systemctl", "start", "baton-primary"]);
    container.wait_active("baton-sync@0.service");
    assert_ne!(hugepages(), before);
    drop(container);
    assert_eq!(hugepages(), before);
}

#[test]
fn root_a_container_goes_with_its_owner() {
    let before = hugepages();
    let mut owner = Command::new("sleep").arg("120").spawn().expect("sleep starts");
    let container = Container::owned_by(owner.id(), MEMORY_MIB);
    container.wait_active("baton-sync@0.service");
    let init = container.path("");
    assert_ne!(hugepages(), before);
    owner.kill().expect("the process is our child");
    owner.wait().expect("the process is our child");
    wait_for(20, "the container to go", || {
        match (init.exists(), container.directory().exists(), hugepages() == before) {
            (false, false, true) => Ok(()),
            left => Err(format!("processes, directory, pages given back: {left:?}")),
        }
    });
}
