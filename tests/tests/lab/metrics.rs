//! What Prometheus reads of a node under load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, Lab};
use crate::load::Load;
use crate::wait::wait_for;

const PRIMARY: u16 = 9909;
const SECONDARY: u16 = 9910;
const FLOWS: u32 = 40;
const RATE: u32 = 1000;

/// A scrape: the samples with their labels, as they are written.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(lab: &Lab, number: u16, port: u16) -> Scrape {
        let text = wait_for(10, "metrics", || lab.scrape(number, port));
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
        });
        Scrape { samples: samples.collect(), text }
    }

    /// The sum of a family's samples that have this label.
    fn sum(&self, family: &str, label: &str) -> f64 {
        let chosen = self.samples.iter().filter(|(name, _)| {
            name.split('{').next() == Some(family) && (label.is_empty() || name.contains(label))
        });
        let values: Vec<f64> = chosen.map(|(_, value)| *value).collect();
        assert!(!values.is_empty(), "no {family} with {label} in\n{}", self.text);
        values.iter().sum()
    }

    fn families(&self) -> BTreeSet<&str> {
        self.samples.keys().map(|name| name.split('{').next().unwrap_or(name)).collect()
    }
}

/// What promtool says of a scrape: nothing, if it is as it should be.
fn promtool_says(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool, which `make testdeps` installs");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    let said = [output.stdout, output.stderr].concat();
    let status = if output.status.success() { "" } else { "failed: " };
    format!("{status}{}", String::from_utf8_lossy(&said))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// The metrics that a text names.
fn named_in(path: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(workspace().join(path)).expect("the file");
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_metric = |word: &&str| word.starts_with("baton_") || word.starts_with("process_");
    words.filter(is_metric).map(str::to_owned).collect()
}

#[test]
fn root_metrics_are_what_prometheus_and_the_operator_expect() {
    let lab = Lab::up(&["--nodes", "2", "--servers", "1", "--workers", "2"]);
    // What the other node draws is no matter here.
    lab.run(&["withdraw", "n2"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, RATE);
    load.wait_ready();

    let primary = Scrape::of(&lab, 1, PRIMARY);
    let before = Instant::now();
    let secondary = Scrape::of(&lab, 1, SECONDARY);
    for scrape in [&primary, &secondary] {
        assert_eq!(promtool_says(&scrape.text), "");
    }
    assert_ne!(
        promtool_says("baton_x_total{a=\"1\"} 1\nbaton_x_total{a=\"1\"} 2\n"),
        "",
        "promtool looks at it"
    );

    // Nothing is asked for that is not there.
    let there: BTreeSet<&str> = primary.families().union(&secondary.families()).copied().collect();
    for path in ["docs/alerts.yml", "docs/grafana/baton.json", "tests/prometheus/alerts.yml"] {
        let named = named_in(path);
        let missing: Vec<&String> = named.iter().filter(|name| !there.contains(name.as_str())).collect();
        assert!(missing.is_empty() && named.len() > 10, "{path} names {missing:?}");
    }

    // Each worker forwards its part of the load, both ways; the flows are the node's sessions and its peer's.
    std::thread::sleep(Duration::from_secs(2));
    let later = Scrape::of(&lab, 1, PRIMARY);
    let seconds = before.elapsed().as_secs_f64();
    let rate = |label: &str| {
        let family = "baton_tx_packets_total";
        (later.sum(family, label) - primary.sum(family, label)) / seconds
    };
    assert!((0.7..1.3).contains(&(rate("") / f64::from(2 * RATE))), "{} packets a second", rate(""));
    assert!(rate("worker=\"0\"") > 0.0 && rate("worker=\"1\"") > 0.0, "{}", later.text);
    assert_eq!(later.sum("baton_table_sessions", "table=\"local\""), f64::from(FLOWS));
    assert_eq!(later.sum("baton_service_sessions_created_total", "service=\"echo4\""), f64::from(FLOWS));
    assert_eq!(later.sum("baton_secondary_attached", "numa=\"0\""), 1.0);
    wait_for(10, "the peer to tell how much it holds", || {
        let peer = Scrape::of(&lab, 2, SECONDARY);
        let held = peer.sum("baton_sync_peer_held_sessions", "peer=\"1\"");
        let up = peer.sum("baton_sync_peer_up", "peer=\"1\"");
        let ready = peer.sum("baton_sync_state", "state=\"ready\"");
        let found = (held, up, ready, peer.sum("baton_table_sessions", "table=\"remote\""));
        crate::wait::equal(found, (f64::from(FLOWS), 1.0, 1.0, f64::from(FLOWS)))
    });

    load.finish().assert_udp_whole(FLOWS);
    let counters = Counters::settled(&lab, 1);
    let last = Scrape::of(&lab, 1, PRIMARY);
    assert_eq!(last.sum("baton_tx_packets_total", "") as u64, counters.get(Counter::TxPackets));
    let not_for_us = last.sum("baton_dropped_packets_total", "reason=\"not_for_us\"") as u64;
    assert_eq!(not_for_us, counters.get(Counter::DropNotForUs));
}

/// Clients that connect and say nothing, or ask again and again.
struct Flood(Vec<Child>);

impl Flood {
    fn of(lab: &Lab, script: &str) -> Flood {
        let mut command = lab.command(&["exec", "n1", "bash", "-c", script]);
        Flood(vec![command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash starts")])
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It ends by itself, too.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

#[test]
fn root_metrics_survive_their_clients_and_restarts() {
    let lab = Lab::up(&["--nodes", "2", "--servers", "1"]);
    lab.run(&["withdraw", "n2"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, RATE);
    load.wait_ready();

    // A hundred clients that say half a word to the secondary, and one that never rests, for a bounded time.
    let silent =
        "for fd in {10..110}; do eval \"exec $fd<>/dev/tcp/127.0.0.1/9910\"; printf GET >&$fd; done; sleep 3";
    let restless = "for i in {1..300}; do exec 3<>/dev/tcp/127.0.0.1/9909; \
                    printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3 >/dev/null; done";
    let floods = [Flood::of(&lab, silent), Flood::of(&lab, restless)];
    std::thread::sleep(Duration::from_secs(1));
    for port in [PRIMARY, SECONDARY] {
        Scrape::of(&lab, 1, port);
    }
    drop(floods);

    // A successor answers where its predecessor did, and says that it began anew.
    let began = |port| Scrape::of(&lab, 1, port).sum("process_start_time_seconds", "");
    let first = began(SECONDARY);
    let datagrams = Scrape::of(&lab, 1, SECONDARY).sum("baton_sync_tx_datagrams_total", "");
    lab.kill("n1", &["sync"]);
    wait_for(10, "the primary to miss its secondary", || {
        let attached = Scrape::of(&lab, 1, PRIMARY).sum("baton_secondary_attached", "");
        crate::wait::equal(attached, 0.0)
    });
    assert!(lab.scrape(1, SECONDARY).is_err());
    lab.start("n1", &["sync"]);
    let second = Scrape::of(&lab, 1, SECONDARY);
    assert!(second.sum("process_start_time_seconds", "") > first);
    assert!(second.sum("baton_sync_tx_datagrams_total", "") >= datagrams, "counters outlive their process");

    load.finish().assert_udp_whole(FLOWS);
}
