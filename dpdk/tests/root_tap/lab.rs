//! A node's network, a client and hugepages for a test. All of it lives in namespaces that vanish with the test.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

pub const FILE_PREFIX: &str = "lab";
pub const BATON_MAC: &str = "02:ba:70:00:00:01";
pub const SYNC_PORT: u16 = 4784;

/// What a primary of 64 MiB needs.
const HUGEPAGES: u64 = 40;
const NR_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// The node's side: `br0` with the persistent tap `lb0` and a cable to the client.
pub struct Lab {
    pub test: &'static str,
    pub client: Client,
    dir: TempDir,
    _pages: Hugepages,
}

impl Lab {
    /// Builds it. The calling thread, and what it starts, is in the node's namespaces from then on.
    pub fn new(test: &'static str) -> Self {
        let pages = Hugepages::reserve();
        let dir = tempfile::tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root tests need root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        for name in ["huge", "run"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let huge = dir.path().join("huge");
        mount(Some("none"), &huge, Some("hugetlbfs"), MsFlags::empty(), Some("pagesize=2M")).unwrap();

        ip("link set lo up");
        ip("tuntap add lb0 mode tap multi_queue");
        ip("link add br0 type bridge");
        ip("link set lb0 master br0");
        ip("link set lb0 up");
        ip("link add up0 type veth peer name c0");
        ip("link set up0 master br0");
        ip("link set up0 up");
        ip("link set br0 up");
        Self { test, client: Client::start(), dir, _pages: pages }
    }

    pub fn runtime(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    pub fn hugepage_dir(&self) -> PathBuf {
        self.dir.path().join("huge")
    }

    pub fn tap_exists(&self) -> bool {
        ip("-o link show lb0").contains("master br0")
    }

    pub fn tap_mac(&self) -> String {
        let line = ip("-o link show lb0");
        let mut words = line.split_whitespace().skip_while(|&word| word != "link/ether");
        words.nth(1).unwrap().to_owned()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The processes are gone by now, and the temporary directory can only go without a mount in it.
        if let Err(error) = umount2(&self.hugepage_dir(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.hugepage_dir().display());
        }
    }
}

/// Runs `ip` in this thread's network namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A question to the client's thread: where to, from a new port or not, and how long to try.
struct Question {
    to: SocketAddr,
    new_port: bool,
    patience: Duration,
}

/// A thread in a network namespace of its own that sends UDP to the node. It ends with the lab.
pub struct Client {
    questions: Sender<Question>,
    answers: Receiver<Option<u8>>,
}

impl Client {
    fn start() -> Self {
        let (questions, to_thread) = channel::<Question>();
        let (from_thread, answers) = channel();
        let (send_namespace, namespace) = channel();
        let (connect, connected) = channel::<()>();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            send_namespace.send(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())).unwrap();
            connected.recv().unwrap();
            configure();
            let bind = |address: IpAddr| {
                let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                UdpSocket::bind(any).unwrap()
            };
            let sockets = ["0.0.0.0", "::"].map(|any| bind(any.parse().unwrap()));
            for question in to_thread {
                let fresh = question.new_port.then(|| bind(question.to.ip()));
                let socket = fresh.as_ref().unwrap_or(&sockets[usize::from(question.to.is_ipv6())]);
                if from_thread.send(ask(socket, &question)).is_err() {
                    return;
                }
            }
        });
        // `ip` is another process: it finds the thread's namespace under this process's number.
        let path = namespace.recv().unwrap().replace("self", &std::process::id().to_string());
        ip(&format!("link set c0 netns {path}"));
        connect.send(()).unwrap();
        Self { questions, answers }
    }

    /// Which queue a packet to that address and port came to; `None` if nobody answers for seconds.
    pub fn ask(&self, address: IpAddr, port: u16) -> Option<u8> {
        self.question(address, port, false, Duration::from_secs(10))
    }

    /// The same, from a source port that was not used before.
    pub fn ask_from_a_new_port(&self, address: IpAddr, port: u16) -> Option<u8> {
        self.question(address, port, true, Duration::from_secs(10))
    }

    /// The same, without trying again.
    pub fn ask_once(&self, address: IpAddr, port: u16) -> Option<u8> {
        self.question(address, port, false, Duration::ZERO)
    }

    fn question(&self, address: IpAddr, port: u16, new_port: bool, patience: Duration) -> Option<u8> {
        self.questions.send(Question { to: SocketAddr::new(address, port), new_port, patience }).unwrap();
        self.answers.recv().unwrap()
    }
}

/// Gives the client its addresses, and routes everything to Baton's MAC.
fn configure() {
    ip("link set lo up");
    ip("addr add 10.2.0.1/24 dev c0");
    ip("addr add fd00:2::1/64 dev c0 nodad");
    ip("link set c0 up");
    for hop in ["10.2.0.11", "10.2.0.101", "fd00:2::11"] {
        ip(&format!("neigh add {hop} lladdr {BATON_MAC} dev c0 nud permanent"));
    }
    ip("route add 10.4.0.0/16 via 10.2.0.11");
    ip("route add 10.9.0.0/16 via 10.2.0.11");
    ip("route add fd00:4::/32 via fd00:2::11");
    ip("route add fd00:9::/32 via fd00:2::11");
}

/// Sends a datagram until an answer to it comes, and returns the answer's tag.
fn ask(socket: &UdpSocket, question: &Question) -> Option<u8> {
    static SERIAL: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let start = Instant::now();
    loop {
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_ne_bytes();
        let payload = [&[0xff], serial.as_slice()].concat();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        if socket.send_to(&payload, question.to).is_ok() {
            let mut answer = [0; 64];
            while let Ok((length, from)) = socket.recv_from(&mut answer) {
                if from == question.to && answer[1..length] == serial {
                    return Some(answer[0]);
                }
            }
        }
        if start.elapsed() > question.patience {
            return None;
        }
    }
}

/// Pages added to the machine's reservation, for as long as the test runs.
struct Hugepages;

impl Hugepages {
    fn reserve() -> Self {
        change_reservation(|pages| pages + HUGEPAGES);
        Self
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        change_reservation(|pages| pages.saturating_sub(HUGEPAGES));
    }
}

/// Changes the number of reserved pages, one test at a time.
fn change_reservation(change: impl FnOnce(u64) -> u64) {
    let path = Path::new(NR_HUGEPAGES);
    let _one_at_a_time = Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusive).unwrap();
    let pages: u64 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
    fs::write(path, change(pages).to_string()).unwrap();
}
