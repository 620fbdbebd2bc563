//! `remove`: deletes the table files, unmounts, gives the pages back. Touches nothing that `apply`, the primary or a
//! secondary did not make.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use baton_common::config::Config;
use serde::Serialize;

use crate::inventory::Inventory;
use crate::locks;
use crate::machine::{Machine, PAGE_BYTES};
use crate::mount::{self, MountState};
use crate::record::Record;
use crate::report::{Report, size};
use crate::reserve;

/// What `remove` did.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// The node's name.
    pub node: String,
    /// Table files deleted.
    pub files: Vec<PathBuf>,
    /// Pages of DPDK's deleted.
    pub dpdk_pages: usize,
    /// The mount that was taken away.
    pub unmounted: Option<PathBuf>,
    /// Pages given back, by NUMA node.
    pub given_back: Vec<(u8, u64)>,
}

/// Takes away what `apply` made. The caller holds the machine-wide lock.
pub fn remove(config: &Config, machine: &Machine) -> Result<Removed> {
    let runtime = &config.paths.runtime;
    let mut removed = Removed { node: config.node.name.clone(), ..Removed::default() };
    let _processes = locks::shut_out_processes(config)?;
    let mut record = Record::load(runtime)?;
    record.settle(machine)?;
    let foreign = delete_files(config, &mut removed)?;
    unmount(config, &mut record, &foreign, &mut removed)?;
    let added: Vec<(u8, u64)> = record.added.iter().map(|(numa, pages)| (*numa, *pages)).collect();
    reserve::give_back(machine, &mut record, runtime, &added)?;
    removed.given_back = added;
    if runtime.exists() {
        record.save(runtime)?;
    }
    Ok(removed)
}

/// Deletes what is Baton's in the mount, if nobody holds it; returns what is not Baton's.
fn delete_files(config: &Config, removed: &mut Removed) -> Result<Vec<PathBuf>> {
    let directory = &config.paths.hugepages;
    if !matches!(mount::state(directory)?, MountState::Hugetlbfs { .. }) {
        return Ok(Vec::new());
    }
    let inventory = Inventory::of(directory, &config.eal.file_prefix)?;
    let files: Vec<PathBuf> =
        inventory.tables.into_iter().map(|(_, path)| path).chain(inventory.unfinished).collect();
    // EAL holds a lock on each of its pages, too.
    for path in files.iter().chain(&inventory.dpdk) {
        locks::lock(path)?;
    }
    for path in files.iter().chain(&inventory.dpdk) {
        fs::remove_file(path).with_context(|| format!("cannot delete {}", path.display()))?;
    }
    removed.files = files;
    removed.dpdk_pages = inventory.dpdk.len();
    Ok(inventory.foreign)
}

/// Takes the mount away if `apply` made it. Files of others would be lost with it, so with such it stays.
fn unmount(config: &Config, record: &mut Record, foreign: &[PathBuf], removed: &mut Removed) -> Result<()> {
    let directory = &config.paths.hugepages;
    let Some(mounted) = record.mounted.clone() else { return Ok(()) };
    if mounted != *directory {
        bail!(
            "{} was mounted for this node, paths.hugepages is {} now: change it back, remove, then change it again",
            mounted.display(),
            directory.display()
        );
    }
    if let Some(path) = foreign.first() {
        bail!(
            "{} files of Baton's were deleted, but {} is not Baton's: mount and pages are kept; move it away, then run \
             `baton-hugepages remove` again",
            removed.files.len(),
            path.display()
        );
    }
    if matches!(mount::state(directory)?, MountState::Hugetlbfs { .. }) {
        mount::unmount(directory)?;
        removed.unmounted = Some(directory.clone());
    }
    if record.created_directory {
        // Somebody may have put something there meanwhile: then it stays.
        let _ = fs::remove_dir(directory);
    }
    record.mounted = None;
    record.created_directory = false;
    record.save(&config.paths.runtime)
}

impl Report for Removed {
    fn text(&self) -> String {
        let pages: u64 = self.given_back.iter().map(|(_, pages)| pages).sum();
        let mount = match &self.unmounted {
            Some(path) => format!("{} unmounted", path.display()),
            None => "no mount of ours".to_owned(),
        };
        format!(
            "{}: {} table files and {} pages of DPDK deleted, {mount}, {pages} pages of 2 MiB given back ({})",
            self.node,
            self.files.len(),
            self.dpdk_pages,
            size(pages * PAGE_BYTES),
        )
    }
}
