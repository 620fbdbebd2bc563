//! `batonctl top` beside a node under load: on a terminal, as a person sees it, and in print.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::pty::{Winsize, openpty};
use serde_json::Value;

use crate::harness::{ECHO4, Lab};
use crate::load::Load;
use crate::wait::wait_for;

const FLOWS: u32 = 40;
const RATE: u32 = 1000;
const ROWS: NonZero<u16> = NonZero::new(24).expect("not zero");
const COLUMNS: NonZero<u16> = NonZero::new(120).expect("not zero");

/// A program on a terminal of its own. It is ended if it does not end by itself.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    fn start(mut command: Command) -> Terminal {
        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("a terminal");
        let end = || Stdio::from(pty.slave.as_fd().try_clone_to_owned().expect("its other end"));
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end()).process_group(0);
        let child = command.spawn().expect("the program starts");
        drop(command);
        drop(pty.slave);
        let keys = File::from(pty.master);
        let mut output = keys.try_clone().expect("the terminal a second time");
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let drawn = screen.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error is the end: nobody has the other end open any more.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                drawn.lock().expect("the screen").process(&buffer[..count]);
            }
        });
        Terminal { child, keys, screen, reader: Some(reader) }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the program hears keys");
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("the screen").screen().contents()
    }

    /// Waits until the screen is so.
    fn wait_until<T>(&self, what: &str, probe: impl Fn(&str) -> Option<T>) -> T {
        wait_for(20, what, || {
            let screen = self.screen();
            probe(&screen).ok_or_else(|| format!("the screen is\n{screen}"))
        })
    }

    fn wait_ended(&mut self) -> ExitStatus {
        let status = wait_for(10, "the program to end", || match self.child.try_wait().expect("its state") {
            Some(status) => Ok(status),
            None => Err(self.screen()),
        });
        self.reader.take().into_iter().for_each(|reader| reader.join().expect("the reader ends"));
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The number of a rate as it is shown: `1.99k`.
fn rate(shown: &str) -> Option<f64> {
    let (number, factor) = match shown.strip_suffix('k') {
        Some(number) => (number, 1e3),
        None => (shown, 1.0),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// The second and third column of the line that begins so: received and sent a second.
fn rates_of(screen: &str, first: &str) -> Option<[f64; 2]> {
    let mut columns = screen.lines().find(|line| line.starts_with(first))?.split_whitespace().skip(1);
    Some([rate(columns.next()?)?, rate(columns.next()?)?])
}

/// Whether a rate of packets is the load's: each datagram comes and goes, and so does its answer.
fn is_the_loads(packets_per_second: f64) -> bool {
    (0.7..1.3).contains(&(packets_per_second / f64::from(2 * RATE)))
}

#[test]
fn root_top_on_a_terminal_shows_the_load_and_goes_on_when_a_process_restarts() {
    let lab = Lab::up(&["--nodes", "2", "--servers", "1"]);
    lab.run(&["withdraw", "n2"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, RATE);
    load.wait_ready();

    let mut top = Terminal::start(lab.batonctl_command(1, &["top", "--interval", "0.5"]));
    top.wait_until("the load's rates", |screen| {
        let [received, sent] = rates_of(screen, "worker-0")?;
        (is_the_loads(received) && is_the_loads(sent)).then_some(())
    });
    let screen = top.screen();
    assert!(screen.contains("node 1 (n1)") && screen.contains("numa 0: ready"), "{screen}");
    assert!(screen.contains(&format!("sessions {FLOWS} own")), "{screen}");

    top.press("2/ECHO4\r");
    top.wait_until("the service", |screen| {
        let row = screen.lines().find(|line| line.starts_with("echo4"))?;
        let has_rest = screen.contains("http4");
        (row.split_whitespace().any(|word| word == FLOWS.to_string()) && !has_rest).then_some(())
    });
    top.press("\x1b");
    // The escape alone, not the begin of a key's sequence.
    top.wait_until("all services", |screen| screen.contains("http4").then_some(()));
    top.press("4");
    top.wait_until("the peer", |screen| {
        screen.lines().find(|line| line.starts_with("node 2  ready")).map(drop)
    });
    top.press("1");

    lab.kill("n1", &["sync"]);
    top.wait_until("the news of a dead secondary", |screen| {
        screen.contains("the secondary of NUMA node 0").then_some(())?;
        screen.contains("does not answer").then_some(())
    });
    lab.start("n1", &["sync"]);
    top.wait_until("the news of its successor", |screen| {
        screen.contains("was restarted: process").then_some(())
    });
    top.wait_until("the load's rates after it", |screen| {
        rates_of(screen, "worker-0").filter(|[received, _]| is_the_loads(*received))
    });

    top.press("q");
    assert!(top.wait_ended().success());
    load.finish().assert_udp_whole(FLOWS);
}

#[test]
fn root_top_in_print_is_what_the_load_is() {
    let lab = Lab::up(&["--nodes", "2", "--servers", "1", "--workers", "2"]);
    lab.run(&["withdraw", "n2"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, RATE);
    load.wait_ready();

    let output =
        lab.batonctl_command(1, &["top", "--frames", "2", "--json"]).output().expect("batonctl starts");

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let frames: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(frames.len(), 2);
    for frame in &frames {
        let number = |key: &str| frame[key].as_f64().unwrap_or_else(|| panic!("no {key} in {frame}"));
        assert!(
            is_the_loads(number("rx_packets_per_second")) && is_the_loads(number("tx_packets_per_second"))
        );
        assert_eq!(number("local_sessions"), f64::from(FLOWS));
        let workers = frame["workers"].as_array().expect("workers");
        let parts: f64 = workers.iter().filter_map(|worker| worker["rx_packets_per_second"].as_f64()).sum();
        assert!((parts - number("rx_packets_per_second")).abs() < 1.0, "{frame}");
        assert_eq!(
            (&frame["peers"][0]["state"], &frame["troubles"]),
            (&"ready".into(), &Value::Array(vec![]))
        );
    }
    load.finish().assert_udp_whole(FLOWS);
}
