//! The primary and the secondary of a test: the test binary again, with a role in its environment.
//!
//! Either answers UDP packets that come to its queues with the queue's number, and obeys commands on its input.

use std::io::{BufRead, BufReader, Write, stdin};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use dpdk::{
    Burst, Device, Eal, EalOptions, FlowError, FlowRules, Mempool, PoolConfig, PoolOps, Port, PortConfig,
    ProcessType, RxQueue, RxQueueConfig, SteeringTarget, TapSteering, TxQueue,
};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::frame::turn_round;
use crate::lab::{FILE_PREFIX, Lab};

/// Queues 0 and 1 are the primary's.
pub const PRIMARY_QUEUES: u8 = 2;
pub const SECONDARY_QUEUE: u8 = 2;

const ROLE: &str = "BATON_DPDK_TEST_ROLE";
const RUNTIME: &str = "BATON_DPDK_TEST_RUNTIME";
const HUGEPAGES: &str = "BATON_DPDK_TEST_HUGEPAGES";
const MAC: [u8; 6] = [0x02, 0xba, 0x70, 0, 0, 1];
const DEVICE: &str = "net_tap0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Primary,
    Secondary,
}

/// A running primary or secondary. Killed when dropped.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts one and waits until it serves its queues.
    pub fn start(lab: &Lab, role: Role) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([lab.test, "--exact", "--nocapture"])
            .env(ROLE, format!("{role:?}"))
            .env(RUNTIME, lab.runtime())
            .env(HUGEPAGES, lab.hugepage_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // SAFETY: the closure makes one system call, which is allowed between fork and exec.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let mut process = command.spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut child = Self { process, input, output: BufReader::new(output) };
        assert_eq!(child.answer(), "ready", "{role:?}");
        child
    }

    /// Gives a command and returns the answer.
    pub fn command(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.answer()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The next line that is an answer: what stands behind its `@`.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process ended");
            if let Some((_, answer)) = line.trim_end().split_once('@') {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have been killed already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Plays the role that the environment names, for ever, and returns `false` if there is none: this is the test itself.
pub fn run_role() -> bool {
    match std::env::var(ROLE).as_deref() {
        Ok("Primary") => run_primary(),
        Ok("Secondary") => run_secondary(),
        _ => return false,
    }
    true
}

fn options(process_type: ProcessType) -> EalOptions {
    EalOptions::new(process_type, FILE_PREFIX)
        .runtime_dir(std::env::var(RUNTIME).unwrap())
        .hugepage_dir(std::env::var(HUGEPAGES).unwrap())
}

fn run_primary() {
    let options = options(ProcessType::Primary).lcore(0, &[0]).lcore(1, &[1]).memory_mib(64);
    let eal = options.vdev(format!("{DEVICE},iface=lb0")).start().unwrap();
    let pool = |name, ops, cache| {
        let config = PoolConfig { count: 4095, cache, data_bytes: 2048, socket: -1, ops };
        Mempool::create(&eal, name, &config).unwrap()
    };
    let workers = RxQueueConfig { pool: pool("workers", PoolOps::MultiThread, 128) };
    let secondary = RxQueueConfig { pool: pool("secondary", PoolOps::SingleThread, 0) };
    let config = PortConfig {
        rx_queues: vec![workers.clone(), workers, secondary],
        tx_queues: 3,
        rx_descriptors: 256,
        tx_descriptors: 256,
        mtu: 1500,
        promiscuous: true,
        spread: false,
    };
    let port = Device::find(&eal, DEVICE).unwrap().start(&config).unwrap();
    serve(&eal, &port, 1, 0..PRIMARY_QUEUES);
    let interface = port.capabilities().unwrap().interface.unwrap();
    let mut steering = None;
    obey(|words| match words {
        ["steer"] => {
            steering = Some(TapSteering::install(&interface, u16::from(PRIMARY_QUEUES)).unwrap());
            "done".to_owned()
        }
        ["unsteer"] => {
            steering = None;
            TapSteering::remove_from(&interface).unwrap();
            "done".to_owned()
        }
        ["insert", address, queue, udp_port] => {
            let udp_port = Some(udp_port.parse().unwrap()).filter(|&port| port != 0);
            let target = SteeringTarget { queue: queue.parse().unwrap(), udp_port };
            steering.as_mut().unwrap().insert(address.parse().unwrap(), target).unwrap();
            "done".to_owned()
        }
        ["remove", address] => {
            let there = steering.as_mut().unwrap().remove(address.parse().unwrap()).unwrap();
            there.to_string()
        }
        ["mac"] => port.mac().unwrap().map(|byte| format!("{byte:02x}")).join(":"),
        ["probe"] => match FlowRules::new(&eal, &port).unwrap().probe() {
            Ok(()) => "created".to_owned(),
            Err(FlowError::Unsupported { .. }) => "unsupported".to_owned(),
            Err(error) => error.to_string(),
        },
        _ => format!("unknown: {words:?}"),
    });
}

fn run_secondary() {
    let eal = options(ProcessType::Secondary).lcore(2, &[0]).lcore(3, &[0]).start().unwrap();
    let port = Port::attach(&eal, DEVICE).unwrap();
    serve(&eal, &port, 3, SECONDARY_QUEUE..SECONDARY_QUEUE + 1);
    obey(|words| {
        let ["hold", lock @ ..] = words else { return format!("unknown: {words:?}") };
        hold_lock(&lock.join(" "));
        "done".to_owned()
    });
}

/// Answers packets that come to those queues, on a worker lcore, for ever.
fn serve(eal: &Eal, port: &Port, lcore: u16, queues: std::ops::Range<u8>) {
    let mut queues: Vec<(u8, RxQueue, TxQueue)> = queues
        .map(|queue| {
            let number = u16::from(queue);
            (queue, port.take_rx_queue(number).unwrap(), port.take_tx_queue(number).unwrap())
        })
        .collect();
    eal.launch(lcore, move || {
        loop {
            let answered = queues.iter_mut().map(|(queue, rx, tx)| echo(*queue, rx, tx)).sum::<usize>();
            if answered == 0 {
                thread::sleep(Duration::from_micros(50));
            }
        }
    })
    .unwrap();
    println!("@ready");
}

/// Receives a burst and sends back what is for Baton.
fn echo(queue: u8, rx: &mut RxQueue, tx: &mut TxQueue) -> usize {
    let (mut received, mut answers) = (Burst::<32>::new(), Burst::<32>::new());
    let count = rx.burst(&mut received);
    for mut packet in received.drain() {
        if turn_round(packet.data_mut(), MAC, queue).is_some() {
            answers.push(packet).unwrap();
        }
    }
    tx.burst(&mut answers);
    count
}

/// Executes commands from the input and answers each, until the input ends.
fn obey(mut execute: impl FnMut(&[&str]) -> String) {
    for line in stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        println!("@{}", execute(&words));
    }
}

/// Takes a lock of the shared configuration and never gives it back.
fn hold_lock(name: &str) {
    let lock = match name {
        "memory hotplug" => dpdk_sys::rte_mcfg_mem_write_lock,
        "tail queues" => dpdk_sys::rte_mcfg_tailq_read_lock,
        "mempools" => dpdk_sys::rte_mcfg_mempool_write_lock,
        "timers" => dpdk_sys::rte_mcfg_timer_lock,
        _ => panic!("no lock named {name}"),
    };
    // SAFETY: EAL is initialised (the caller's port proves it), which is all that these functions ask for.
    unsafe { lock() }
}
