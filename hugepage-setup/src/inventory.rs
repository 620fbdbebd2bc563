//! What lies in the hugetlbfs: Baton's table files, DPDK's left-overs, and what is neither.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use baton_common::shm::header::{FileKind, MAGIC};

/// What a directory holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Files that have the name and the magic number of a table file.
    pub tables: Vec<(FileKind, PathBuf)>,
    /// What a killed `apply` left of a table file.
    pub unfinished: Vec<PathBuf>,
    /// Pages of DPDK with this node's file prefix.
    pub dpdk: Vec<PathBuf>,
    /// Everything else.
    pub foreign: Vec<PathBuf>,
}

impl Inventory {
    /// Looks through `directory`. One that does not exist holds nothing.
    pub fn of(directory: &Path, file_prefix: &str) -> Result<Inventory> {
        let context = || format!("cannot look into {}", directory.display());
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Inventory::default()),
            entries => entries.with_context(context)?,
        };
        let mut inventory = Inventory::default();
        for entry in entries {
            inventory.sort_in(entry.with_context(context)?.path(), file_prefix)?;
        }
        inventory.tables.sort_by_key(|(kind, path)| (*kind as u32, path.clone()));
        for paths in [&mut inventory.unfinished, &mut inventory.dpdk, &mut inventory.foreign] {
            paths.sort();
        }
        Ok(inventory)
    }

    fn sort_in(&mut self, path: PathBuf, file_prefix: &str) -> Result<()> {
        let metadata =
            fs::symlink_metadata(&path).with_context(|| format!("cannot stat {}", path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !metadata.is_file() {
            self.foreign.push(path);
        } else if let Some(kind) = table_kind(name) {
            match magic(&path)? {
                MAGIC => self.tables.push((kind, path)),
                _ => self.foreign.push(path),
            }
        } else if is_unfinished(name) && [0, MAGIC].contains(&magic(&path)?) {
            self.unfinished.push(path);
        } else if is_dpdk_page(name, file_prefix) {
            self.dpdk.push(path);
        } else {
            self.foreign.push(path);
        }
        Ok(())
    }
}

/// The kind of table file that has this name.
fn table_kind(name: &str) -> Option<FileKind> {
    FileKind::ALL.into_iter().find(|kind| {
        let number = name.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(0);
        kind.path(Path::new(""), number).as_os_str() == name
    })
}

/// `.<table file>.new`: the name of a table file while it is being made.
fn is_unfinished(name: &str) -> bool {
    let finished = name.strip_prefix('.').and_then(|name| name.strip_suffix(".new"));
    finished.is_some_and(|name| table_kind(name).is_some())
}

/// `<prefix>map_<number>`: the name of a page of DPDK.
fn is_dpdk_page(name: &str, file_prefix: &str) -> bool {
    let number = name.strip_prefix(file_prefix).and_then(|rest| rest.strip_prefix("map_"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The first eight bytes of a file; zero if it is shorter.
fn magic(path: &Path) -> Result<u64> {
    let mut bytes = [0; 8];
    match File::open(path).and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => Ok(u64::from_ne_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_name_and_magic() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
        let baton = MAGIC.to_ne_bytes();
        for name in ["local-0", "counters", "sync-rx-12", ".remote-1.new", "local-00", "local-x", "mine"] {
            write(name, &baton);
        }
        write("local-1", b"somebody else's");
        write(".local-2.new", &[]);
        write(".local-3.new", b"somebody else's");
        for name in ["batonmap_0", "batonmap_17", "batonmap_x", "othermap_0", "batonmap_"] {
            write(name, &[]);
        }
        fs::create_dir(directory.path().join("local-5")).unwrap();

        let inventory = Inventory::of(directory.path(), "baton").unwrap();
        let names = |paths: &[PathBuf]| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        let (kinds, tables): (Vec<_>, Vec<_>) = inventory.tables.into_iter().unzip();
        assert_eq!(kinds, [FileKind::LocalTable, FileKind::SyncRxRing, FileKind::Counters]);
        assert_eq!(names(&tables), ["local-0", "sync-rx-12", "counters"]);
        assert_eq!(names(&inventory.unfinished), [".local-2.new", ".remote-1.new"]);
        assert_eq!(names(&inventory.dpdk), ["batonmap_0", "batonmap_17"]);
        assert_eq!(
            names(&inventory.foreign),
            [
                ".local-3.new",
                "batonmap_",
                "batonmap_x",
                "local-00",
                "local-1",
                "local-5",
                "local-x",
                "mine",
                "othermap_0"
            ]
        );
    }

    #[test]
    fn a_missing_directory_holds_nothing() {
        assert_eq!(Inventory::of(Path::new("/nonexistent"), "baton").unwrap(), Inventory::default());
    }
}
