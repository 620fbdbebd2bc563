//! A container that boots systemd on this machine's own root, with Baton installed; nothing that it writes reaches the root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::install::{built, make, text};
use crate::node;
use crate::remains;
use crate::wait::wait_for;

/// Runs in a mount and a pid namespace of its own: its mounts go with its last process, and all its processes with its first.
/// `$1` is the container's directory, `$2` its name.
const BOOT: &str = r#"
mount -t tmpfs tmpfs "$1/disk"
mkdir "$1/disk/work" "$1/disk/root"
cp -a "$1/layer" "$1/disk/upper"
mount -t overlay -o "lowerdir=/,upperdir=$1/disk/upper,workdir=$1/disk/work" overlay "$1/disk/root"
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
export SYSTEMD_NSPAWN_API_VFS_WRITABLE=yes SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --boot --directory="$1/disk/root" --machine="$2" --register=no --keep-unit --private-network \
    --link-journal=no --console=pipe --capability=all --system-call-filter="bpf @memlock" \
    --bind="$1/units:/etc/systemd/system" --bind="$1/run:/run/baton" --bind-ro=/sys/module --bind=/dev/net/tun \
    -- systemd.unit=multi-user.target systemd.show_status=no
"#;

/// Units of the machine that have no business in a container with a writable /sys.
const MASKED: [&str; 2] = ["systemd-udevd.service", "systemd-udev-trigger.service"];

/// Watchdogs and what follows them, quicker than in the units, for a quicker test; and a CPU for the threads that have none of their own.
fn drop_in() -> String {
    format!("[Service]\nWatchdogSec=3s\nTimeoutAbortSec=1s\nCPUAffinity={}\n", last_cpu())
}

/// The last CPU of this machine.
pub fn last_cpu() -> usize {
    std::thread::available_parallelism().map_or(0, |count| count.get() - 1)
}

/// A booted container. It goes when this is dropped, and by itself when its owner is killed.
pub struct Container {
    directory: PathBuf,
    nspawn: Child,
    guard: Child,
    init: u32,
}

impl Container {
    /// Boots a container in which Baton has `memory_mib` of DPDK memory and starts with the machine.
    pub fn boot(memory_mib: u32) -> Container {
        Container::owned_by(std::process::id(), memory_mib)
    }

    /// The same, for a container that goes when the process `owner` does.
    pub fn owned_by(owner: u32, memory_mib: u32) -> Container {
        static MADE: AtomicU32 = AtomicU32::new(0);
        remains::clean_dead();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let directory = remains::directory(owner, number);
        prepare(&directory, memory_mib);
        let output = fs::File::create(directory.join("console")).expect("a file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]);
        command.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "sh", "-euc", BOOT, "boot"]);
        command.arg(&directory).arg(format!("baton-boot-{owner}-{number}")).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let nspawn = command.spawn().expect("setpriv starts");
        let guard = remains::guard(owner, &directory, nspawn.id());
        let mut container = Container { directory, nspawn, guard, init: 0 };
        container.init = wait_for(20, "systemd to boot", || container.find_init());
        wait_for(20, "systemd to answer", || {
            let output = container.command(&["systemctl", "is-system-running"]).output().expect("it starts");
            let said = text(&output);
            if said.contains("connect") || said.trim() == "offline" { Err(said) } else { Ok(()) }
        });
        container
    }

    /// The container's first process, as this machine numbers it.
    fn find_init(&self) -> Result<u32, String> {
        let console = || fs::read_to_string(self.directory.join("console")).unwrap_or_default();
        let nspawn = child_of(self.nspawn.id()).ok_or_else(console)?;
        let init = child_of(nspawn).ok_or_else(console)?;
        let name = fs::read_to_string(format!("/proc/{init}/comm")).unwrap_or_default();
        let ready = Path::new(&format!("/proc/{init}/root/run/systemd/private")).exists();
        if name.trim() == "systemd" && ready { Ok(init) } else { Err(console()) }
    }

    /// Its directory on this machine.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file of the container, seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// A command in the container, for at most 40 seconds.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "timeout", "40"]);
        command.args(words).stdin(Stdio::null()).env("LC_ALL", "C").env("SYSTEMD_PAGER", "cat");
        command
    }

    /// Runs a command in the container and returns what it printed. It must succeed.
    pub fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("nsenter starts");
        assert!(output.status.success(), "{words:?}: {}\n{}", text(&output), self.journal());
        String::from_utf8(output.stdout).expect("text")
    }

    /// What the journal has of Baton's units and of systemd about them.
    pub fn journal(&self) -> String {
        let units = ["--unit=baton-hugepages", "--unit=baton-primary", "--unit=baton-sync@0"];
        let words = ["journalctl", "--no-pager", "--quiet", "--utc", "--output=short-iso-precise"];
        let mut command = self.command(&words);
        text(&command.args(units).output().expect("nsenter starts"))
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.run(&["systemctl", "show", "--value", "--property", name, unit]).trim().to_owned()
    }

    /// A property of a unit that is a number: a process, a count, or microseconds since the machine's start.
    pub fn number(&self, unit: &str, name: &str) -> u64 {
        self.property(unit, name).parse().expect("a number")
    }

    /// Waits until a unit is active.
    pub fn wait_active(&self, unit: &str) {
        wait_for(30, &format!("{unit} to be active"), || match self.property(unit, "ActiveState").as_str() {
            "active" => Ok(()),
            other => Err(format!("{other}\n{}", self.journal())),
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() && self.init != 0 {
            eprintln!("{}", self.journal());
        }
        for child in [&mut self.guard, &mut self.nspawn] {
            child.kill().expect("the process is our child");
            child.wait().expect("the process is our child");
        }
        if self.directory.exists() {
            let cleaned = remains::clean(&self.directory);
            assert!(cleaned.is_ok() || std::thread::panicking(), "{cleaned:?}");
        }
    }
}

/// Lays out what the container sees over this machine's root.
fn prepare(directory: &Path, memory_mib: u32) {
    let layer = directory.join("layer");
    for part in ["disk", "run", "units/multi-user.target.wants", "layer/etc"] {
        fs::create_dir_all(directory.join(part)).expect("a directory");
    }
    make("install", &layer, &[]);
    let pages = directory.join("hugepages");
    fs::write(layer.join("etc/baton/baton.ron"), node::config(Path::new("/run/baton"), &pages, memory_mib))
        .expect("the config is writable");
    fs::write(directory.join("host.ron"), node::config(&directory.join("run"), &pages, memory_mib))
        .expect("a file");
    let key = Command::new(built().join("batonctl"))
        .args(["key", "new"])
        .arg(layer.join("etc/baton/sync.key"))
        .output();
    let key = key.expect("batonctl starts");
    assert!(key.status.success(), "{}", text(&key));
    // Another than this machine's, or nspawn takes both for the same.
    fs::write(layer.join("etc/machine-id"), format!("{:032x}\n", std::process::id())).expect("a file");
    // The directory hides this machine's own, and with it what is enabled here.
    let units = directory.join("units");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).expect("a link");
    }
    let target = "/usr/local/lib/systemd/system/baton.target";
    symlink(target, units.join("multi-user.target.wants/baton.target")).expect("a link");
    for unit in ["baton-primary.service", "baton-sync@.service"] {
        let drop_ins = units.join(format!("{unit}.d"));
        fs::create_dir(&drop_ins).expect("a directory");
        fs::write(drop_ins.join("test.conf"), drop_in()).expect("a file");
    }
}

/// A process whose parent is `parent`.
fn child_of(parent: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map(|(_, fields)| fields);
        fields.and_then(|fields| fields.split(' ').nth(1)) == Some(parent.to_string().as_str())
    })
}
