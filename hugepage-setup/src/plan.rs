//! The plan: what the configuration needs, what there is, and what `apply` has to do about the difference.
//!
//! [`look`] gathers the facts, [`decide`] is pure.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use baton_common::config::Config;
use baton_common::files::TableFile;
use baton_common::shm::header::{FileKind, HeaderError};
use baton_common::shm::region::{Region, RegionError};
use serde::Serialize;
use thiserror::Error;

use crate::inventory::Inventory;
use crate::machine::{Machine, NodePages, PAGE_BYTES, Pages};
use crate::mount::{self, MountState};
use crate::need::{Need, NodeNeed};
use crate::report::{Report, size};

/// What `apply` would do.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The node's name.
    pub node: String,
    /// Where the mount is, or is to be.
    pub hugepages: PathBuf,
    /// Whether a hugetlbfs is to be mounted.
    pub mount: bool,
    /// Pages of all NUMA nodes that are needed: the mount's size.
    pub pages: u64,
    /// Free pages that are promised to others, or to this node's mount.
    pub promised: u64,
    /// NUMA nodes that something is needed of.
    pub numa: Vec<NumaPlan>,
    /// The table files.
    pub files: Vec<FilePlan>,
}

/// What is needed of a NUMA node.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct NumaPlan {
    /// What is needed, pages.
    pub need: NodeNeed,
    /// What there is, pages.
    pub have: NodePages,
    /// Pages to add to the pool.
    pub add: u64,
}

/// What is to be done about a table file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FilePlan {
    /// The file.
    pub path: PathBuf,
    /// The NUMA node it should lie on.
    pub numa: u8,
    /// Bytes needed.
    pub bytes: u64,
    /// What is to be done.
    pub action: FileAction,
    /// What it is to be.
    #[serde(skip)]
    pub file: TableFile,
}

/// What is to be done about a table file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// There is none.
    Create,
    /// It is as it should be, and its content stays.
    Keep,
    /// It is Baton's but unusable, for example of an older layout. Its content is lost.
    Remake {
        /// Why.
        reason: String,
    },
}

/// Why `apply` cannot do what is needed.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The configuration names a NUMA node that is not there.
    #[error(
        "the configuration uses NUMA node {numa}, this machine has {present:?}: correct `numa` of the workers and sync \
         domains"
    )]
    NoSuchNuma { numa: u8, present: Vec<u8> },
    /// There is not enough memory.
    #[error(
        "NUMA node {numa} needs {need} pages of 2 MiB, {free} are free and not promised to others; the missing {add} take \
         {} MiB, and {} MiB of memory are available: free memory, or lower `tables` or eal.memory_mib",
        (.add * PAGE_BYTES) >> 20, (.available * PAGE_BYTES) >> 20
    )]
    TooLittleMemory { numa: u8, need: u64, free: u64, add: u64, available: u64 },
    /// There is something else where the mount should be.
    #[error(
        "{} is {what}, expected a hugetlbfs of 2M pages, an empty directory or nothing: name another directory in \
         paths.hugepages", path.display()
    )]
    Occupied { path: PathBuf, what: String },
    /// The mount is there, but too small for what the configuration needs now.
    #[error(
        "the hugetlbfs at {} holds {found} pages, the configuration needs {need}: stop both services, then run \
         `baton-hugepages remove` and `apply`", path.display()
    )]
    MountTooSmall { path: PathBuf, found: u64, need: u64 },
    /// A table file has another size than the configuration says.
    #[error(
        "{} was made for {}, the configuration says {}: stop both services, then run `baton-hugepages remove` \
         and `apply` (all sessions are lost), or change `tables` back",
        path.display(), describe_geometry(*kind, found), describe_geometry(*kind, expected)
    )]
    Geometry { path: PathBuf, kind: FileKind, found: Vec<u64>, expected: Vec<u64> },
    /// There is a file of a table's name that is not Baton's, or cannot be read.
    #[error("{} cannot be used", path.display())]
    UnusableFile { path: PathBuf, source: RegionError },
}

/// The words that a kind's geometry begins with.
fn describe_geometry(kind: FileKind, geometry: &[u64]) -> String {
    let names: &[&str] = match kind {
        FileKind::LocalTable | FileKind::RemoteTable => &["sessions"],
        FileKind::EventRing | FileKind::SyncRxRing | FileKind::SyncTxRing => &["slots", "bytes each"],
        FileKind::Counters => &["workers", "sync domains"],
        FileKind::SyncState => &["senders", "streams each", "words of the retransmission ring"],
    };
    let words: Vec<_> = geometry.iter().zip(names).map(|(value, name)| format!("{value} {name}")).collect();
    words.join(" and ")
}

/// What was found on the machine.
pub struct Facts {
    /// All hugepages.
    pub pages: Pages,
    /// What is at `paths.hugepages`.
    pub mount: MountState,
    /// What is to be done about each file of the need, in its order.
    pub actions: Vec<FileAction>,
    /// Pages that DPDK has of this node's mount.
    pub dpdk_pages: u64,
}

/// Gathers the facts and decides.
pub fn look(config: &Config, machine: &Machine) -> Result<Plan> {
    let need = Need::of(config);
    let directory = &config.paths.hugepages;
    let mount = mount::state(directory)?;
    let (mut actions, mut dpdk_pages) = (vec![FileAction::Create; need.files.len()], 0);
    if matches!(mount, MountState::Hugetlbfs { .. }) {
        actions = need.files.iter().map(|file| examine(file, directory)).collect::<Result<_, _>>()?;
        dpdk_pages = Inventory::of(directory, &config.eal.file_prefix)?.dpdk.len() as u64;
    }
    let facts = Facts { pages: machine.pages()?, mount, actions, dpdk_pages };
    Ok(decide(config, need, facts)?)
}

/// What is to be done about a table file in a mounted directory.
pub fn examine(file: &TableFile, directory: &Path) -> Result<FileAction, PlanError> {
    let path = file.path(directory);
    match Region::open_read_only(&path, file.kind()) {
        Ok(region) => {
            let found = region.header().geometry();
            if found == file.spec.geometry && region.bytes() >= file.spec.bytes {
                return Ok(FileAction::Keep);
            }
            let (kind, expected) = (file.kind(), file.spec.geometry.to_vec());
            Err(PlanError::Geometry { path, kind, found: found.to_vec(), expected })
        }
        Err(RegionError::Open { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(FileAction::Create)
        }
        Err(RegionError::Header { mismatch, .. })
            if !matches!(mismatch, HeaderError::Magic { .. } | HeaderError::TooShort { .. }) =>
        {
            Ok(FileAction::Remake { reason: mismatch.to_string() })
        }
        Err(source) => Err(PlanError::UnusableFile { path, source }),
    }
}

/// Decides what is to be done.
pub fn decide(config: &Config, need: Need, facts: Facts) -> Result<Plan, PlanError> {
    let hugepages = config.paths.hugepages.clone();
    let pages = need.pages();
    let kept_for_us = match facts.mount {
        MountState::Foreign { what } => return Err(PlanError::Occupied { path: hugepages, what }),
        MountState::Absent => false,
        MountState::Hugetlbfs { size_pages, promised_pages } => {
            let found = size_pages.unwrap_or(u64::MAX);
            if found < pages {
                return Err(PlanError::MountTooSmall { path: hugepages, found, need: pages });
            }
            promised_pages >= pages
        }
    };
    let held =
        if kept_for_us { BTreeMap::new() } else { held_pages(&need, &facts.actions, facts.dpdk_pages) };
    let mut numa = Vec::new();
    for (node, node_need) in &need.nodes {
        let present = || facts.pages.nodes.iter().map(|node| node.numa).collect();
        let have = *facts
            .pages
            .node(*node)
            .ok_or_else(|| PlanError::NoSuchNuma { numa: *node, present: present() })?;
        // The kernel does not say on which NUMA node the promised pages are: here, all of them.
        let free = have.free.saturating_sub(facts.pages.promised);
        let missing = node_need.pages().saturating_sub(held.get(node).copied().unwrap_or(0) + free);
        let add = if kept_for_us { 0 } else { missing };
        if add > have.available {
            let (need, available) = (node_need.pages(), have.available);
            return Err(PlanError::TooLittleMemory { numa: *node, need, free, add, available });
        }
        numa.push(NumaPlan { need: *node_need, have, add });
    }
    let files = need.files.iter().zip(facts.actions).map(|(file, action)| FilePlan {
        path: file.path(&hugepages),
        numa: file.numa.0,
        bytes: file.spec.bytes,
        action,
        file: *file,
    });
    Ok(Plan {
        node: config.node.name.clone(),
        mount: facts.mount == MountState::Absent,
        pages,
        promised: facts.pages.promised,
        numa,
        files: files.collect(),
        hugepages,
    })
}

/// Pages of each NUMA node that this node's files have already, in a mount that the kernel keeps nothing for.
fn held_pages(need: &Need, actions: &[FileAction], dpdk_pages: u64) -> BTreeMap<u8, u64> {
    let mut held = BTreeMap::new();
    for (file, _) in need.files.iter().zip(actions).filter(|(_, action)| **action != FileAction::Create) {
        *held.entry(file.numa.0).or_default() += file.pages(PAGE_BYTES);
    }
    let mut rest = dpdk_pages;
    for (numa, node) in &need.nodes {
        let here = rest.min(node.dpdk);
        *held.entry(*numa).or_default() += here;
        rest -= here;
    }
    held
}

impl Plan {
    /// Whether `apply` would change anything.
    pub fn is_done(&self) -> bool {
        !self.mount
            && self.numa.iter().all(|numa| numa.add == 0)
            && self.files.iter().all(|file| file.action == FileAction::Keep)
    }
}

impl Report for Plan {
    fn text(&self) -> String {
        let mut text = format!(
            "{}: needs {} pages of 2 MiB ({})\n",
            self.node,
            self.pages,
            size(self.pages * PAGE_BYTES)
        );
        for NumaPlan { need, have, add } in &self.numa {
            let _ = writeln!(
                text,
                "NUMA node {}: needs {} ({} for DPDK, {} for tables); pool {}, free {}, promised {}; apply adds {add} ({} of {} available)",
                have.numa,
                need.pages(),
                need.dpdk,
                need.files,
                have.total,
                have.free,
                self.promised.min(have.free),
                size(add * PAGE_BYTES),
                size(have.available * PAGE_BYTES),
            );
        }
        let verb = if self.mount { "apply mounts a hugetlbfs" } else { "hugetlbfs is mounted" };
        let _ = writeln!(text, "{verb} at {}", self.hugepages.display());
        for FilePlan { path, numa, bytes, action, .. } in &self.files {
            let name = path.file_name().unwrap_or_default().display().to_string();
            let action = match action {
                FileAction::Create => "apply creates it".to_owned(),
                FileAction::Keep => "is there, stays".to_owned(),
                FileAction::Remake { reason } => format!("apply makes it anew: {reason}"),
            };
            let _ = writeln!(text, "  {name:<14} NUMA node {numa}  {:>9}  {action}", size(*bytes));
        }
        if self.is_done() {
            text.push_str("nothing to do\n");
        }
        text
    }
}

#[cfg(test)]
mod tests;
