//! Secondaries are killed at random instants of attaching, running and handing over, again and again: nothing that they leave
//! behind adds up. `BATON_KILLS=n` kills n instead of 500; `make kills KILLS=10000`.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_common::control::{Callee, Client, SuccessionStatus, sync_socket_path};
use baton_common::id::NumaId;
use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{ECHO4, HTTP6, Lab, binary};
use crate::load::Load;
use crate::random::Random;
use crate::wait::wait_for;

/// Kills if nothing else is asked for.
const KILLS: u32 = 500;
/// Kills under one load; then everything is read and compared.
const ROUND: u32 = 250;
/// Connections, or flows, of each load.
const EACH: u32 = 20;
/// What the resident memory of the primary may differ by, KiB: what its threads' stacks and its allocator keep.
const RSS_SLACK_KIB: u64 = 2048;

/// What the primary and its node use while no secondary runs.
#[derive(Clone, Debug, PartialEq)]
struct Use {
    heap_bytes: u64,
    heap_elements: u64,
    buffers_free: u64,
    hugepage_bytes: u64,
    descriptors: usize,
    threads: u64,
    /// Files in DPDK's runtime directory.
    files: usize,
}

/// Where in its life a process was hit.
#[derive(Default, Debug)]
struct Hits {
    attaching: u32,
    running: u32,
    handing_over: u32,
}

/// Node 1's secondaries, started and killed beside those that the lab knows of.
struct Range<'l> {
    lab: &'l Lab,
    random: Random,
    hits: Hits,
    log: PathBuf,
    silences_ms: Vec<f64>,
}

#[test]
fn root_kills_of_secondaries_leave_nothing_behind() {
    let kills = std::env::var("BATON_KILLS").map_or(KILLS, |text| text.parse().expect("a number of kills"));
    let lab = Lab::up(&["--nodes", "2", "--workers", "2", "--steering", "TapBpf"]);
    // Successors of killed ones are orphans: they are waited for here.
    set_child_subreaper(true).expect("to be who orphans go to");
    lab.kill("n1", &["sync"]);
    let primary = lab.pid("n1", "primary").expect("the primary lives");
    let log = lab.scratch().join("kills.log");
    let mut range =
        Range { lab: &lab, random: Random::seeded(), hits: Hits::default(), log, silences_ms: Vec::new() };
    let began = Instant::now();
    // Some at first, so that everything that is made once is there.
    range.kill_under_load(ROUND.min(kills) / 5);
    let (first, first_rss) = (range.settled_use(None), rss_kib(primary));
    println!("at first {first:?}, {first_rss} KiB");
    let mut killed = 0;
    while killed < kills {
        let round = ROUND.min(kills - killed);
        range.kill_under_load(round);
        killed += round;
        let now = range.settled_use(Some(&first));
        let rss = rss_kib(primary);
        assert_eq!(now, first, "after {killed} kills");
        assert!(rss <= first_rss + RSS_SLACK_KIB, "{rss} KiB after {killed} kills, {first_rss} at first");
        assert_eq!(lab.pid("n1", "primary"), Some(primary));
        println!("{killed} kills, {} s: {now:?}, {rss} KiB", began.elapsed().as_secs());
    }
    let hits = &range.hits;
    println!("hit {hits:?}");
    assert!(
        [hits.attaching, hits.running, hits.handing_over].iter().all(|hit| *hit > kills / 20),
        "{hits:?}"
    );
    range.silences_ms.sort_by(f64::total_cmp);
    let silences = &range.silences_ms;
    println!(
        "from a kill to the successor's first look: median {:.0} ms, max {:.0} ms, {} times",
        silences[silences.len() / 2],
        silences[silences.len() - 1],
        silences.len()
    );
    lab.start("n1", &["sync"]);
    lab.wait_no_difference(1, 2);
}

impl Range<'_> {
    /// Kills so many while connections and flows go on, which lose nothing by it.
    fn kill_under_load(&mut self, kills: u32) {
        let mut http = Load::http(self.lab, HTTP6, EACH, &[]);
        let mut udp = Load::udp(self.lab, ECHO4, EACH, 200);
        http.wait_ready();
        udp.wait_ready();
        let mut killed = 0;
        while killed < kills {
            killed += match self.random.below(10) {
                0..6 => self.kill_after(1, 60),
                6..8 => self.kill_after(60, 160),
                _ => self.kill_while_handing_over(),
            };
        }
        http.finish().assert_http_whole(EACH);
        udp.finish().assert_udp_whole(EACH);
    }

    /// Starts a secondary and kills it a random time later. Microseconds make the instant random.
    fn kill_after(&mut self, from_ms: u64, to_ms: u64) -> u32 {
        let mut child = self.start();
        std::thread::sleep(Duration::from_micros(
            from_ms * 1000 + self.random.below((to_ms - from_ms) * 1000),
        ));
        self.hit(child.id());
        end(&mut child);
        1
    }

    /// Starts a secondary, has it hand over, and kills the old one, the new one or both a random time later.
    fn kill_while_handing_over(&mut self) -> u32 {
        let mut child = self.start();
        let socket = sync_socket_path(&self.runtime(), NumaId(0));
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut asking = loop {
            if self.is_in_charge(child.id())
                && let Ok(mut stream) = UnixStream::connect(&socket)
                && stream.write_all(b"{\"request\":\"sync_hand_over\"}\n").is_ok()
            {
                break stream;
            }
            assert!(Instant::now() < deadline, "the secondary does not come up");
            std::thread::sleep(Duration::from_millis(2));
        };
        std::thread::sleep(Duration::from_micros(self.random.below(90_000)));
        self.hits.handing_over += 1;
        let which = self.random.below(3);
        let others = self.secondaries(child.id());
        if which != 1 {
            signal(child.id(), Signal::SIGKILL);
        }
        if which != 0 {
            others.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
        }
        // Whoever is left has a moment to go on, and is killed then.
        std::thread::sleep(Duration::from_micros(self.random.below(30_000)));
        let _ = asking.flush();
        signal(child.id(), Signal::SIGKILL);
        let left = self.secondaries(child.id());
        left.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
        child.wait().expect("the end of the secondary");
        let known = others.iter().chain(&left).copied().collect::<std::collections::BTreeSet<u32>>();
        for &pid in &known {
            reap(pid);
        }
        1 + known.len() as u32
    }

    /// Starts a secondary as the lab does. `exec` becomes the program, so the process is the child itself.
    fn start(&self) -> Child {
        let log = fs::File::options().create(true).append(true).open(&self.log).expect("the log");
        let mut command: Command = self.lab.command(&["exec", "n1", "env"]);
        command
            .arg(format!("RUNTIME_DIRECTORY={}", self.runtime().display()))
            .arg(binary("baton-sync"))
            .arg("--config")
            .arg(self.lab.config(1))
            .args(["--numa", "0"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log);
        command.spawn().expect("the secondary starts")
    }

    /// Counts where in its life the process is.
    fn hit(&mut self, pid: u32) {
        match self.is_in_charge(pid) {
            true => self.hits.running += 1,
            false => self.hits.attaching += 1,
        }
    }

    /// How the process came to its part, if it has it.
    fn succession(&self, pid: u32) -> Option<SuccessionStatus> {
        let callee = Callee::Secondary(NumaId(0));
        let mut client = Client::connect(&self.runtime(), callee, Duration::from_secs(5)).ok()?;
        client.sync_status().ok().filter(|status| status.pid == pid).map(|status| status.succession)
    }

    fn is_in_charge(&self, pid: u32) -> bool {
        self.succession(pid).is_some()
    }

    /// The node's secondaries beside `known`: its configuration stands in their command line.
    fn secondaries(&self, known: u32) -> Vec<u32> {
        let config = self.lab.config(1).display().to_string();
        let is_one = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|program| program.ends_with(b"baton-sync"))
                && words.contains(&config.as_bytes())
        };
        let processes = fs::read_dir("/proc").expect("the processes").filter_map(Result::ok);
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers.filter(|pid| *pid != known).filter(is_one).collect()
    }

    /// Starts a secondary, lets it come to its part, ends it in order, and reads what is in use then. Waits for `expected`: threads of
    /// clients that are gone take a moment to end.
    fn settled_use(&mut self, expected: Option<&Use>) -> Use {
        let mut child = self.start();
        let silence = wait_for(20, "the secondary to take its part", || {
            let ended = child.try_wait().expect("the secondary's state");
            assert!(ended.is_none(), "it ended: {}", self.log_end());
            let silence_us = self.succession(child.id()).and_then(|succession| succession.silence_us);
            silence_us.ok_or_else(|| "it is not in charge".to_owned())
        });
        self.silences_ms.push(silence as f64 / 1000.0);
        signal(child.id(), Signal::SIGTERM);
        assert!(child.wait().expect("the end of the secondary").success(), "{}", self.log_end());
        let mut found = self.read_use();
        let deadline = Instant::now() + Duration::from_secs(15);
        while expected.is_some_and(|expected| *expected != found) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            found = self.read_use();
        }
        found
    }

    fn read_use(&self) -> Use {
        let status = self.lab.batonctl(1, &["status"]);
        let primary = status["pid"].as_u64().expect("the primary's process");
        let secondary = &status["secondaries"][0];
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {status}"));
        let entries = |path: &Path| fs::read_dir(path).expect("a directory").count();
        Use {
            heap_bytes: number(&status["heap"]["bytes"]),
            heap_elements: number(&status["heap"]["elements"]),
            buffers_free: number(&secondary["buffers_free"]),
            hugepage_bytes: self.lab.hugepage_bytes(1),
            descriptors: entries(Path::new(&format!("/proc/{primary}/fd"))),
            threads: field(primary as u32, "Threads:"),
            files: entries(&self.dpdk_directory()),
        }
    }

    fn dpdk_directory(&self) -> PathBuf {
        let directory = self.runtime().join("dpdk");
        let mut prefixes = fs::read_dir(directory).expect("DPDK's directory");
        prefixes.next().expect("a prefix").expect("its name").path()
    }

    fn runtime(&self) -> PathBuf {
        self.lab.node_directory(1).join("run")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

fn end(child: &mut Child) {
    signal(child.id(), Signal::SIGKILL);
    child.wait().expect("the end of the secondary");
}

/// Waits for an orphan that has come to this process.
fn reap(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => return,
            // It has gone to its own parent, or is not this process's yet.
            Err(Errno::ECHILD) if !Path::new(&format!("/proc/{pid}")).exists() => return,
            Err(_) => {}
        }
        assert!(Instant::now() < deadline, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn rss_kib(pid: u32) -> u64 {
    field(pid, "VmRSS:")
}

/// A number of `/proc/<pid>/status`.
fn field(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
    line.split_whitespace().next().and_then(|text| text.parse().ok()).expect("a number")
}
