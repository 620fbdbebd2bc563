//! The commands on the real kernel. They reserve some hundred pages for a moment, and give all of them back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tempfile::TempDir;

/// Pages that the small configuration needs: 32 MiB for DPDK, and one page for each of ten files.
const PAGES: u64 = 16 + 10;

/// A node with directories of its own. Whatever a test did is taken back at its end.
struct Node {
    directory: TempDir,
}

struct Output {
    good: bool,
    stdout: String,
    stderr: String,
}

impl Output {
    fn json(&self) -> Value {
        assert!(self.good, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl Node {
    fn new() -> Node {
        let node = Node { directory: tempfile::tempdir().unwrap() };
        node.configure(&[]);
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn hugepages(&self) -> PathBuf {
        self.path("hugepages")
    }

    /// Writes a small configuration, with these replacements.
    fn configure(&self, changes: &[(&str, &str)]) {
        let directory = self.directory.path().display();
        let mut text = format!(
            r#"(
    node: (id: 1),
    paths: (runtime: "{directory}/run", hugepages: "{directory}/hugepages"),
    eal: (file_prefix: "roottest", memory_mib: 32, vdevs: ["net_tap0,iface=lb0"]),
    port: (device: "net_tap0", rx_descriptors: 512, tx_descriptors: 512, mbufs: 4096),
    workers: [
        (lcore: 1, cpu: 0, local_addresses: ["10.4.1.1"]),
        (lcore: 2, cpu: 0, local_addresses: ["10.4.1.2"]),
    ],
    tables: (local_sessions: 1000, remote_sessions: 2000, event_ring_slots: 64, datagram_ring_slots: 16),
    sync: (enabled: true, domains: [(lcore: 32, cpu: 0, address: "10.2.0.101")]),
)"#
        );
        for (from, to) in changes {
            assert!(text.contains(from));
            text = text.replace(from, to);
        }
        fs::write(self.path("node.ron"), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let output = Command::new(env!("CARGO_BIN_EXE_baton-hugepages"))
            .arg("--config")
            .arg(self.path("node.ron"))
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output { good: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn json(&self, command: &str) -> Value {
        self.run(&["--json", command]).json()
    }

    /// Runs a command that must fail, and returns what it says.
    fn fails(&self, command: &str) -> String {
        let output = self.run(&[command]);
        assert!(!output.good, "{}", output.stdout);
        output.stderr
    }

    fn record(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.path("run/hugepages.json")).unwrap()).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.hugepages()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let foreign = ["mine", "local-9", "othermap_0", "subdirectory/file"];
        for name in foreign {
            let _ = fs::remove_file(self.hugepages().join(name));
        }
        let _ = fs::remove_dir(self.hugepages().join("subdirectory"));
        let _ = self.run(&["remove"]);
    }
}

fn pages_added(record: &Value) -> u64 {
    record["added"].as_object().unwrap().values().map(|pages| pages.as_u64().unwrap()).sum()
}

fn pages_given_back(removed: &Value) -> u64 {
    removed["given_back"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum()
}

fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

#[test]
fn root_apply_twice_status_and_remove_leave_the_machine_as_it_was() {
    let node = Node::new();
    let plan = node.json("plan");
    assert_eq!((plan["pages"].as_u64(), plan["mount"].as_bool()), (Some(PAGES), Some(true)));
    assert!(!node.path("run").exists() && !node.hugepages().exists(), "plan changed something");

    node.json("apply");
    assert!(is_mounted(&node.hugepages()));
    let added = pages_added(&node.record());
    assert!(added <= PAGES);
    assert_eq!(
        node.names(),
        [
            "counters",
            "events-0",
            "events-1",
            "local-0",
            "local-1",
            "remote-0",
            "sync-rx-0",
            "sync-rx-1",
            "sync-state-0",
            "sync-tx-0"
        ]
    );

    let before = fs::read(node.hugepages().join("local-0")).unwrap();
    let again = node.run(&["apply"]);
    assert!(again.stdout.contains("nothing was changed"), "{}{}", again.stdout, again.stderr);
    assert!(fs::read(node.hugepages().join("local-0")).unwrap() == before, "the second apply touched a file");
    assert_eq!(pages_added(&node.record()), added);

    let status = node.json("status");
    assert_eq!(status["mount"]["promised_pages"].as_u64(), Some(PAGES));
    let files = status["files"].as_array().unwrap();
    assert_eq!(files.len(), 10);
    for file in files {
        assert_eq!(file["header"]["state"], "ready", "{file}");
        assert_eq!(file["bytes"].as_u64().unwrap() % (2 << 20), 0);
    }

    let removed = node.json("remove");
    assert_eq!((removed["files"].as_array().unwrap().len(), pages_given_back(&removed)), (10, added));
    assert!(!is_mounted(&node.hugepages()) && !node.hugepages().exists());
    assert!(!node.path("run/hugepages.json").exists());
    assert_eq!(pages_given_back(&node.json("remove")), 0, "a second remove took pages");
}

#[test]
fn root_two_nodes_do_not_take_each_others_pages() {
    let (first, second) = (Node::new(), Node::new());
    first.json("apply");
    second.json("apply");
    for node in [&first, &second] {
        assert_eq!(node.json("status")["mount"]["promised_pages"].as_u64(), Some(PAGES));
        // All of it can really be had: what DPDK would take, as well.
        let rest = File::create(node.hugepages().join("roottestmap_0")).unwrap();
        rustix::fs::fallocate(&rest, rustix::fs::FallocateFlags::empty(), 0, 16 * (2 << 20)).unwrap();
    }
    let removed = first.json("remove");
    assert_eq!(removed["dpdk_pages"], 1);
    assert_eq!(second.names().len(), 11);
}

#[test]
fn root_remove_refuses_while_a_process_lives() {
    let node = Node::new();
    node.json("apply");
    for name in ["run/primary.lock", "run/sync-0.lock", "hugepages/remote-0"] {
        let path = node.path(name);
        let held = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let error = node.fails("remove");
        assert!(error.contains(&format!("{name} is held by process {}", std::process::id())), "{error}");
        assert_eq!(node.names().len(), 10);
    }
    assert!(node.run(&["remove"]).good);
}

#[test]
fn root_remove_keeps_what_is_not_batons() {
    let node = Node::new();
    node.json("apply");
    let hugepages = node.hugepages();
    File::create(hugepages.join("othermap_0")).unwrap();
    // A table's name without its magic number; hugetlbfs takes no write(2), so it is all zeros.
    File::create(hugepages.join("local-9")).unwrap().set_len(2 << 20).unwrap();
    fs::create_dir(hugepages.join("subdirectory")).unwrap();
    File::create(hugepages.join("subdirectory/file")).unwrap();
    let error = node.fails("remove");
    assert!(error.contains("is not Baton's: mount and pages are kept"), "{error}");
    assert_eq!(node.names(), ["local-9", "othermap_0", "subdirectory"]);
    assert!(hugepages.join("subdirectory/file").exists());

    for name in ["othermap_0", "local-9", "subdirectory/file"] {
        fs::remove_file(hugepages.join(name)).unwrap();
    }
    fs::remove_dir(hugepages.join("subdirectory")).unwrap();
    assert!(node.run(&["remove"]).good);
    assert!(!is_mounted(&hugepages));
}

#[test]
fn root_another_geometry_is_an_error_and_changes_nothing() {
    let node = Node::new();
    node.json("apply");
    node.configure(&[("local_sessions: 1000", "local_sessions: 1500")]);
    let error = node.fails("apply");
    assert!(error.contains("local-0 was made for 1000 sessions, the configuration says 1500"), "{error}");
    node.configure(&[("memory_mib: 32", "memory_mib: 64")]);
    let error = node.fails("apply");
    assert!(error.contains("the configuration needs"), "{error}");
    node.configure(&[]);
    assert!(node.run(&["apply"]).stdout.contains("nothing was changed"));
}

#[test]
fn root_too_much_is_refused_before_anything_is_done() {
    let node = Node::new();
    node.configure(&[("memory_mib: 32", "memory_mib: 1048576")]);
    let error = node.fails("apply");
    assert!(error.contains("are available: free memory, or lower"), "{error}");
    assert!(!node.hugepages().exists());
    assert!(!node.path("run/hugepages.json").exists());
}

#[test]
fn root_a_directory_in_use_is_refused() {
    let node = Node::new();
    fs::create_dir(node.hugepages()).unwrap();
    fs::write(node.hugepages().join("mine"), "precious").unwrap();
    let error = node.fails("apply");
    assert!(error.contains("is a directory that is not empty (it holds \"mine\")"), "{error}");
    assert!(node.run(&["remove"]).good);
    assert_eq!(fs::read_to_string(node.hugepages().join("mine")).unwrap(), "precious");
}

#[test]
fn root_a_killed_apply_is_finished_by_the_next() {
    let node = Node::new();
    for delay_us in [500, 2_000, 5_000, 10_000, 20_000, 40_000] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_baton-hugepages"))
            .args(["--config", node.path("node.ron").to_str().unwrap(), "apply"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        node.json("apply");
        assert_eq!(node.json("status")["mount"]["promised_pages"].as_u64(), Some(PAGES));
        let added = pages_added(&node.record());
        assert!(added <= PAGES, "{added} pages added for {PAGES}");
        assert_eq!(pages_given_back(&node.json("remove")), added);
    }
}
