//! What a process writes to the journal, and where it writes without one. A socket in a mount namespace of the test's own
//! stands where journald's is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use baton_common::config::KeyFile;
use baton_common::runtime::{ProcessLock, primary_lock_path};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A journal entry: its fields.
type Entry = BTreeMap<String, String>;

/// Makes a journal's socket that only this thread and its children see.
fn journal() -> UnixDatagram {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, which takes root");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts of its own");
    mount(Some("journal"), "/run", Some("tmpfs"), MsFlags::empty(), none).expect("a /run of its own");
    fs::create_dir_all("/run/systemd/journal").expect("the journal's directory");
    let socket = UnixDatagram::bind("/run/systemd/journal/socket").expect("the journal's socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket
}

/// What has come in. <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: `NAME=value`, or a name, a length and so many bytes.
fn entries(socket: &UnixDatagram) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(length) = socket.recv(&mut buffer) {
        let mut rest = &buffer[..length];
        let mut entry = Entry::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|&byte| byte == b'\n').expect("the end of a line");
            let line = std::str::from_utf8(&rest[..end]).expect("UTF-8");
            rest = &rest[end + 1..];
            if let Some((name, value)) = line.split_once('=') {
                entry.insert(name.into(), value.into());
                continue;
            }
            let (length, after) = rest.split_first_chunk().expect("a length");
            let (value, after) = after.split_at(u64::from_le_bytes(*length) as usize);
            entry.insert(line.into(), String::from_utf8_lossy(value).into_owned());
            rest = after.strip_prefix(b"\n").expect("the end of the value");
        }
        entries.extend(Some(entry).filter(|entry| !entry.is_empty()));
    }
    entries
}

/// A node's directory, whose primary is this process as far as a secondary can see.
struct Node {
    directory: TempDir,
    _primary: ProcessLock,
}

impl Node {
    fn new() -> Node {
        let directory = TempDir::new().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf/lab.ron"))
            .expect("the configuration")
            .replace("/run/baton-lab/lb1-hugepages", &path("pages"))
            .replace("/run/baton-lab/lb1", &path("run"))
            .replace("/run/baton-lab/sync.key", &path("sync.key"));
        fs::write(directory.path().join("baton.ron"), text).expect("the configuration");
        KeyFile::generate().expect("a key").create(&directory.path().join("sync.key")).expect("the key file");
        let lock = primary_lock_path(&directory.path().join("run"));
        let primary = ProcessLock::acquire(&lock, Duration::ZERO).expect("the primary's lock");
        Node { directory, _primary: primary }
    }

    /// Runs a secondary, which ends when it finds no table files; returns what it wrote to standard error.
    fn run_secondary(&self, is_under_systemd: bool) -> String {
        let path = self.directory.path().join("stderr");
        let stderr = File::create(&path).expect("a file");
        let mut command = Command::new(binary("baton-sync"));
        command.arg("--config").arg(self.directory.path().join("baton.ron")).args(["--numa", "0"]);
        if is_under_systemd {
            let file = stderr.metadata().expect("the file's number");
            command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()));
        } else {
            // As a child of a service has it that writes elsewhere.
            command.env("JOURNAL_STREAM", "1:1");
        }
        let status = command.stderr(stderr).status().expect("it starts");
        let said = fs::read_to_string(path).expect("its words");
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }
}

fn binary(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_baton-lab")).with_file_name(name);
    assert!(path.exists(), "{name} is not built: run `cargo build --workspace` first");
    path
}

const LINE: &str = "datagrams are sealed";

#[test]
fn root_the_journal_gets_fields_and_standard_error_no_second_copy() {
    let (socket, node) = (journal(), Node::new());

    let said = node.run_secondary(true);

    let entries = entries(&socket);
    let entry =
        entries.iter().find(|entry| entry["MESSAGE"] == LINE).unwrap_or_else(|| panic!("{entries:?}"));
    let expected = [
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "baton-sync"),
        ("BATON_NODE", "1"),
        ("BATON_NAME", "lb1"),
        ("BATON_NUMA", "0"),
        ("BATON_KEY", "1"),
        ("BATON_COUNT", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(entry.get(name).map(String::as_str), Some(value), "{name} in {entry:?}");
    }
    assert!(!said.contains(LINE), "{said}");
}

#[test]
fn root_without_the_journal_lines_go_to_standard_error() {
    let (socket, node) = (journal(), Node::new());

    let said = node.run_secondary(false);

    assert!(said.contains(LINE) && said.contains("count=1"), "{said}");
    assert_eq!(entries(&socket), Vec::<Entry>::new());
}
