//! A lab's state: one directory, one JSON file in it, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::host::Host;
use crate::impair::Impairment;
use crate::process::{Process, ProcessId};

/// Where labs are unless told otherwise, and where each has its name.
const BASE: &str = "/run/baton-lab";

/// Everything that is known of a lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lab {
    /// Its name: part of the namespaces' names.
    pub name: String,
    /// Its directory: state, configs, logs, sockets, the nodes' memory.
    pub dir: PathBuf,
    /// What it was made with.
    pub shape: Shape,
    /// The process that made or makes it.
    pub creator: ProcessId,
    /// If `up` came to its end.
    pub complete: bool,
    /// The process that the lab must not outlive, if any.
    pub owner: Option<ProcessId>,
    /// Nodes that the router sends nothing to.
    pub withdrawn: BTreeSet<u16>,
    /// Nodes whose sync traffic is impaired.
    pub impaired: BTreeMap<u16, Impairment>,
    /// Every process that was started, by `HOST/ROLE`.
    pub processes: BTreeMap<String, Process>,
}

/// How large a lab is and what runs in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    /// Number of Baton nodes.
    pub nodes: u16,
    /// Number of real servers.
    pub servers: u16,
    /// Number of clients.
    pub clients: u16,
    /// Forwarding workers a node.
    pub workers: u16,
    /// If the nodes tell each other of their sessions.
    pub sync: bool,
    /// If what they tell is authenticated and encrypted.
    pub sealed: bool,
    /// The steering mode, as the config spells it.
    pub steering: String,
    /// If there is a host with MariaDB.
    pub database: bool,
    /// Where Baton's binaries are.
    pub bin_dir: PathBuf,
}

impl Shape {
    /// The node numbers.
    pub fn node_numbers(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.nodes
    }

    /// All hosts, the router first.
    pub fn hosts(&self) -> Vec<Host> {
        let mut hosts = vec![Host::Router];
        hosts.extend((1..=self.nodes).map(Host::Node));
        hosts.extend((1..=self.servers).map(Host::Server));
        hosts.extend((1..=self.clients).map(Host::Client));
        hosts.extend(self.database.then_some(Host::Database));
        hosts
    }
}

impl Lab {
    /// The namespace of a host.
    pub fn netns(&self, host: Host) -> String {
        format!("{}{host}", netns_prefix(&self.name))
    }

    /// The key file of all nodes.
    pub fn key_file(&self) -> PathBuf {
        self.dir.join("sync.key")
    }

    /// The directory of a host's files.
    pub fn host_dir(&self, host: Host) -> PathBuf {
        self.dir.join(host.to_string())
    }

    /// An error unless the lab has this host.
    ///
    /// # Errors
    /// If it has not; the text lists what there is.
    pub fn check_host(&self, host: Host) -> Result<()> {
        let hosts = self.shape.hosts();
        if !hosts.contains(&host) {
            let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
            bail!("lab `{}` has no host {host}; it has {}", self.name, names.join(", "));
        }
        Ok(())
    }

    /// Writes the state as a whole: a reader sees the old or the new one, never a part.
    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_atomically(&self.dir.join("state.json"), &text)
    }

    /// Reads the state of the lab in `dir`.
    ///
    /// # Errors
    /// If there is none, or it cannot be understood.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("state.json");
        let text = std::fs::read(&path).with_context(|| format!("there is no lab in {}", dir.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// If nobody is left who would take this lab down: its owner is gone, or `up` died half-way.
    pub fn is_stale(&self) -> bool {
        let orphaned = self.owner.is_some_and(|owner| !owner.is_alive());
        orphaned || (!self.complete && !self.creator.is_alive())
    }
}

/// What the names of all labs' namespaces start with.
pub const LABS_PREFIX: &str = "baton-";

/// What the names of a lab's namespaces start with.
pub fn netns_prefix(name: &str) -> String {
    format!("{LABS_PREFIX}{name}-")
}

/// An error unless `name` can name a lab: 1 to 12 lower-case letters and digits. No hyphen, so that no lab's prefix is
/// the beginning of another's.
///
/// # Errors
/// If it cannot.
pub fn check_name(name: &str) -> Result<()> {
    let fits =
        (1..=12).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !fits {
        bail!("`{name}` cannot name a lab: 1 to 12 lower-case letters and digits");
    }
    Ok(())
}

/// The entry of lab `name` in the list of labs: its directory or a link to it.
pub fn entry(name: &str) -> PathBuf {
    Path::new(BASE).join(name)
}

/// The directory of lab `name`, wherever it is.
pub fn dir_of(name: &str) -> PathBuf {
    let entry = entry(name);
    std::fs::read_link(&entry).unwrap_or(entry)
}

/// The names of all labs, sorted.
///
/// # Errors
/// If the list cannot be read.
pub fn names() -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(BASE) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(BASE),
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort();
    Ok(names)
}

/// The state file, held for change: nobody else changes it meanwhile. Dropping it without [`save`](Self::save) changes
/// nothing.
pub struct Locked {
    /// The state; changes count once saved.
    pub lab: Lab,
    _lock: File,
}

impl Locked {
    /// Waits for the lock of the lab in `dir`, for 60 s at most, and reads the state.
    ///
    /// # Errors
    /// If there is no lab, or somebody holds the lock for too long.
    pub fn open(dir: &Path) -> Result<Self> {
        let lock = lock(dir)?;
        Ok(Self { lab: Lab::load(dir)?, _lock: lock })
    }

    /// Makes the state file of a new lab, whose directory exists.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn create(lab: Lab) -> Result<Self> {
        let lock = lock(&lab.dir)?;
        if lab.dir.join("state.json").exists() {
            bail!("there is a lab in {} already; take it down first", lab.dir.display());
        }
        lab.save()?;
        Ok(Self { lab, _lock: lock })
    }

    /// Writes the state.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self) -> Result<()> {
        self.lab.save()
    }
}

fn lock(dir: &Path) -> Result<File> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("there is no lab in {}", dir.display()))?;
    let started = Instant::now();
    while let Err(error) = file.try_lock() {
        match error {
            std::fs::TryLockError::WouldBlock if started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::fs::TryLockError::WouldBlock => {
                bail!("another command has held {} for {} s", path.display(), PATIENCE.as_secs())
            }
            std::fs::TryLockError::Error(error) => return Err(error).context(path.display().to_string()),
        }
    }
    Ok(file)
}

/// Replaces the file at `path` as a whole.
///
/// # Errors
/// If it cannot be written.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(dir: &Path) -> Lab {
        let own = ProcessId::own();
        Lab {
            name: "test".into(),
            dir: dir.to_path_buf(),
            shape: Shape {
                nodes: 2,
                servers: 2,
                clients: 1,
                workers: 1,
                sync: true,
                sealed: true,
                steering: "Auto".into(),
                database: true,
                bin_dir: "/usr/sbin".into(),
            },
            creator: own,
            complete: false,
            owner: Some(own),
            withdrawn: BTreeSet::from([2]),
            impaired: BTreeMap::from([(
                1,
                Impairment { loss_percent: 5.5, delay_ms: 3, duplicate_percent: 1.0 },
            )]),
            processes: BTreeMap::from([("n1/primary".into(), Process { id: own, log: dir.join("log") })]),
        }
    }

    #[test]
    fn state_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let written = lab(dir.path());
        drop(Locked::create(written.clone()).unwrap());
        assert_eq!(Lab::load(dir.path()).unwrap(), written);
    }

    #[test]
    fn a_change_that_is_not_saved_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let written = lab(dir.path());
        drop(Locked::create(written.clone()).unwrap());
        let mut locked = Locked::open(dir.path()).unwrap();
        locked.lab.withdrawn.clear();
        drop(locked);
        assert_eq!(Lab::load(dir.path()).unwrap(), written);
    }

    #[test]
    fn a_second_lab_in_the_same_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Locked::create(lab(dir.path())).unwrap());
        let error = Locked::create(lab(dir.path())).map(drop).unwrap_err();
        assert!(error.to_string().contains("take it down first"), "{error}");
    }

    #[test]
    fn a_lab_is_stale_when_its_owner_is_gone_or_up_died_half_way() {
        let gone = ProcessId { pid: std::process::id(), start_ticks: 1 };
        let half_made = lab(Path::new("/nowhere"));
        assert!(!half_made.is_stale());
        assert!(Lab { creator: gone, ..half_made.clone() }.is_stale());
        assert!(!Lab { creator: gone, complete: true, ..half_made.clone() }.is_stale());
        assert!(Lab { owner: Some(gone), complete: true, ..half_made }.is_stale());
    }

    #[test]
    fn no_name_is_the_beginning_of_anothers_prefix() {
        assert!(check_name("lab").is_ok());
        for name in ["", "a-b", "Lab", "a/b", "abcdefghijklm"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
