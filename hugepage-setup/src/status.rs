//! `status`: pages, mount and table files as they are.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use baton_common::config::Config;
use baton_common::files::table_files;
use baton_common::shm::header::{FileKind, LAYOUT_VERSION};
use baton_common::shm::region::Region;
use serde::Serialize;

use crate::inventory::Inventory;
use crate::locks;
use crate::machine::{Machine, PAGE_BYTES, Pages};
use crate::mount::{self, MountState};
use crate::record::Record;
use crate::report::{Report, size};

/// How things are.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Where the mount should be.
    pub hugepages: PathBuf,
    /// What is there.
    pub mount: MountState,
    /// All hugepages of the machine.
    pub pages: Pages,
    /// What `apply` did.
    pub record: Record,
    /// The node's living processes.
    pub processes: Vec<Process>,
    /// The table files, and those that should be there.
    pub files: Vec<FileStatus>,
    /// Pages of DPDK in the mount.
    pub dpdk_pages: usize,
    /// Files in the mount that are not Baton's.
    pub foreign: Vec<PathBuf>,
}

/// A process that holds a lock.
#[derive(Debug, Serialize)]
pub struct Process {
    /// The lock.
    pub lock: PathBuf,
    /// Its pid.
    pub pid: u32,
}

/// A table file.
#[derive(Debug, Serialize)]
pub struct FileStatus {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: String,
    /// Its size. 0 if it is missing.
    pub bytes: u64,
    /// The process that holds its lock now.
    pub holder_pid: Option<u32>,
    /// What its header says, or why it is of no use.
    pub header: HeaderStatus,
}

/// What a header says.
#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum HeaderStatus {
    /// It is good.
    Ready {
        /// The layout version.
        layout_version: u32,
        /// The geometry words.
        geometry: Vec<u64>,
        /// Who held the lock last; 0 if nobody ever did.
        last_holder_pid: u32,
    },
    /// It is missing or bad.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// Looks.
pub fn status(config: &Config, machine: &Machine) -> Result<Status> {
    let hugepages = config.paths.hugepages.clone();
    let mount = mount::state(&hugepages)?;
    let inventory = match mount {
        MountState::Hugetlbfs { .. } => Inventory::of(&hugepages, &config.eal.file_prefix)?,
        _ => Inventory::default(),
    };
    let mut paths: Vec<(FileKind, PathBuf)> =
        table_files(config).iter().map(|file| (file.kind(), file.path(&hugepages))).collect();
    paths.extend(inventory.tables);
    paths.sort_by_key(|(kind, path)| (*kind as u32, path.clone()));
    paths.dedup();
    let processes = locks::process_locks(config)
        .into_iter()
        .filter_map(|lock| locks::holder(&lock).map(|pid| Process { lock, pid }));
    Ok(Status {
        node: config.node.name.clone(),
        pages: machine.pages()?,
        record: Record::load(&config.paths.runtime)?,
        processes: processes.collect(),
        files: paths.iter().map(|(kind, path)| file_status(*kind, path)).collect(),
        dpdk_pages: inventory.dpdk.len(),
        foreign: inventory.foreign,
        hugepages,
        mount,
    })
}

fn file_status(kind: FileKind, path: &Path) -> FileStatus {
    let header = match Region::open_read_only(path, kind) {
        Ok(region) => HeaderStatus::Ready {
            layout_version: LAYOUT_VERSION,
            geometry: region.header().geometry().to_vec(),
            last_holder_pid: region.header().holder_pid(),
        },
        Err(_) if !path.exists() => {
            HeaderStatus::Unusable { reason: "missing: run `baton-hugepages apply`".to_owned() }
        }
        Err(error) => HeaderStatus::Unusable { reason: format!("{:#}", anyhow::Error::from(error)) },
    };
    FileStatus {
        name: path.file_name().unwrap_or_default().display().to_string(),
        kind: kind.to_string(),
        bytes: path.metadata().map_or(0, |metadata| metadata.len()),
        holder_pid: locks::holder(path),
        header,
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let mut text = match &self.mount {
            MountState::Absent => {
                format!("{}: nothing is mounted at {}\n", self.node, self.hugepages.display())
            }
            MountState::Foreign { what } => {
                format!("{}: {} is {what}\n", self.node, self.hugepages.display())
            }
            MountState::Hugetlbfs { size_pages, promised_pages } => format!(
                "{}: hugetlbfs at {}, {} pages, {promised_pages} promised by the kernel\n",
                self.node,
                self.hugepages.display(),
                size_pages.map_or("any number of".to_owned(), |pages| pages.to_string()),
            ),
        };
        for node in &self.pages.nodes {
            let added = self.record.added.get(&node.numa).copied().unwrap_or(0);
            let _ = writeln!(
                text,
                "NUMA node {}: {} pages of 2 MiB, {} free, {} MiB more possible; {added} added by apply",
                node.numa,
                node.total,
                node.free,
                (node.available * PAGE_BYTES) >> 20,
            );
        }
        for file in &self.files {
            let header = match &file.header {
                HeaderStatus::Ready { layout_version, geometry, .. } => {
                    format!("layout {layout_version}, geometry {geometry:?}")
                }
                HeaderStatus::Unusable { reason } => reason.clone(),
            };
            let holder = file.holder_pid.map_or(String::new(), |pid| format!(", held by process {pid}"));
            let _ = writeln!(text, "  {:<14} {:>9}  {header}{holder}", file.name, size(file.bytes));
        }
        for process in &self.processes {
            let _ = writeln!(text, "{} is held by process {}", process.lock.display(), process.pid);
        }
        if self.dpdk_pages > 0 {
            let _ = writeln!(text, "{} pages of DPDK", self.dpdk_pages);
        }
        for path in &self.foreign {
            let _ = writeln!(text, "{} is not Baton's", path.display());
        }
        text
    }
}
