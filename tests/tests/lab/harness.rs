//! A lab that a test makes, uses and takes down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use baton_common::config::KeyFile;
use baton_common::id::NumaId;
use baton_common::runtime::ready_path;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::wait_for;

/// The services of every lab, by protocol and family.
pub const HTTP4: &str = "10.9.0.1:80";
/// HTTP over IPv6.
pub const HTTP6: &str = "[fd00:9::1]:80";
/// UDP echo over IPv4.
pub const ECHO4: &str = "10.9.0.1:7";
/// UDP echo over IPv6.
pub const ECHO6: &str = "[fd00:9::1]:7";

/// A lab of this test process. It goes when this is dropped, and by itself if the process is killed.
pub struct Lab {
    name: String,
    directory: TempDir,
}

impl Lab {
    /// Makes a lab, with these options of `baton-lab up`.
    pub fn up(options: &[&str]) -> Lab {
        Lab::owned_by(std::process::id(), options)
    }

    /// Makes a lab that goes when the process `owner` does.
    pub fn owned_by(owner: u32, options: &[&str]) -> Lab {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let lab = Lab {
            name: format!("t{}x{number}", std::process::id()),
            directory: tempfile::tempdir().expect("a directory"),
        };
        let directory = lab.directory().display().to_string();
        let owner = owner.to_string();
        let mut words = vec!["up", "--dir", &directory, "--owner", &owner];
        words.extend(options);
        lab.run(&words);
        lab
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it keeps its state.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().join("lab")
    }

    /// A directory beside it for the test's own files.
    pub fn scratch(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of node `number`.
    pub fn node_directory(&self, number: u16) -> PathBuf {
        self.directory().join(format!("n{number}"))
    }

    /// The network namespace of a host.
    pub fn netns(&self, host: &str) -> String {
        format!("baton-{}-{host}", self.name)
    }

    /// `baton-lab` for this lab.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton-lab"));
        // The logs are read by programs here.
        command.env("NO_COLOR", "1").args(["--name", &self.name]).args(words);
        command
    }

    /// Runs `baton-lab` for this lab and returns what it printed. It must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        printed(&mut self.command(words))
    }

    /// Kills a node's processes, all or one.
    pub fn kill(&self, node: &str, role: &[&str]) {
        self.run(&[&["kill", node], role].concat());
    }

    /// Kills both processes of a node at once, and says when: milliseconds since 1970. The router does not know yet.
    pub fn kill_now(&self, node: &str) -> f64 {
        let pids = ["primary", "sync"].map(|role| self.pid(node, role).expect("both processes live"));
        let pids = pids.map(|pid| Pid::from_raw(i32::try_from(pid).expect("a process number")));
        let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        pids.iter().for_each(|&pid| kill(pid, Signal::SIGKILL).expect("the process is there"));
        at.as_secs_f64() * 1e3
    }

    /// Starts a node's processes, all or one, and waits until they are ready.
    pub fn start(&self, node: &str, role: &[&str]) {
        self.run(&[&["start", node], role].concat());
    }

    /// Has node `number`'s secondary hand over to a successor; returns how that one came to its part.
    pub fn hand_over(&self, number: u16) -> Value {
        self.run(&["hand-over", &format!("n{number}")]);
        self.succession(number)
    }

    /// Has node `number`'s secondary try to hand over to a successor that fails; returns what `batonctl` says.
    pub fn hand_over_in_vain(&self, number: u16) -> String {
        let output = self.batonctl_command(number, &["sync", "hand-over"]).output().expect("batonctl starts");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// How node `number`'s secondary came to its part, and what became of those that were to succeed it.
    pub fn succession(&self, number: u16) -> Value {
        self.batonctl(number, &["sync", "show"])["domains"][0]["succession"].clone()
    }

    /// Waits until `batonctl sessions diff` finds no difference between node `number` and `peer`.
    pub fn wait_no_difference(&self, number: u16, peer: u16) {
        wait_for(20, "the sessions of both nodes to be equal", || {
            let output = self.batonctl_command(number, &["sessions", "diff", &peer.to_string()]).output();
            let output = output.expect("batonctl starts");
            match output.status.success() {
                true => Ok(()),
                false => Err(format!("{output:?}")),
            }
        });
    }

    /// Waits until node `number` holds what the others have. That does not make the router send anything to it.
    pub fn wait_in_sync(&self, number: u16) {
        let file = ready_path(&self.node_directory(number).join("run"), NumaId(0));
        wait_for(40, "the node to hold what the others have", || match file.exists() {
            true => Ok(()),
            false => Err(format!("no {}", file.display())),
        });
    }

    /// What the lab says of itself.
    pub fn status(&self) -> Value {
        parse(&self.run(&["status", "--json"]))
    }

    /// The processes of a host: role, process number, whether it lives.
    pub fn processes(&self, host: &str) -> Vec<(String, u32, bool)> {
        let status = self.status();
        let hosts = status["hosts"].as_array().expect("hosts");
        let found = hosts.iter().find(|entry| entry["name"] == host).expect("the host");
        let processes = found["processes"].as_array().expect("processes").iter();
        let entry = |process: &Value| {
            let role = process["role"].as_str().expect("a role").to_owned();
            let pid = process["pid"].as_u64().expect("a number") as u32;
            (role, pid, process["alive"] == true)
        };
        processes.map(entry).collect()
    }

    /// The process number of a role on a host, if it lives.
    pub fn pid(&self, host: &str, role: &str) -> Option<u32> {
        let processes = self.processes(host);
        processes.into_iter().find(|(name, _, alive)| name == role && *alive).map(|(_, pid, _)| pid)
    }

    /// Runs `batonctl` for node `number` and returns its JSON.
    pub fn batonctl(&self, number: u16, words: &[&str]) -> Value {
        parse(&printed(self.batonctl_command(number, words).arg("--json")))
    }

    /// What `batonctl` prints for a person, whether or not it succeeds.
    pub fn batonctl_text(&self, number: u16, words: &[&str]) -> String {
        let Output { stdout, stderr, .. } = self.batonctl_command(number, words).output().expect("it runs");
        [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// `batonctl` for node `number`.
    pub fn batonctl_command(&self, number: u16, words: &[&str]) -> Command {
        let mut command = Command::new(binary("batonctl"));
        command.arg("--config").arg(self.config(number)).args(words);
        command
    }

    /// The configuration of node `number`.
    pub fn config(&self, number: u16) -> PathBuf {
        self.node_directory(number).join("baton.ron")
    }

    /// The keys of the lab's nodes.
    pub fn keys(&self) -> KeyFile {
        KeyFile::load(&self.directory().join("sync.key")).expect("the lab's key file")
    }

    /// What one of node `number`'s processes answers Prometheus: the primary at port 9909, the secondary at 9910.
    pub fn scrape(&self, number: u16, port: u16) -> Result<String, String> {
        // Bash can do it without more programs; HTTP/1.0, so that the end of the answer is the end of the connection.
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
        );
        let output = self.command(&["exec", &format!("n{number}"), "bash", "-c", &script]).output();
        let output = output.expect("baton-lab starts");
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        match answer.strip_prefix("HTTP/1.1 200 OK\r\n").and_then(|rest| rest.split_once("\r\n\r\n")) {
            Some((_, metrics)) => Ok(metrics.to_owned()),
            None => Err(format!("{answer:?} {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Starts one of Baton's programs on node `number` beside those that the lab started, as the lab does; waits for its
    /// end.
    pub fn start_another(&self, number: u16, program: &str, words: &[&str]) -> Output {
        let runtime = self.node_directory(number).join("run");
        let mut command = self.command(&["exec", &format!("n{number}")]);
        command.arg("env").arg(format!("RUNTIME_DIRECTORY={}", runtime.display())).arg(binary(program));
        command.arg("--config").arg(self.config(number)).args(words);
        command.output().expect("the program starts")
    }

    /// Bytes of hugepages that node `number` uses: its table files and DPDK's memory.
    pub fn hugepage_bytes(&self, number: u16) -> u64 {
        let mount = self.node_directory(number).join("hugepages");
        let statistics = nix::sys::statvfs::statvfs(&mount).expect("the node's mount");
        (statistics.blocks() - statistics.blocks_free()) * statistics.fragment_size()
    }

    /// Takes the lab down. It must have been there.
    pub fn down(&self) {
        self.run(&["down"]);
    }

    /// The log of one of node `number`'s processes.
    pub fn log(&self, number: u16, role: &str) -> String {
        fs::read_to_string(self.node_directory(number).join(format!("{role}.log"))).unwrap_or_default()
    }

    /// The last lines of the logs of Baton's processes, and their counters.
    fn logs(&self) -> String {
        const LINES: usize = 8;
        let mut text = String::new();
        for number in (1..=9).filter(|&number| self.config(number).exists()) {
            for role in ["primary", "sync"] {
                let log = self.log(number, role);
                let lines: Vec<&str> = log.lines().collect();
                text += &format!(
                    "--- n{number} {role}\n{}\n",
                    lines[lines.len().saturating_sub(LINES)..].join("\n")
                );
            }
            let output = self.batonctl_command(number, &["counters"]).output();
            let counters = output.map(|output| output.stdout).unwrap_or_default();
            text += &format!("--- n{number} counters\n{}\n", String::from_utf8_lossy(&counters));
        }
        text
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // A test that took it down itself leaves nothing to do.
        let output = self.command(&["down"]).output();
        let good = output.as_ref().is_ok_and(|output| output.status.success());
        if !std::thread::panicking() {
            assert!(good, "lab {} did not go: {output:?}", self.name);
        }
    }
}

/// One of Baton's programs: they are beside `baton-lab`.
pub fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_baton-lab")).with_file_name(name);
    assert!(path.exists(), "{name} is not built: run `cargo build --workspace` first");
    path
}

fn printed(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}
