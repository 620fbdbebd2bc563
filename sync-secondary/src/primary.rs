//! The primary, as its secondary sees it: alive or gone.

use std::path::Path;

use anyhow::{Context, bail};
use baton_common::runtime::{self, ProcessWatch};

/// Finds the primary of a runtime directory: the process that holds the lock there.
///
/// # Errors
/// No primary lives.
pub fn find(runtime_dir: &Path) -> anyhow::Result<ProcessWatch> {
    let path = runtime::primary_lock_path(runtime_dir);
    let holder = || runtime::holder(&path).with_context(|| format!("looking who holds {}", path.display()));
    let Some(pid) = holder()? else {
        bail!("no primary runs (nobody holds {}): start baton-primary first", path.display());
    };
    let process = ProcessWatch::open(pid)
        .with_context(|| format!("process {pid}, which {} names as the primary, is gone", path.display()))?;
    // The number may have been another process's by then; the lock says whose it is now.
    if holder()? != Some(pid) {
        bail!("the primary (process {pid}) ended or was replaced just now: start again");
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    fn lock_file(directory: &Path, pid: u32) -> File {
        let mut file = File::create(runtime::primary_lock_path(directory)).unwrap();
        write!(file, "{pid}").unwrap();
        file
    }

    #[test]
    fn a_lock_that_nobody_holds_is_no_primary() {
        let directory = tempfile::tempdir().unwrap();
        let missing = find(directory.path()).err().unwrap().to_string();
        let _file = lock_file(directory.path(), std::process::id());
        let stale = find(directory.path()).err().unwrap().to_string();
        assert!(
            missing.contains("no primary runs") && stale.contains("no primary runs"),
            "{missing}; {stale}"
        );
    }

    #[test]
    fn the_holder_of_the_lock_is_the_primary_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let file = lock_file(directory.path(), child.id());
        flock(&file, FlockOperation::LockExclusive).unwrap();

        let primary = find(directory.path()).unwrap();

        assert_eq!(primary.pid(), child.id());
        assert!(primary.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!primary.lives());
    }
}
