//! The machine that a benchmark ran on: what its speed depends on, and nothing that names it.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine. What the kernel does not tell is "unknown" or zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The CPU's model.
    pub cpu: String,
    /// CPUs that are online.
    pub cores: u32,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The first CPU's caches, for example "L2 2048K".
    pub caches: Vec<String>,
    /// Bytes of a hugepage.
    pub hugepage_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Whether it is a virtual machine, as far as the CPU tells.
    pub virtual_machine: bool,
}

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        Machine {
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            cores: cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1) as u32,
            numa_nodes: count_entries("/sys/devices/system/node", "node").max(1),
            memory_mib: kib(&meminfo, "MemTotal") / 1024,
            caches: caches(),
            hugepage_bytes: kib(&meminfo, "Hugepagesize") * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            virtual_machine: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }

    /// The machine in a sentence.
    pub(super) fn sentence(&self) -> String {
        format!(
            "{} ({} cores, {}, {} NUMA node{}), {} MiB of memory, hugepages of {} KiB, {}Linux {}",
            self.cpu,
            self.cores,
            self.caches.join(", "),
            self.numa_nodes,
            if self.numa_nodes == 1 { "" } else { "s" },
            self.memory_mib,
            self.hugepage_bytes / 1024,
            if self.virtual_machine { "virtual machine, " } else { "" },
            self.kernel,
        )
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first `name : value` of a text.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn kib(meminfo: &str, name: &str) -> u64 {
    field(meminfo, name).and_then(|value| value.trim_end_matches(" kB").trim().parse().ok()).unwrap_or(0)
}

fn count_entries(directory: &str, prefix: &str) -> u32 {
    let numbered = |name: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(numbered)).count() as u32
}

fn caches() -> Vec<String> {
    let directory = Path::new("/sys/devices/system/cpu/cpu0/cache");
    (0..8)
        .map(|index| directory.join(format!("index{index}")))
        .take_while(|cache| cache.exists())
        .map(|cache| {
            let file = |name: &str| read(cache.join(name)).trim().to_owned();
            let kind = match file("type").as_str() {
                "Data" => "d",
                "Instruction" => "i",
                _ => "",
            };
            format!("L{}{kind} {}", file("level"), file("size"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t: 7\nmodel name\t: A CPU\nMemTotal:       2048 kB\n";
        assert_eq!(field(text, "model name"), Some("A CPU"));
        assert_eq!(kib(text, "MemTotal"), 2048);
        assert_eq!(field(text, "name"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let machine = Machine::this();
        assert!(machine.cores >= 1 && machine.memory_mib > 0 && !machine.kernel.is_empty());
    }
}
