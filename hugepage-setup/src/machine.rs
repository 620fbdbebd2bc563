//! The machine: its NUMA nodes, their hugepages and memory, as the kernel shows them in sysfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// Bytes of the pages that Baton uses.
pub const PAGE_BYTES: u64 = 2 << 20;

const POOL: &str = "hugepages/hugepages-2048kB";

/// Where the machine's state is read.
pub struct Machine {
    sys: PathBuf,
    /// The directory of the kernel's memory settings.
    vm: PathBuf,
}

/// The hugepages of one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct NodePages {
    /// The NUMA node.
    pub numa: u8,
    /// Persistent pages in its pool.
    pub total: u64,
    /// Pages of the pool that nobody has, though they may be promised.
    pub free: u64,
    /// Memory that the kernel could turn into pages, in pages: free memory and page cache.
    pub available: u64,
}

/// All hugepages of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pages {
    /// By NUMA node, ascending.
    pub nodes: Vec<NodePages>,
    /// Free pages that the kernel has promised to mounts and mappings. It does not say of which NUMA node.
    pub promised: u64,
}

impl Pages {
    /// The pages of a NUMA node.
    pub fn node(&self, numa: u8) -> Option<&NodePages> {
        self.nodes.iter().find(|node| node.numa == numa)
    }
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        Machine { sys: PathBuf::from("/sys"), vm: PathBuf::from("/proc/sys/vm") }
    }

    /// A machine whose sysfs is another directory.
    #[cfg(test)]
    pub fn at(sys: &Path) -> Machine {
        Machine { sys: sys.to_owned(), vm: sys.join("vm") }
    }

    /// The hugepages as they are now.
    pub fn pages(&self) -> Result<Pages> {
        let global = self.sys.join("kernel/mm").join(POOL);
        if !global.exists() {
            bail!(
                "no {}: this kernel has no 2 MiB hugepages; use one with CONFIG_HUGETLBFS",
                global.display()
            );
        }
        let mut nodes = Vec::new();
        for numa in self.numa_nodes()? {
            let pool = self.node_directory(numa).join(POOL);
            nodes.push(NodePages {
                numa,
                total: self.total(numa)?,
                free: read_number(&pool.join("free_hugepages"))?,
                available: self.available_pages(numa)?,
            });
        }
        Ok(Pages { nodes, promised: read_number(&global.join("resv_hugepages"))? })
    }

    /// The CPUs of a NUMA node.
    pub fn cpus(&self, numa: u8) -> Result<Vec<usize>> {
        let path = self.node_directory(numa).join("cpulist");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        parse_list(&text)
            .with_context(|| format!("{} holds {text:?}, expected a list such as 0-3,8", path.display()))
    }

    /// Persistent pages in a NUMA node's pool: without those that the kernel takes away as soon as they are free.
    pub fn total(&self, numa: u8) -> Result<u64> {
        let pool = self.node_directory(numa).join(POOL);
        let surplus = read_number(&pool.join("surplus_hugepages"))?;
        Ok(read_number(&pool.join("nr_hugepages"))?.saturating_sub(surplus))
    }

    /// Asks the kernel for so many persistent pages in a NUMA node's pool. It may give fewer.
    pub fn set_total(&self, numa: u8, pages: u64) -> Result<()> {
        let path = self.node_directory(numa).join(POOL).join("nr_hugepages");
        fs::write(&path, pages.to_string())
            .with_context(|| format!("cannot write {}: is /sys writable, are you root?", path.display()))
    }

    /// Has the kernel move what lies between free pages.
    pub fn compact_memory(&self) -> Result<()> {
        self.tell_vm("compact_memory")
    }

    /// Has the kernel forget the page cache's clean pages.
    pub fn drop_clean_cache(&self) -> Result<()> {
        self.tell_vm("drop_caches")
    }

    fn tell_vm(&self, setting: &str) -> Result<()> {
        let path = self.vm.join(setting);
        fs::write(&path, "1").with_context(|| format!("cannot write {}", path.display()))
    }

    fn numa_nodes(&self) -> Result<Vec<u8>> {
        let path = self.sys.join("devices/system/node/online");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let nodes = parse_list(&text)
            .and_then(|nodes| nodes.into_iter().map(|node| u8::try_from(node).ok()).collect());
        nodes.with_context(|| format!("{} holds {text:?}, expected a list such as 0-1", path.display()))
    }

    fn node_directory(&self, numa: u8) -> PathBuf {
        self.sys.join(format!("devices/system/node/node{numa}"))
    }

    fn available_pages(&self, numa: u8) -> Result<u64> {
        let path = self.node_directory(numa).join("meminfo");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // "Node 0 MemFree:   123 kB"
        let kib = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.split_whitespace().nth(2) == Some(name));
            line.and_then(|line| line.split_whitespace().nth(3)).and_then(|kib| kib.parse().ok()).unwrap_or(0)
        };
        let available =
            ["MemFree:", "Active(file):", "Inactive(file):", "SReclaimable:"].map(kib).iter().sum::<u64>();
        Ok(available * 1024 / PAGE_BYTES)
    }
}

fn read_number(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds {text:?}, expected a number", path.display()))
}

/// The kernel's list format: `0-3,8`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
pub mod fake {
    //! A sysfs tree in a directory.

    use std::fs;
    use std::path::Path;

    use super::{Machine, PAGE_BYTES, POOL};

    /// Makes the tree of a machine: for each NUMA node its pages in total, free, and available memory in pages.
    pub fn machine(root: &Path, nodes: &[(u64, u64, u64)], promised: u64) -> Machine {
        let write = |path: String, text: String| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(format!("kernel/mm/{POOL}/resv_hugepages"), format!("{promised}\n"));
        write("devices/system/node/online".to_owned(), format!("0-{}\n", nodes.len() - 1));
        for (numa, (total, free, available)) in nodes.iter().enumerate() {
            let node = format!("devices/system/node/node{numa}");
            write(format!("{node}/{POOL}/nr_hugepages"), format!("{total}\n"));
            write(format!("{node}/{POOL}/free_hugepages"), format!("{free}\n"));
            write(format!("{node}/{POOL}/surplus_hugepages"), "0\n".to_owned());
            write(format!("{node}/cpulist"), format!("{}-{}\n", numa * 2, numa * 2 + 1));
            let kib = available * PAGE_BYTES / 1024;
            write(
                format!("{node}/meminfo"),
                format!(
                    "Node {numa} MemTotal:  99999999 kB\nNode {numa} MemFree: {} kB\nNode {numa} Inactive(file): {} kB\n",
                    kib / 2,
                    kib - kib / 2
                ),
            );
        }
        Machine::at(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_read() {
        let root = tempfile::tempdir().unwrap();
        let machine = fake::machine(root.path(), &[(10, 4, 100), (0, 0, 7)], 3);
        let pages = machine.pages().unwrap();
        assert_eq!(pages.promised, 3);
        assert_eq!(pages.nodes[0], NodePages { numa: 0, total: 10, free: 4, available: 100 });
        assert_eq!(pages.node(1), Some(&NodePages { numa: 1, total: 0, free: 0, available: 7 }));
        assert_eq!(machine.cpus(1).unwrap(), [2, 3]);
    }

    #[test]
    fn lists_are_ranges_and_numbers() {
        assert_eq!(parse_list("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        assert_eq!(parse_list("x"), None);
    }

    #[test]
    fn a_kernel_without_hugepages_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = Machine::at(root.path()).pages().unwrap_err();
        assert!(error.to_string().contains("CONFIG_HUGETLBFS"), "{error}");
    }
}
