//! Memory: what a process has, and what the machine has left.

use std::fs;

use anyhow::{Context, Result};

/// What the calling process has, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Anonymous memory that is resident: heap and stacks.
    pub anonymous: u64,
    /// Hugepages of hugetlbfs that are mapped and were touched.
    pub hugepages: u64,
}

impl Footprint {
    /// Now.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn now() -> Result<Footprint> {
        let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
        Ok(Footprint { anonymous: bytes(&status, "RssAnon:")?, hugepages: bytes(&status, "HugetlbPages:")? })
    }
}

/// Bytes of memory that can be had without swapping, hugepages not counted.
///
/// # Errors
/// The kernel does not tell.
pub fn available() -> Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    bytes(&meminfo, "MemAvailable:")
}

/// The value of a line `Name:   123 kB`.
fn bytes(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.with_context(|| format!("the kernel shows no {name}"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_the_machine_has_more() {
        assert!(Footprint::now().unwrap().anonymous > 0);
        assert!(available().unwrap() > 0);
    }

    #[test]
    fn a_value_is_in_kib() {
        assert_eq!(bytes("A:\t  3 kB\nB: 5 kB\n", "B:").unwrap(), 5120);
        assert!(bytes("A: 3 kB\n", "C:").is_err());
    }
}
