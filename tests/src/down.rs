//! Takes labs down: whole, half-made or left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::run;
use crate::netns;
use crate::node;
use crate::process::ProcessId;
use crate::state::{self, Lab, Locked};

/// Removes everything that belongs to lab `name`, whatever there is of it; says if there was anything.
///
/// # Errors
/// If something could not be removed; everything else is removed even so, and the error lists the rest.
pub fn down(name: &str) -> Result<bool> {
    state::check_name(name)?;
    let dir = state::dir_of(name);
    let prefix = state::netns_prefix(name);
    let namespaces = netns::with_prefix(&prefix)?;
    if !dir.exists() && namespaces.is_empty() && !state::entry(name).is_symlink() {
        return Ok(false);
    }
    let mut troubles = Vec::new();
    let mut attempt = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            troubles.push(format!("{what}: {error:#}"));
        }
    };
    if let Ok(lab) = Lab::load(&dir) {
        attempt("the process that makes the lab", stop_creator(&lab));
    }
    // Held until the end, so that no other command starts anything meanwhile. A damaged state is no reason to stop.
    let locked = Locked::open(&dir).ok();
    if let Some(locked) = &locked {
        attempt("processes", kill_recorded(&locked.lab));
    }
    for namespace in &namespaces {
        attempt(namespace, kill_inhabitants(namespace));
    }
    if let Some(locked) = &locked {
        for number in locked.lab.shape.node_numbers().filter(|&number| has_memory(&locked.lab, number)) {
            attempt(
                &format!("hugepages of n{number}"),
                node::hugepages(&locked.lab, number, "remove").map(drop),
            );
        }
    }
    attempt("mounts", unmount_below(&dir));
    for namespace in &namespaces {
        attempt(namespace, netns::delete(namespace));
    }
    attempt("files", remove_files(&dir, &state::entry(name)));
    if !troubles.is_empty() {
        bail!("lab `{name}` is not gone for good:\n  {}", troubles.join("\n  "));
    }
    Ok(true)
}

/// Takes down every lab whose owner is gone or whose `up` died half-way; returns their names.
///
/// # Errors
/// If one of them could not be taken down for good.
pub fn down_stale() -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in state::names()? {
        let dir = state::dir_of(&name);
        let stale = match Lab::load(&dir) {
            Ok(lab) => lab.is_stale(),
            // `up` writes the state right after it made the directory; one without it for long is a leftover.
            Err(_) => age(&state::entry(&name)).is_none_or(|age| age > Duration::from_secs(60)),
        };
        if stale && down(&name)? {
            removed.push(name);
        }
    }
    Ok(removed)
}

fn age(path: &Path) -> Option<Duration> {
    std::fs::symlink_metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// If `up` got as far as the node's memory.
fn has_memory(lab: &Lab, node: u16) -> bool {
    node::config_path(lab, node).exists() && lab.shape.bin_dir.join(node::HUGEPAGES).exists()
}

fn stop_creator(lab: &Lab) -> Result<()> {
    if lab.complete || lab.creator == ProcessId::own() {
        return Ok(());
    }
    lab.creator.kill()
}

fn kill_recorded(lab: &Lab) -> Result<()> {
    let own = ProcessId::own();
    let processes: Vec<ProcessId> =
        lab.processes.values().map(|process| process.id).filter(|&id| id != own).collect();
    for process in &processes {
        process.signal(rustix::process::Signal::KILL);
    }
    processes.iter().try_for_each(|process| process.kill())
}

/// Kills every process in a namespace: what `exec` started, and what `up` started but could not note any more. Only
/// `baton-hugepages` is let come to its end.
fn kill_inhabitants(namespace: &str) -> Result<()> {
    const ROUNDS: usize = 20;
    let own = std::process::id();
    for _ in 0..ROUNDS {
        let inhabitants: Vec<ProcessId> =
            netns::pids(namespace)?.into_iter().filter(|&pid| pid != own).filter_map(ProcessId::of).collect();
        if inhabitants.is_empty() {
            return Ok(());
        }
        for process in inhabitants.iter().filter(|process| process.runs(node::HUGEPAGES)) {
            process.wait_gone(node::HUGEPAGES_TIMEOUT);
        }
        inhabitants.iter().try_for_each(|process| process.kill())?;
    }
    bail!("processes appear in it faster than they can be killed")
}

fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let mounts =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(|path| PathBuf::from(unescape(path)));
    let mut below: Vec<PathBuf> = mounts.filter(|path| path.starts_with(dir)).collect();
    // The innermost first.
    below.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    Ok(below)
}

/// The kernel writes spaces and the like as three octal digits.
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

fn unmount_below(dir: &Path) -> Result<()> {
    let dir = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    for mount in mounts_below(&dir)? {
        run("umount", &[&mount.to_string_lossy()])?;
    }
    Ok(())
}

fn remove_files(dir: &Path, entry: &Path) -> Result<()> {
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    if !mounts_below(&real)?.is_empty() {
        bail!("something is still mounted below {}", dir.display());
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    if entry.is_symlink() {
        std::fs::remove_file(entry).with_context(|| format!("cannot remove {}", entry.display()))?;
    }
    // The directory of all labs goes with the last one; an error means that there is another.
    if let Some(base) = entry.parent() {
        std::fs::remove_dir(base).ok();
    }
    Ok(())
}
