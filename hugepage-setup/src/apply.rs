//! `apply`: reserves the pages, mounts, creates the table files. What is there already stays.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use baton_common::config::Config;
use baton_common::shm::region::Region;
use serde::Serialize;

use crate::locks;
use crate::machine::{Machine, PAGE_BYTES};
use crate::mount;
use crate::numa;
use crate::plan::{self, FileAction, FilePlan, Plan};
use crate::record::Record;
use crate::report::{Report, size};
use crate::reserve;

/// What `apply` did.
#[derive(Debug, Serialize)]
pub struct Applied {
    /// The plan that was carried out.
    pub plan: Plan,
}

/// Does what the plan says. The caller holds the machine-wide lock.
pub fn apply(config: &Config, machine: &Machine) -> Result<Applied> {
    let runtime = &config.paths.runtime;
    fs::create_dir_all(runtime).with_context(|| format!("cannot create {}", runtime.display()))?;
    let mut record = Record::load(runtime)?;
    record.settle(machine)?;
    record.save(runtime)?;
    let plan = plan::look(config, machine)?;
    let _processes = match plan.files.iter().any(|file| matches!(file.action, FileAction::Remake { .. })) {
        true => locks::shut_out_processes(config).context("a table file has to be made anew")?,
        false => Vec::new(),
    };
    let added: Vec<(u8, u64)> = plan.numa.iter().map(|numa| (numa.have.numa, numa.add)).collect();
    reserve::add(machine, &mut record, runtime, &added)?;
    if plan.mount {
        let mounted = mount_recorded(&config.paths.hugepages, plan.pages, &mut record, runtime);
        if let Err(error) = mounted {
            reserve::give_back(machine, &mut record, runtime, &added)?;
            return Err(error);
        }
    }
    for file in &plan.files {
        create(file, machine)?;
    }
    Ok(Applied { plan })
}

/// Mounts, and notes it before.
fn mount_recorded(path: &Path, pages: u64, record: &mut Record, runtime: &Path) -> Result<()> {
    let created_directory = !path.exists();
    record.created_directory |= created_directory;
    record.mounted = Some(path.to_owned());
    record.save(runtime)?;
    let mounted = fs::create_dir_all(path)
        .with_context(|| format!("cannot create {}", path.display()))
        .and_then(|()| mount::mount(path, pages));
    if mounted.is_err() {
        if record.created_directory {
            // It may be that not even this was possible.
            let _ = fs::remove_dir(path);
        }
        record.created_directory = false;
        record.mounted = None;
        record.save(runtime)?;
    }
    mounted
}

/// Makes a table file, unless it is to be kept.
fn create(plan: &FilePlan, machine: &Machine) -> Result<()> {
    match plan.action {
        FileAction::Keep => return Ok(()),
        FileAction::Create => {}
        FileAction::Remake { .. } => {
            let _lock = locks::lock(&plan.path)?;
            fs::remove_file(&plan.path).with_context(|| format!("cannot delete {}", plan.path.display()))?;
        }
    }
    let created = numa::run_on(machine, plan.numa, || Region::create(&plan.path, &plan.file.spec).map(drop))?;
    created.with_context(|| format!("making {}", plan.path.display()))
}

impl Report for Applied {
    fn text(&self) -> String {
        let plan = &self.plan;
        if plan.is_done() {
            return format!("{}: everything is there already, nothing was changed", plan.node);
        }
        let added: u64 = plan.numa.iter().map(|numa| numa.add).sum();
        let kept = plan.files.iter().filter(|file| file.action == FileAction::Keep).count();
        format!(
            "{}: {added} pages of 2 MiB added ({}), {} at {}, {} table files created, {kept} kept",
            plan.node,
            size(added * PAGE_BYTES),
            if plan.mount { "hugetlbfs mounted" } else { "hugetlbfs was mounted" },
            plan.hugepages.display(),
            plan.files.len() - kept,
        )
    }
}
