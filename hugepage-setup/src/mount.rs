//! The hugetlbfs mount: what is mounted at a path, mounting and unmounting.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use serde::Serialize;

use crate::machine::PAGE_BYTES;

/// What is at the place where the mount should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum MountState {
    /// Nothing: no directory, or an empty one.
    Absent,
    /// A hugetlbfs of 2 MiB pages.
    Hugetlbfs {
        /// Most pages that it holds; `None` if it has no limit.
        size_pages: Option<u64>,
        /// Pages that the kernel keeps for it.
        promised_pages: u64,
    },
    /// Something that Baton must not touch.
    Foreign {
        /// What it is.
        what: String,
    },
}

/// What is at `path` now.
pub fn state(path: &Path) -> Result<MountState> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    if let Some(state) = mounted(&mounts, path) {
        return Ok(state);
    }
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(MountState::Absent),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Ok(MountState::Foreign { what: "no directory".to_owned() })
        }
        Err(error) => Err(error).with_context(|| format!("cannot look into {}", path.display())),
        Ok(mut entries) => Ok(match entries.next() {
            None => MountState::Absent,
            Some(entry) => {
                let name = entry.with_context(|| format!("cannot look into {}", path.display()))?.file_name();
                let what = format!("a directory that is not empty (it holds {:?})", name.display());
                MountState::Foreign { what }
            }
        }),
    }
}

/// What `mountinfo` (proc(5)) says is mounted at `path`, topmost.
fn mounted(mountinfo: &str, path: &Path) -> Option<MountState> {
    let line =
        mountinfo.lines().rfind(|line| line.split(' ').nth(4).map(unescape).as_deref() == Some(path))?;
    let mut fields = line.split(" - ").last()?.split(' ');
    let (filesystem, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
    if filesystem != "hugetlbfs" {
        return Some(MountState::Foreign { what: format!("a mounted {filesystem}") });
    }
    let option =
        |name: &str| options.split(',').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    let page_size = option("pagesize").unwrap_or("2M");
    if page_size != "2M" {
        return Some(MountState::Foreign {
            what: format!("a mounted hugetlbfs of {page_size} pages, not of 2M pages"),
        });
    }
    let pages = |name: &str| option(name).and_then(parse_size).map(|bytes| bytes / PAGE_BYTES);
    Some(MountState::Hugetlbfs { size_pages: pages("size"), promised_pages: pages("min_size").unwrap_or(0) })
}

/// A size as the kernel shows it: a number, perhaps with K, M or G.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A path of mountinfo, where blanks and the like stand as `\040`.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Mounts a hugetlbfs that holds `pages` pages and has all of them promised by the kernel, so that nobody else can take
/// them before Baton does.
pub fn mount(path: &Path, pages: u64) -> Result<()> {
    let bytes = pages * PAGE_BYTES;
    let options = format!("pagesize=2M,size={bytes},min_size={bytes},mode=0700");
    let mounted = nix::mount::mount(
        Some("baton"),
        path,
        Some("hugetlbfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some(options.as_str()),
    );
    match mounted {
        Ok(()) => Ok(()),
        Err(Errno::ENOMEM) => bail!(
            "cannot mount a hugetlbfs of {pages} pages at {}: another program took free pages meanwhile; try again",
            path.display()
        ),
        Err(Errno::EPERM) => bail!(
            "no right to mount a hugetlbfs at {}: it takes CAP_SYS_ADMIN, which root in a container may lack",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot mount a hugetlbfs at {}", path.display())),
    }
}

/// Unmounts the hugetlbfs at `path`.
pub fn unmount(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => bail!(
            "{} is in use: a process has a file or directory of it open; `fuser -vm {0}` tells which",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot unmount {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:20 / /sys rw - sysfs sysfs rw
47 27 0:43 / /mnt/a rw,relatime shared:7 - tmpfs none rw
48 27 0:44 / /mnt/a rw,relatime - hugetlbfs baton rw,mode=700,pagesize=2M,size=16777216,min_size=8M
49 27 0:45 / /mnt/with\\040blank rw,relatime - hugetlbfs none rw,pagesize=2M
50 27 0:46 / /mnt/giant rw,relatime - hugetlbfs none rw,pagesize=1024M
";

    #[test]
    fn the_topmost_mount_counts() {
        let expected = MountState::Hugetlbfs { size_pages: Some(8), promised_pages: 4 };
        assert_eq!(mounted(MOUNTS, Path::new("/mnt/a")), Some(expected));
    }

    #[test]
    fn escaped_paths_are_understood() {
        let expected = MountState::Hugetlbfs { size_pages: None, promised_pages: 0 };
        assert_eq!(mounted(MOUNTS, Path::new("/mnt/with blank")), Some(expected));
    }

    #[test]
    fn other_filesystems_and_page_sizes_are_foreign() {
        let what = |path: &str| match mounted(MOUNTS, Path::new(path)) {
            Some(MountState::Foreign { what }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what("/sys"), "a mounted sysfs");
        assert_eq!(what("/mnt/giant"), "a mounted hugetlbfs of 1024M pages, not of 2M pages");
        assert_eq!(mounted(MOUNTS, Path::new("/mnt")), None);
    }

    #[test]
    fn a_directory_may_be_missing_or_empty_but_not_full_or_a_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(state(&root.path().join("missing")).unwrap(), MountState::Absent);
        assert_eq!(state(root.path()).unwrap(), MountState::Absent);
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(state(&file).unwrap(), MountState::Foreign { what: "no directory".to_owned() });
        assert!(
            matches!(state(root.path()).unwrap(), MountState::Foreign { what } if what.contains("\"file\""))
        );
    }
}
