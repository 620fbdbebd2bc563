//! Hugepages for the time of a benchmark: borrowed from the kernel, mounted where nobody else sees them, given back.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// Bytes of the pages that are used.
pub const PAGE_BYTES: u64 = 2 << 20;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// How often the kernel is asked again, after it put free memory together and forgot clean page cache.
const ATTEMPTS: usize = 4;

/// Pages that were added to the kernel's pool. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    added: u64,
}

impl Reservation {
    /// No pages yet.
    pub fn none() -> Reservation {
        Reservation { added: 0 }
    }

    /// Sees to it that `pages` pages are free, or as many as the kernel has; [`free`] tells how many. Only as many are added
    /// as are missing, and only those are given back, so that others may borrow and return pages meanwhile.
    ///
    /// # Errors
    /// Not root, or a kernel without hugepages.
    pub fn fill(&mut self, pages: u64) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // It helps or it does not: the number of pages tells.
                let _ = fs::write("/proc/sys/vm/drop_caches", "1");
                let _ = fs::write("/proc/sys/vm/compact_memory", "1");
            }
            let missing = pages.saturating_sub(free()?);
            if missing == 0 {
                break;
            }
            let before = number("nr_hugepages")?;
            set_total(before + missing)?;
            self.added += number("nr_hugepages")?.saturating_sub(before);
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.added == 0 {
            return;
        }
        let given = number("nr_hugepages").and_then(|total| set_total(total.saturating_sub(self.added)));
        if let Err(error) = given {
            eprintln!("{} hugepages could not be given back: {error:#}", self.added);
        }
    }
}

/// Free pages that the kernel has promised to nobody.
///
/// # Errors
/// A kernel without hugepages.
pub fn free() -> Result<u64> {
    Ok(number("free_hugepages")?.saturating_sub(number("resv_hugepages")?))
}

fn number(file: &str) -> Result<u64> {
    let path = Path::new(POOL).join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds {text:?}, expected a number", path.display()))
}

fn set_total(pages: u64) -> Result<()> {
    let path = Path::new(POOL).join("nr_hugepages");
    fs::write(&path, pages.to_string())
        .with_context(|| format!("cannot write {}: are you root?", path.display()))
}

/// A hugetlbfs mount of this process and its children alone. Dropping it takes it away; so does the end of the last
/// process in its mount namespace, however that comes.
#[derive(Debug)]
pub struct Mount {
    directory: TempDir,
}

impl Mount {
    /// Makes a mount namespace for the calling process, which must have one thread still, and mounts a hugetlbfs in it.
    ///
    /// # Errors
    /// Not root, or no directory can be made.
    pub fn of_our_own() -> Result<Mount> {
        unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace: are you root?")?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context("cannot keep mounts to ourselves")?;
        let directory = tempfile::Builder::new().prefix("baton-bench-").tempdir()?;
        mount(
            Some("baton-bench"),
            directory.path(),
            Some("hugetlbfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
            Some("pagesize=2M,mode=0700"),
        )
        .with_context(|| format!("cannot mount a hugetlbfs at {}", directory.path().display()))?;
        Ok(Mount { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Deletes every file in it.
    ///
    /// # Errors
    /// A file cannot be deleted.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(self.path())? {
            let path: PathBuf = entry?.path();
            fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.path(), MntFlags::MNT_DETACH) {
            eprintln!("cannot unmount {}: {error}", self.path().display());
        }
    }
}
