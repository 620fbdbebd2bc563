//! The command as an operator runs it, against files and a control socket of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use baton_common::config::{KeyFile, Scheduler};
use baton_common::control::{
    Handler, HeapStatus, NodeStatus, PortStatus, RealServerStatus, Refusal, Request, Response, Server,
    ServiceStatus, Status, not_mine, socket_path,
};
use baton_common::counter::{Counter, CounterFile};
use baton_common::flow::{Endpoint, Protocol};
use baton_common::id::{Generation, NodeId, NumaId};
use baton_common::session::table::{SessionTable, TableWriter};
use baton_common::session::{Session, SessionState};
use baton_common::shm::header::FileKind;
use baton_common::sync::state;
use baton_common::sync::wire::StreamId;
use baton_common::time::Millis;
use serde_json::Value;
use tempfile::TempDir;

/// A node's directories and configuration: the lab's, with two workers and node 2 as its peer.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new() -> Node {
        let directory = TempDir::new().unwrap();
        let text = include_str!("../../conf/lab.ron")
            .replace("/run/baton-lab/lb1-hugepages", directory.path().join("pages").to_str().unwrap())
            .replace("/run/baton-lab/lb1", directory.path().to_str().unwrap())
            .replace("/run/baton-lab/sync.key", directory.path().join("sync.key").to_str().unwrap());
        std::fs::create_dir(directory.path().join("pages")).unwrap();
        std::fs::write(directory.path().join("baton.ron"), text).unwrap();
        Node { directory }
    }

    fn with_files() -> Node {
        let node = Node::new();
        for (kind, number) in
            [(FileKind::LocalTable, 0), (FileKind::LocalTable, 1), (FileKind::RemoteTable, 0)]
        {
            SessionTable::create(&node.file(kind, number), kind, 64).unwrap();
        }
        CounterFile::create(&node.file(FileKind::Counters, 0), 2, 1).unwrap();
        state::create(&node.file(FileKind::SyncState, 0), 1472).unwrap();
        node
    }

    fn file(&self, kind: FileKind, number: u8) -> PathBuf {
        kind.path(&self.directory.path().join("pages"), number)
    }

    fn insert(&self, kind: FileKind, number: u8, sessions: &[Session]) {
        let mut table = TableWriter::attach(&self.file(kind, number), kind).unwrap();
        for session in sessions {
            table.insert(session).unwrap();
        }
    }

    fn run(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batonctl"));
        command.arg("--config").arg(self.directory.path().join("baton.ron"));
        command.args(arguments.split_whitespace()).output().unwrap()
    }

    /// The JSON that a successful run prints.
    fn json(&self, arguments: &str) -> Value {
        let output = self.run(&format!("--json {arguments}"));
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn text(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a failing run says.
    fn error(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!((output.status.code(), output.stdout), (Some(1), vec![]), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn endpoint(text: &str) -> Endpoint {
    text.parse::<SocketAddr>().unwrap().into()
}

fn session(client: &str, owner: u16) -> Session {
    Session {
        protocol: Protocol::Tcp,
        client: endpoint(client),
        vip: endpoint("10.9.0.1:80"),
        local: endpoint(&format!("10.4.{owner}.1:{}", endpoint(client).port)),
        server: endpoint("10.3.0.11:80"),
        owner: NodeId(owner),
        generation: Generation(0),
        state: SessionState::TcpEstablished,
        last_seen: Millis::now(),
        last_sent: Millis(0),
    }
}

fn clients(report: &Value) -> Vec<&str> {
    let sessions = report["sessions"].as_array().unwrap();
    let mut clients: Vec<_> = sessions.iter().map(|row| row["client"].as_str().unwrap()).collect();
    clients.sort_unstable();
    clients
}

#[test]
fn sessions_of_all_tables_are_shown_and_filtered() {
    let node = Node::with_files();
    node.insert(FileKind::LocalTable, 0, &[session("10.1.0.2:40000", 1), session("10.1.0.2:40001", 1)]);
    node.insert(FileKind::LocalTable, 1, &[session("10.1.0.3:40002", 1)]);
    node.insert(FileKind::RemoteTable, 0, &[session("10.1.0.2:40003", 2)]);

    assert_eq!(node.json("sessions")["matched"], 4);
    assert_eq!(clients(&node.json("sessions --table remote")), ["10.1.0.2:40003"]);
    assert_eq!(clients(&node.json("sessions --owner 1 --client 10.1.0.3")), ["10.1.0.3:40002"]);
    assert_eq!(clients(&node.json("sessions --local 10.4.1.1:40001")), ["10.1.0.2:40001"]);
    assert_eq!(
        node.json("sessions --count --table local"),
        serde_json::json!({"matched": 3, "unreadable": 0})
    );
    assert_eq!(node.json("sessions --protocol udp")["matched"], 0);
    assert_eq!(node.text("sessions --count --state tcp_established"), "4\n");
    let text = node.text("sessions --limit 1 --table local");
    assert!(text.contains("tcp_established") && text.contains("1 of 3 sessions shown"), "{text}");
}

#[test]
fn counters_are_read_from_the_file_of_a_dead_node() {
    let node = Node::with_files();
    let file = CounterFile::open(&node.file(FileKind::Counters, 0)).unwrap();
    file.worker(1).unwrap().add(Counter::RxPackets, 5);
    file.control().add(Counter::PuntTx, 7);
    file.sync(0).unwrap().add(Counter::SyncRxGaps, 9);
    drop(file);

    let report = node.json("counters --per-thread");

    let threads: Vec<_> = report["counters"].as_array().unwrap().iter().map(|row| &row["threads"]).collect();
    assert_eq!(threads.len(), 3);
    assert_eq!(*threads[0], serde_json::json!({"worker-0": 0, "worker-1": 5, "primary": 0, "sync-0": 0}));
    assert_eq!((&threads[1]["primary"], &threads[2]["sync-0"]), (&7.into(), &9.into()));
    let all = node.json("counters --all");
    assert_eq!(all["counters"].as_array().unwrap().len(), Counter::ALL.len());
    assert!(node.text("counters").contains("rx_packets"));
}

#[test]
fn peers_show_what_was_heard_and_who_was_not() {
    let node = Node::with_files();

    let silent = node.json("peers");
    assert_eq!(silent["peers"], serde_json::json!([{"node": 2, "addresses": ["10.2.0.102"]}]));
    assert!(node.text("peers").contains("never"));

    let state = state::attach(&node.file(FileKind::SyncState, 0)).unwrap();
    let peer = state.peer(NodeId(2), NumaId(0), Millis::now()).unwrap();
    peer.accept(77, StreamId::CHANGES, 4, Millis::now()).unwrap();
    peer.add_records(3);
    let heard = node.json("peers");
    let heard = &heard["peers"][0]["heard"];
    assert_eq!(
        (&heard["boot_epoch"], &heard["datagrams"], &heard["records"]),
        (&77.into(), &1.into(), &3.into())
    );
}

struct Primary;

impl Primary {
    fn status(&self) -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 4711,
            uptime_ms: 61_000,
            node: NodeStatus { id: NodeId(1), name: "lb1".into(), cluster: 1 },
            steering: "tap_bpf".into(),
            port: PortStatus {
                device: "net_tap0".into(),
                driver: "net_tap".into(),
                mac: "02:ba:70:00:00:01".into(),
                rx_queues: 3,
                tx_queues: 3,
            },
            workers: vec![],
            secondaries: vec![],
            sync_enabled: true,
            heap: HeapStatus::default(),
        }
    }

    fn services(&self) -> Vec<ServiceStatus> {
        let endpoint = "10.3.0.11:80".parse().unwrap();
        vec![ServiceStatus {
            name: "web".into(),
            vip: "10.9.0.1:80".parse().unwrap(),
            protocol: Protocol::Tcp,
            scheduler: Scheduler::WeightedRoundRobin,
            real_servers: vec![RealServerStatus { endpoint, weight: 1, sessions_created: 12 }],
        }]
    }
}

impl Handler for Primary {
    fn answer(&self, request: Request, _: u32) -> Result<Response, Refusal> {
        match request {
            Request::Status => Ok(Response::Status(Box::new(self.status()))),
            Request::Services => Ok(Response::Services(self.services())),
            other => Err(not_mine(&other)),
        }
    }
}

#[test]
fn the_primary_is_asked_for_status_and_services() {
    let node = Node::new();
    let _server = Server::start(&socket_path(node.directory.path()), Arc::new(Primary)).unwrap();

    assert_eq!(node.json("status")["pid"], 4711);
    assert!(node.text("status").contains("up 1m1s"));
    assert_eq!(node.json("services")["services"][0]["real_servers"][0]["sessions_created"], 12);
    assert!(node.text("services").contains("10.3.0.11:80"));
}

#[test]
fn errors_say_what_to_do() {
    let node = Node::new();

    assert!(node.error("status").contains("start baton-primary"));
    for command in ["counters", "sessions", "peers"] {
        let error = node.error(command);
        assert!(error.contains("baton-hugepages apply"), "{command}: {error}");
    }
    std::fs::remove_file(node.directory.path().join("baton.ron")).unwrap();
    assert!(node.error("counters").contains("--config"));
}

#[test]
fn check_and_print_default_need_nothing_but_the_file() {
    let node = Node::new();
    node.text("key new");

    assert!(node.text("--check").contains("ok"));
    let sample = node.text("--print-default");
    let key_file = node.directory.path().join("sync.key");
    let sample = sample.replace("/etc/baton/sync.key\"),\n", &format!("{}\"),\n", key_file.display()));
    std::fs::write(node.directory.path().join("baton.ron"), sample).unwrap();
    assert!(node.text("--check").contains("ok"));

    std::fs::write(node.directory.path().join("baton.ron"), "(").unwrap();
    let output = node.run("--check");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("baton.ron:1:"));
}

#[test]
fn keys_are_made_shown_and_changed_and_never_printed() {
    let node = Node::new();
    let path = node.directory.path().join("sync.key");
    let keys = |arguments: &str| -> Vec<(u64, bool, String)> {
        let report = node.json(arguments);
        assert_eq!(report["file"], path.to_str().unwrap());
        let rows = report["keys"].as_array().unwrap().iter();
        let row = |key: &Value| {
            (
                key["id"].as_u64().unwrap(),
                key["seals"] == true,
                key["fingerprint"].as_str().unwrap().to_owned(),
            )
        };
        rows.map(row).collect()
    };
    assert!(node.error("key show").contains("batonctl key new"));

    let made = keys("key new");
    assert_eq!((made.len(), made[0].0, made[0].1), (1, 1, true));
    assert_eq!(keys("key show"), made);
    assert!(node.error("key new").contains("File exists"));
    let secret = std::fs::read_to_string(&path).unwrap();
    let secret = secret.lines().last().unwrap().split(' ').next_back().unwrap();
    assert_eq!(secret.len(), 64);
    for shown in [node.text("key show"), node.text("--json key show")] {
        assert!(!shown.contains(secret) && shown.contains(&made[0].2), "{shown}");
    }

    let added = keys("key add");
    assert_eq!((added.len(), &added[0], added[1].1), (2, &made[0], false));
    assert_ne!(added[0].2, added[1].2);
    assert!(node.error("key remove 1").contains("key 1 seals"));
    assert!(node.error("key use 3").contains("no key 3"));
    assert_eq!(keys("key show"), added, "what was refused changed nothing");

    let used = keys("key use 2");
    assert_eq!((used[0].1, used[1].1), (false, true));
    assert!(node.text("key remove 1").contains("Next: copy the file to every node"));
    assert_eq!(keys("key show"), used[1..]);

    let other = node.directory.path().join("other.key");
    assert!(node.text(&format!("key new {}", other.display())).contains(other.to_str().unwrap()));
    assert!(KeyFile::load(&other).is_ok());
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let node = Node::new();

    for arguments in ["dance", "sessions --state tired", "sessions --client lb1", "--json"] {
        assert_eq!(node.run(arguments).status.code(), Some(2), "{arguments}");
    }
}

#[test]
fn top_prints_what_the_files_of_a_dead_node_say_and_that_nobody_answers() {
    let node = Node::with_files();
    node.insert(FileKind::LocalTable, 1, &[session("10.1.0.2:40000", 1)]);
    let file = CounterFile::open(&node.file(FileKind::Counters, 0)).unwrap();
    file.worker(0).unwrap().add(Counter::DropNoSession, 3);

    let frames = node.text("--json top --frames 2 --interval 0.1");

    let frames: Vec<Value> = frames.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames.len(), 2);
    let frame = &frames[1];
    let named =
        |name: &str| frame["workers"].as_array().unwrap().iter().find(|row| row["worker"] == name).unwrap();
    assert_eq!((&frame["local_sessions"], &named("worker-1")["sessions"]), (&1.into(), &1.into()));
    assert_eq!(
        (&frame["drops"][0]["reason"], &frame["drops"][0]["per_second"]),
        (&"no_session".into(), &0.0.into())
    );
    let troubles = frame["troubles"].as_array().unwrap();
    assert!(
        troubles.iter().any(|trouble| trouble.as_str().unwrap().contains("primary is not running")),
        "{frame}"
    );
    let text = node.text("top --once --interval 0.1 --view drops --sort total");
    assert!(text.contains("[drops]") && !text.contains("[workers]") && text.contains("no_session"), "{text}");
}

#[test]
fn top_without_files_or_terminal_says_what_to_do() {
    let node = Node::new();
    assert!(node.text("top --once --interval 0.1").contains("baton-hugepages apply"));
    assert!(node.error("top").contains("needs a terminal"), "standard output is a pipe here");
    assert!(node.error("top --json").contains("--frames"));
    assert!(node.error("top --once --view workers --sort speed").contains("rx_packets_per_second"));
    assert_eq!(node.run("top --interval 0").status.code(), Some(2));
}

#[test]
fn shells_get_completions_that_they_can_read() {
    let node = Node::new();
    for (shell, part) in
        [("bash", "complete -F _batonctl"), ("zsh", "#compdef batonctl"), ("fish", "complete -c batonctl")]
    {
        let script = node.text(&format!("completions {shell}"));
        assert!(script.contains(part) && script.contains("drain") && script.contains("top"), "{shell}");
    }
    let script = node.directory.path().join("batonctl.bash");
    std::fs::write(&script, node.text("completions bash")).unwrap();
    // As the shell asks when somebody types `batonctl cou` and the tabulator.
    let words = format!(
        ". {}; COMP_WORDS=(batonctl cou); COMP_CWORD=1; _batonctl batonctl cou batonctl; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["--norc", "-c", &words]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "counters\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_command_that_reports_has_json() {
    let node = Node::with_files();
    let _server = Server::start(&socket_path(node.directory.path()), Arc::new(Primary)).unwrap();
    node.text("key new");
    // Those left out change something, or ask a secondary: the lab's tests run them.
    for command in [
        "status",
        "services",
        "counters",
        "sessions",
        "peers",
        "key show",
        "completions zsh",
        "top --once --interval 0.1",
    ] {
        assert!(node.json(command).is_object(), "{command}");
    }
    let help = node.text("--help");
    for command in
        ["status", "counters", "sessions", "services", "peers", "sync", "top", "completions", "key"]
    {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
    }
}
