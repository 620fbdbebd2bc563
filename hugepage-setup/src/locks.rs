//! Locks: one command at a time on the machine, and none that takes files away from a living process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use baton_common::config::Config;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

/// Whoever changes the machine's hugepages holds this, on behalf of whichever node.
const MACHINE_LOCK: &str = "/run/lock/baton-hugepages.lock";

/// Longest wait for another command.
const MACHINE_LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Takes the machine-wide lock until the file is dropped.
pub fn machine_lock() -> Result<File> {
    let context = || format!("cannot lock {MACHINE_LOCK}");
    fs::create_dir_all(Path::new(MACHINE_LOCK).parent().unwrap_or(Path::new("/"))).with_context(context)?;
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = file.open(MACHINE_LOCK).with_context(context)?;
    let begin = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if begin.elapsed() < MACHINE_LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::WOULDBLOCK) => bail!(
                "another baton-hugepages has worked for more than {} s: see what it does, then try again",
                MACHINE_LOCK_PATIENCE.as_secs()
            ),
            Err(error) => return Err(error).with_context(context),
        }
    }
}

/// The locks that the processes of a node hold while they live: the primary's, then one for each sync secondary.
pub fn process_locks(config: &Config) -> Vec<PathBuf> {
    let runtime = &config.paths.runtime;
    let secondaries =
        config.sync.domains.iter().map(|domain| runtime.join(format!("sync-{}.lock", domain.numa)));
    [runtime.join("primary.lock")].into_iter().chain(secondaries).collect()
}

/// Takes the locks of all of a node's processes, so that none of them runs and none can start while the result lives.
///
/// # Errors
/// A process holds one of them. Its pid is named if it can be found out.
pub fn shut_out_processes(config: &Config) -> Result<Vec<File>> {
    process_locks(config).into_iter().filter_map(|path| lock(&path).transpose()).collect()
}

/// Takes the exclusive lock of a file until the result is dropped; of a file that does not exist there is none to take.
///
/// # Errors
/// A process holds it. Its pid is named if it can be found out.
pub fn lock(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.with_context(|| format!("cannot open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => {
            let holder = holder(path).map_or("a process".to_owned(), |pid| format!("process {pid}"));
            bail!(
                "{} is held by {holder}: stop it first (`systemctl stop baton-primary` stops the secondaries too)",
                path.display()
            );
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The process that holds the lock on a file, from /proc/locks (proc(5)): unlike trying to take the lock, looking there
/// disturbs nobody.
pub fn holder(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    holder_in(&fs::read_to_string("/proc/locks").ok()?, metadata.dev(), metadata.ino())
}

fn holder_in(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let file = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    // "1: FLOCK  ADVISORY  WRITE 123 00:1a:456 0 EOF"; who waits for a lock has "->" as second field.
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, pid, found, ..] if *found == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_common::config::SAMPLE;

    fn config(runtime: &Path) -> Config {
        let mut config = Config::parse(SAMPLE, "sample").unwrap();
        config.paths.runtime = runtime.to_owned();
        config
    }

    #[test]
    fn the_holder_of_a_lock_is_found_and_a_waiter_is_not() {
        let locks = "1: -> FLOCK  ADVISORY  WRITE 7 00:1a:456 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 8 00:1a:456 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1a:456 0 EOF\n";
        assert_eq!(holder_in(locks, rustix::fs::makedev(0, 0x1a), 456), Some(9));
        assert_eq!(holder_in(locks, rustix::fs::makedev(0, 0x1b), 456), None);
    }

    #[test]
    fn nobody_is_shut_out_who_holds_a_lock() {
        let runtime = tempfile::tempdir().unwrap();
        let path = runtime.path().join("primary.lock");
        let held = File::create(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let config = config(runtime.path());
        let error = shut_out_processes(&config).unwrap_err().to_string();
        assert!(
            error.contains(&format!("primary.lock is held by process {}", std::process::id())),
            "{error}"
        );
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(held);
        assert_eq!(shut_out_processes(&config).unwrap().len(), 1);
    }

    #[test]
    fn locks_of_processes_that_never_ran_do_not_matter() {
        let runtime = tempfile::tempdir().unwrap();
        let config = config(runtime.path());
        assert_eq!(process_locks(&config).len(), 2);
        assert!(shut_out_processes(&config).unwrap().is_empty());
        assert!(lock(&runtime.path().join("local-0")).unwrap().is_none());
    }
}
