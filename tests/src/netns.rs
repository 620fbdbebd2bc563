//! Network namespaces, named as `ip netns` names them.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::command::{ip, run};

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";

/// Makes a namespace and brings its loopback interface up.
///
/// # Errors
/// If a namespace of that name exists, or `ip` fails.
pub fn add(name: &str) -> Result<()> {
    ip(&format!("netns add {name}"))?;
    crate::command::ip_in(name, "link set lo up")?;
    Ok(())
}

/// Deletes a namespace, with all interfaces in it; its processes must be gone.
///
/// # Errors
/// If there is no such namespace, or `ip` fails.
pub fn delete(name: &str) -> Result<()> {
    ip(&format!("netns delete {name}")).map(drop)
}

/// If a namespace of that name exists.
pub fn exists(name: &str) -> bool {
    Path::new(NETNS_DIR).join(name).exists()
}

/// The names of all namespaces that start with `prefix`, sorted.
///
/// # Errors
/// If the directory of names cannot be read.
pub fn with_prefix(prefix: &str) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(NETNS_DIR) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(NETNS_DIR),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// If the calling thread is in a namespace whose name starts with `prefix`.
///
/// # Errors
/// If the thread's namespace or the directory of names cannot be read.
pub fn is_in_one_of(prefix: &str) -> Result<bool> {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new("/proc/thread-self/ns/net")).context("/proc/thread-self/ns/net")?;
    let names = with_prefix(prefix)?;
    // A namespace that is deleted meanwhile is not the thread's own.
    Ok(names.iter().any(|name| identity(&Path::new(NETNS_DIR).join(name)).is_ok_and(|other| other == own)))
}

/// The processes that live in a namespace.
///
/// # Errors
/// If there is no such namespace, or `ip` fails.
pub fn pids(name: &str) -> Result<Vec<u32>> {
    let output = run("ip", &["netns", "pids", name])?;
    Ok(output.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
}

/// Moves the calling thread into a namespace, for good.
///
/// # Errors
/// If there is no such namespace, or the process may not.
pub fn enter(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    let file = File::open(&path).with_context(|| format!("no network namespace {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("cannot enter the network namespace {name}"))
}

/// Runs `work` on a thread of its own inside a namespace. Processes that it starts and sockets that it opens belong
/// to the namespace. Unlike `ip netns exec` this leaves mounts alone, so that a mount made inside is seen by all.
///
/// # Errors
/// If the namespace cannot be entered, or `work` fails.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name)?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread inside the network namespace {name} panicked"),
        }
    })
}
