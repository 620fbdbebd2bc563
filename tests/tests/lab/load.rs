//! Load that runs while a test does something else.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::harness::Lab;
use crate::wait::wait_for;

/// Longest time that a load runs if nobody ends it.
const SECONDS_MAX: &str = "150";

/// A load, from its start until it is finished or dropped.
pub struct Load {
    child: Child,
    files: PathBuf,
}

/// What became of a load.
#[derive(Debug)]
pub struct Report(Value);

impl Load {
    /// Keeps HTTP connections to `target` open, with a request in each every 100 ms.
    pub fn http(lab: &Lab, target: &str, connections: u32, more: &[&str]) -> Load {
        let connections = connections.to_string();
        let words = ["http", "--target", target, "--connections", &connections, "--interval-ms", "100"];
        Load::start(lab, &[&words, more].concat())
    }

    /// Keeps HTTP connections to `target` open, with a request in each every `interval_ms`.
    pub fn quiet(lab: &Lab, target: &str, connections: u32, interval_ms: &str) -> Load {
        let connections = connections.to_string();
        let words = ["http", "--target", target, "--connections", &connections, "--interval-ms", interval_ms];
        Load::start(lab, &words)
    }

    /// Opens `rate` HTTP connections to `target` a second, and closes each after a few requests.
    pub fn churn(lab: &Lab, target: &str, rate: u32, more: &[&str]) -> Load {
        let rate = rate.to_string();
        Load::start(lab, &[&["churn", "--target", target, "--rate", &rate], more].concat())
    }

    /// Sends datagrams to the echo service at `target`, `rate` a second, in turn through all flows.
    pub fn udp(lab: &Lab, target: &str, flows: u32, rate: u32) -> Load {
        let (flows, rate) = (flows.to_string(), rate.to_string());
        Load::start(lab, &["udp", "--target", target, "--flows", &flows, "--rate", &rate])
    }

    /// Sends datagrams of `flows` client ports of a host to the echo service at `target`; every one opens a session, for as long as the
    /// host has ports that it has not used lately.
    pub fn burst(lab: &Lab, host: &str, target: &str, flows: u32, rate: u32) -> Load {
        let (flows, rate) = (flows.to_string(), rate.to_string());
        let words = ["udp", "--target", target, "--flows", &flows, "--rate", &rate, "--renew-after", "1"];
        Load::start_on(lab, host, &words)
    }

    fn start(lab: &Lab, words: &[&str]) -> Load {
        Load::start_on(lab, "c1", words)
    }

    fn start_on(lab: &Lab, host: &str, words: &[&str]) -> Load {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let files = lab.scratch().join(format!("load-{number}"));
        std::fs::create_dir(&files).expect("a directory for the load");
        let mut command: Command = lab.command(&["exec", host, env!("CARGO_BIN_EXE_baton-lab"), "load"]);
        command.args(words).args(["--seconds", SECONDS_MAX]);
        for (option, name) in
            [("--ready-file", "ready"), ("--until-file", "until"), ("--report-file", "report")]
        {
            command.arg(option).arg(files.join(name));
        }
        let child = command.stdout(Stdio::null()).spawn().expect("the load starts");
        Load { child, files }
    }

    /// Waits until everything is open and was answered.
    pub fn wait_ready(&mut self) {
        wait_for(30, "the load to be whole", || {
            let ended = self.child.try_wait().expect("the load's state");
            assert!(ended.is_none(), "the load ended too soon: {:?}", self.report());
            if self.files.join("ready").exists() { Ok(()) } else { Err(format!("{:?}", self.report())) }
        });
    }

    /// What has become of it so far, if it has said.
    pub fn report(&self) -> Option<Report> {
        let text = std::fs::read(self.files.join("report")).ok()?;
        serde_json::from_slice(&text).ok().map(Report)
    }

    /// Seconds since its start, as it counts them.
    pub fn elapsed_s(&self) -> f64 {
        self.report().map_or(0.0, |report| report.seconds("elapsed_s"))
    }

    /// Ends it in order and returns its last report.
    pub fn finish(self) -> Report {
        std::fs::write(self.files.join("until"), "").expect("the file that ends the load");
        self.wait_ended(40)
    }

    /// Waits until it has ended by itself and returns its last report.
    pub fn wait_ended(mut self, seconds: u64) -> Report {
        wait_for(seconds, "the load to end", || match self.child.try_wait().expect("the load's state") {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", self.report())),
        });
        self.report().expect("a last report")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail if it has ended, which is as well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Report {
    /// One of its numbers.
    pub fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {self:?}"))
    }

    /// One of its times.
    pub fn seconds(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("no time {name} in {self:?}"))
    }

    /// One of its lists of times.
    pub fn times(&self, name: &str) -> Vec<f64> {
        let times = self.0[name].as_array().unwrap_or_else(|| panic!("no times {name} in {self:?}"));
        times.iter().map(|time| time.as_f64().expect("a time")).collect()
    }

    /// The connections that were lost: their clients, and when they were open.
    pub fn losses(&self) -> Vec<(String, f64)> {
        let losses = self.0["losses"].as_array().unwrap_or_else(|| panic!("no losses in {self:?}"));
        let loss = |loss: &Value| {
            let client = loss["client"].as_str().expect("a client").to_owned();
            (client, loss["opened_at_ms"].as_f64().expect("a time"))
        };
        losses.iter().map(loss).collect()
    }

    /// Everything that it says of the connections that were lost.
    pub fn losses_in_full(&self) -> String {
        self.0["losses"].to_string()
    }

    /// How many servers answered, each at least once.
    pub fn servers(&self) -> usize {
        let servers = self.0["servers"].as_object().or_else(|| self.0["instances"].as_object());
        servers.unwrap_or_else(|| panic!("no servers in {self:?}")).len()
    }

    /// When the last datagram was sent that nobody answered, in seconds since the start.
    pub fn last_lost_at_s(&self) -> Option<f64> {
        self.0["lost_between_s"][1].as_f64()
    }

    /// Panics unless `connections` HTTP connections were opened and all live.
    pub fn assert_http_whole(&self, connections: u32) {
        let found = ["opened", "alive", "lost", "not_opened"].map(|name| self.number(name));
        assert_eq!(found, [connections.into(), connections.into(), 0, 0], "{self:?}");
        assert!(self.number("answers") >= u64::from(connections), "{self:?}");
    }

    /// Panics unless every connection that came was opened and came to its end in order.
    pub fn assert_churn_whole(&self) {
        let names = ["closed", "opened", "lost", "not_opened", "under_way"];
        let begun = self.number("begun");
        assert_eq!(names.map(|name| self.number(name)), [begun, begun, 0, 0, 0], "{self:?}");
    }

    /// Panics unless every datagram of `flows` flows was answered, once, each flow by one server.
    pub fn assert_udp_whole(&self, flows: u32) {
        let found = ["flows_answered", "flows_moved", "lost", "doubled", "foreign", "send_errors"]
            .map(|name| self.number(name));
        assert_eq!(found, [flows.into(), 0, 0, 0, 0, 0], "{self:?}");
        assert!(self.number("answered") >= u64::from(flows), "{self:?}");
    }
}
