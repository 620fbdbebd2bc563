//! What a configuration needs: pages for DPDK and for each table file, on each NUMA node.

use std::collections::BTreeMap;

use baton_common::config::Config;
use baton_common::files::{TableFile, table_files};
use serde::Serialize;

use crate::machine::PAGE_BYTES;

/// Pages that one NUMA node must give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeNeed {
    /// For DPDK's own memory.
    pub dpdk: u64,
    /// For table files.
    pub files: u64,
}

impl NodeNeed {
    /// Both together.
    pub fn pages(&self) -> u64 {
        self.dpdk + self.files
    }
}

/// What a configuration needs.
pub struct Need {
    /// By NUMA node.
    pub nodes: BTreeMap<u8, NodeNeed>,
    /// The table files.
    pub files: Vec<TableFile>,
}

impl Need {
    /// What `config` needs.
    pub fn of(config: &Config) -> Need {
        let mut nodes: BTreeMap<u8, NodeNeed> = BTreeMap::new();
        for (numa, pages) in dpdk_pages(config) {
            nodes.entry(numa).or_default().dpdk = pages;
        }
        let files = table_files(config);
        for file in &files {
            nodes.entry(file.numa.0).or_default().files += file.pages(PAGE_BYTES);
        }
        Need { nodes, files }
    }

    /// Pages of all NUMA nodes together.
    pub fn pages(&self) -> u64 {
        self.nodes.values().map(NodeNeed::pages).sum()
    }
}

/// EAL spreads `-m` over the NUMA nodes in proportion to the lcores on each. Rounded up for each.
fn dpdk_pages(config: &Config) -> BTreeMap<u8, u64> {
    let pages = (u64::from(config.eal.memory_mib) << 20).div_ceil(PAGE_BYTES);
    let mut lcores: BTreeMap<u8, u64> = BTreeMap::new();
    for worker in &config.workers {
        *lcores.entry(worker.numa.0).or_default() += 1;
    }
    let all = config.workers.len() as u64;
    lcores.into_iter().map(|(numa, here)| (numa, (pages * here).div_ceil(all))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_common::config::SAMPLE;
    use baton_common::id::NumaId;

    #[test]
    fn one_numa_node_needs_all_of_it() {
        let need = Need::of(&Config::parse(SAMPLE, "sample").unwrap());
        assert_eq!(need.nodes.len(), 1);
        assert_eq!(need.nodes[&0].dpdk, 128);
        let files: u64 = need.files.iter().map(|file| file.pages(PAGE_BYTES)).sum();
        assert_eq!((need.nodes[&0].files, need.pages()), (files, files + 128));
    }

    #[test]
    fn two_numa_nodes_share_dpdks_memory_and_have_files_of_their_own() {
        let mut config = Config::parse(SAMPLE, "sample").unwrap();
        config.workers[1].numa = NumaId(1);
        let need = Need::of(&config);
        assert_eq!((need.nodes[&0].dpdk, need.nodes[&1].dpdk), (64, 64));
        assert!(need.nodes[&1].files > 0);
    }
}
