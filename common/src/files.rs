//! The table files of a node: which there are, what each is to hold, how big it is and where it belongs.
//!
//! `baton-hugepages` makes them, the primary and the secondaries map them: all go by this one list.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::counter::CounterFile;
use crate::id::NumaId;
use crate::session::table::TableShape;
use crate::shm::header::{FileKind, FileSpec};
use crate::shm::ring;
use crate::sync::event::EVENT_BYTES;
use crate::sync::state;
use crate::sync::wire::payload_bytes_max;

/// Bytes of an Ethernet header with one VLAN tag.
const ETHERNET_BYTES_MAX: u32 = 18;

/// One table file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFile {
    /// The worker's or NUMA node's number in the file's name; 0 for `counters`.
    pub number: u8,
    /// The NUMA node whose memory it should lie in.
    pub numa: NumaId,
    /// Its kind, its geometry words and the bytes needed, header included, before rounding to pages.
    pub spec: FileSpec,
}

impl TableFile {
    /// What the file holds.
    pub fn kind(&self) -> FileKind {
        self.spec.kind
    }

    /// Where it lies, in the directory `paths.hugepages`.
    pub fn path(&self, hugepages: &Path) -> PathBuf {
        self.kind().path(hugepages, self.number)
    }

    /// Pages that it takes.
    pub fn pages(&self, page_bytes: u64) -> u64 {
        self.spec.bytes.div_ceil(page_bytes)
    }
}

/// All table files of the node that `config` describes. What only sync needs is there only if sync is enabled.
pub fn table_files(config: &Config) -> Vec<TableFile> {
    let numa_of_first_worker = config.workers.first().map_or(NumaId(0), |worker| worker.numa);
    let mut files: Vec<TableFile> = Vec::new();
    let mut add = |number: u8, numa: NumaId, spec: FileSpec| files.push(TableFile { number, numa, spec });
    for (number, worker) in (0u8..).zip(&config.workers) {
        add(number, worker.numa, session_table(FileKind::LocalTable, config.tables.local_sessions));
    }
    if config.sync.enabled {
        for (number, worker) in (0u8..).zip(&config.workers) {
            add(number, worker.numa, event_ring(config));
            add(number, worker.numa, sync_rx_ring(config));
        }
        for numa in config.sync.domains.iter().map(|domain| domain.numa).collect::<BTreeSet<_>>() {
            add(numa.0, numa, session_table(FileKind::RemoteTable, config.tables.remote_sessions));
            add(numa.0, numa, sync_tx_ring(config));
            add(numa.0, numa, sync_state(config));
        }
    }
    add(0, numa_of_first_worker, counters(config));
    files
}

/// Geometry: see [`TableShape`].
fn session_table(kind: FileKind, sessions: u32) -> FileSpec {
    let shape = TableShape::for_capacity(sessions);
    shape.expect("a validated config asks for no more sessions than a table can have").spec(kind)
}

/// Geometry: slots, bytes of an item.
fn ring_spec(kind: FileKind, slots: u32, item_bytes: u32) -> FileSpec {
    let (slots, item_bytes) = (u64::from(slots), u64::from(item_bytes));
    let bytes = ring::file_bytes(slots, item_bytes);
    let bytes =
        bytes.expect("a validated config asks for rings of powers of two, and packets are below 64 KiB");
    FileSpec { kind, geometry: [slots, item_bytes, 0, 0], bytes }
}

fn event_ring(config: &Config) -> FileSpec {
    ring_spec(FileKind::EventRing, config.tables.event_ring_slots, EVENT_BYTES as u32)
}

/// Items are whole IP packets.
fn sync_rx_ring(config: &Config) -> FileSpec {
    ring_spec(FileKind::SyncRxRing, config.tables.datagram_ring_slots, config.port.mtu.into())
}

/// Items are whole Ethernet frames.
fn sync_tx_ring(config: &Config) -> FileSpec {
    let frame_bytes = u32::from(config.sync.mtu) + ETHERNET_BYTES_MAX;
    ring_spec(FileKind::SyncTxRing, config.tables.datagram_ring_slots, frame_bytes)
}

fn counters(config: &Config) -> FileSpec {
    let spec = CounterFile::spec(config.workers.len() as u64, config.sync.domains.len() as u64);
    spec.expect("a validated config has few workers and domains")
}

/// Geometry: senders that can be kept, streams of each, words of the retransmission ring.
fn sync_state(config: &Config) -> FileSpec {
    state::spec(payload_bytes_max(config.sync.mtu, false, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SAMPLE;

    fn sample() -> Config {
        Config::parse(SAMPLE, "sample").unwrap()
    }

    fn names(config: &Config) -> Vec<String> {
        let name = |file: &TableFile| file.path(Path::new("")).display().to_string();
        table_files(config).iter().map(name).collect()
    }

    #[test]
    fn a_node_has_a_set_of_files_for_each_worker_and_each_domain() {
        assert_eq!(
            names(&sample()),
            [
                "local-0",
                "local-1",
                "events-0",
                "sync-rx-0",
                "events-1",
                "sync-rx-1",
                "remote-0",
                "sync-tx-0",
                "sync-state-0",
                "counters"
            ]
        );
    }

    #[test]
    fn without_sync_there_are_local_tables_and_counters_only() {
        let mut config = sample();
        config.sync.enabled = false;
        assert_eq!(names(&config), ["local-0", "local-1", "counters"]);
    }

    #[test]
    fn files_lie_on_the_numa_node_of_their_worker_or_domain() {
        let mut config = sample();
        config.workers[1].numa = NumaId(1);
        let mut domain = config.sync.domains[0].clone();
        domain.numa = NumaId(1);
        config.sync.domains.push(domain);
        let files = table_files(&config);
        let on_second: Vec<_> = files
            .iter()
            .filter(|file| file.numa == NumaId(1))
            .map(|file| (file.kind(), file.number))
            .collect();
        assert_eq!(
            on_second,
            [
                (FileKind::LocalTable, 1),
                (FileKind::EventRing, 1),
                (FileKind::SyncRxRing, 1),
                (FileKind::RemoteTable, 1),
                (FileKind::SyncTxRing, 1),
                (FileKind::SyncState, 1),
            ]
        );
    }

    #[test]
    fn the_largest_valid_sizes_can_be_made() {
        let mut config = sample();
        config.tables.local_sessions = 33_554_432;
        config.tables.remote_sessions = 33_554_432;
        config.tables.event_ring_slots = 16_777_216;
        config.tables.datagram_ring_slots = 65_536;
        config.port.mtu = 9000;
        config.sync.mtu = 9000;
        assert_eq!(table_files(&config).len(), 10);
    }

    #[test]
    fn pages_are_rounded_up() {
        let spec = FileSpec { kind: FileKind::Counters, geometry: [0; 4], bytes: 4097 };
        let file = TableFile { number: 0, numa: NumaId(0), spec };
        assert_eq!((file.pages(4096), file.pages(2 << 20)), (2, 1));
    }
}
