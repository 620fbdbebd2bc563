//! Makes a lab.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use baton_common::config::KeyFile;

use crate::down;
use crate::host::{COUNT_MAX, Host};
use crate::netns;
use crate::node::{self, Role};
use crate::process::{ProcessId, spawn};
use crate::routes;
use crate::server;
use crate::state::{self, Lab, Locked, Shape};
use crate::topology;

/// Port queues that a tap's processes can share in DPDK 22.11; with more the primary aborts.
const QUEUES_MAX: u16 = 4;

/// What `up` is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where the lab keeps its state; by default a directory of its name in /run/baton-lab
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Number of Baton nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=i64::from(COUNT_MAX)))]
    pub nodes: u16,
    /// Number of real servers, each with nginx and a UDP echo server
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=i64::from(COUNT_MAX)))]
    pub servers: u16,
    /// Number of clients
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(COUNT_MAX)))]
    pub clients: u16,
    /// Forwarding workers a node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(QUEUES_MAX - 1)))]
    pub workers: u16,
    /// Do not synchronise sessions
    #[arg(long)]
    pub no_sync: bool,
    /// Do not authenticate and encrypt what is synchronised
    #[arg(long)]
    pub no_seal: bool,
    /// How packets are brought to their worker and to the secondary
    #[arg(long, default_value = "Auto", value_parser = ["Auto", "TapBpf", "Software", "RteFlow"])]
    pub steering: String,
    /// Add a host `db` that runs MariaDB
    #[arg(long)]
    pub database: bool,
    /// Where Baton's binaries are; by default beside this one
    #[arg(long)]
    pub bin_dir: Option<PathBuf>,
    /// Make everything but start none of Baton's processes; `start` does that later
    #[arg(long)]
    pub no_baton: bool,
    /// Take the lab down by itself when the process with this number is gone
    #[arg(long, value_name = "PID")]
    pub owner: Option<u32>,
    /// Start only so many of the nodes: the others are members that are not there yet, and withdrawn
    #[arg(long, value_name = "N")]
    pub present: Option<u16>,
    /// Leave a lab that could not be made as it is, for a look at it
    #[arg(long)]
    pub keep: bool,
}

/// Makes a lab; one that cannot be made whole is taken down again, unless it is to be kept.
///
/// # Errors
/// If the lab exists or something does not start.
pub fn up(name: &str, arguments: &Arguments) -> Result<()> {
    state::check_name(name)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and hugepages need root");
    }
    let lab = describe(name, arguments)?;
    let dir = lab.dir.clone();
    claim(name, lab)?;
    let present = match arguments.no_baton {
        true => 0,
        false => arguments.present.unwrap_or(arguments.nodes).min(arguments.nodes),
    };
    let made = make(&dir, present);
    if made.is_err() && !arguments.keep {
        crate::signals::clear();
        if let Err(error) = down::down(name) {
            eprintln!("baton-lab: could not take the half-made lab down: {error:#}");
        }
    }
    made
}

fn describe(name: &str, arguments: &Arguments) -> Result<Lab> {
    let bin_dir = match &arguments.bin_dir {
        Some(dir) => std::path::absolute(dir)?,
        None => std::env::current_exe()?.parent().context("this program has no directory")?.to_path_buf(),
    };
    let owner = match arguments.owner {
        Some(pid) => {
            Some(ProcessId::of(pid).with_context(|| format!("there is no process {pid} to own the lab"))?)
        }
        None => None,
    };
    Ok(Lab {
        name: name.to_owned(),
        dir: match &arguments.dir {
            Some(dir) => std::path::absolute(dir)?,
            None => state::entry(name),
        },
        shape: Shape {
            nodes: arguments.nodes,
            servers: arguments.servers,
            clients: arguments.clients,
            workers: arguments.workers,
            sync: !arguments.no_sync,
            sealed: !arguments.no_seal,
            steering: arguments.steering.clone(),
            database: arguments.database,
            bin_dir,
        },
        creator: ProcessId::own(),
        complete: false,
        owner,
        withdrawn: BTreeSet::new(),
        impaired: BTreeMap::new(),
        processes: BTreeMap::new(),
    })
}

/// Takes the name and the directory, so that from here on `down` finds everything.
fn claim(name: &str, lab: Lab) -> Result<()> {
    let entry = state::entry(name);
    let taken = || format!("a lab `{name}` exists; `baton-lab down --name {name}` takes it down");
    if !netns::with_prefix(&state::netns_prefix(name))?.is_empty() {
        bail!(taken());
    }
    std::fs::create_dir_all(entry.parent().context("labs have no directory")?)?;
    if lab.dir == entry {
        std::fs::create_dir(&entry).with_context(taken)?;
    } else {
        std::fs::create_dir_all(&lab.dir).with_context(|| format!("cannot make {}", lab.dir.display()))?;
        if std::fs::read_dir(&lab.dir)?.next().is_some() {
            bail!("{} is not empty", lab.dir.display());
        }
        std::os::unix::fs::symlink(&lab.dir, &entry).with_context(taken)?;
    }
    let mut locked = Locked::create(lab)?;
    if locked.lab.owner.is_some() {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--name", name, "guard"]);
        let log = locked.lab.dir.join("guard.log");
        let (_, process) = spawn(command, &log)?;
        locked.lab.processes.insert("guard".into(), process);
        locked.save()?;
    }
    Ok(())
}

fn make(dir: &std::path::Path, present: u16) -> Result<()> {
    let lab = Lab::load(dir)?;
    for host in lab.shape.hosts() {
        std::fs::create_dir_all(lab.host_dir(host))?;
    }
    if present > 0 {
        for name in ["baton-hugepages", "baton-primary", "baton-sync"] {
            node::binary(&lab, name)?;
        }
    }
    topology::build(&lab)?;
    routes::apply(&lab)?;
    // MariaDB takes seconds to make its tables; the rest need not wait for that.
    std::thread::scope(|scope| {
        let database =
            lab.shape.database.then(|| scope.spawn(|| server::start_mariadb(&lab, Host::Database)));
        let rest = servers(&lab, dir).and_then(|()| nodes(&lab, dir, present));
        let database = database.map(|thread| thread.join());
        rest?;
        match database {
            None => Ok(()),
            Some(Ok(process)) => record(dir, Host::Database, "mariadb", process?),
            Some(Err(_)) => bail!("the thread that starts MariaDB panicked"),
        }
    })?;
    let mut locked = Locked::open(dir)?;
    locked.lab.complete = true;
    locked.save()
}

fn servers(lab: &Lab, dir: &std::path::Path) -> Result<()> {
    for host in (1..=lab.shape.servers).map(Host::Server) {
        record(dir, host, "nginx", server::start_nginx(lab, host)?)?;
        record(dir, host, "echo", server::start_echo(lab, host)?)?;
    }
    Ok(())
}

fn record(dir: &std::path::Path, host: Host, role: &str, process: crate::process::Process) -> Result<()> {
    let mut locked = Locked::open(dir)?;
    locked.lab.processes.insert(format!("{host}/{role}"), process);
    locked.save()
}

fn nodes(lab: &Lab, dir: &std::path::Path, present: u16) -> Result<()> {
    if lab.shape.sealed {
        KeyFile::generate()?.create(&lab.key_file())?;
    }
    for number in lab.shape.node_numbers() {
        node::write_config(lab, number)?;
        if number > present {
            continue;
        }
        node::hugepages(lab, number, "apply").with_context(|| format!("hugepages of n{number}"))?;
        for &role in Role::of(lab) {
            node::start(dir, number, role)?;
        }
    }
    let absent: BTreeSet<u16> = lab.shape.node_numbers().filter(|&number| number > present).collect();
    for number in lab.shape.node_numbers().take(present.into()) {
        if lab.shape.sync && !absent.is_empty() {
            node::accept_absence(lab, number)?;
        }
        node::wait_until_in_sync(lab, number)?;
    }
    if present > 0 && !absent.is_empty() {
        routes::withdraw(&mut Locked::open(dir)?, absent)?;
    }
    Ok(())
}
