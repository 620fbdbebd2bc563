//! What memory a trial takes, estimated from above, so that it is not begun in vain.

use anyhow::Result;
use baton_common::session::table::TableShape;

use super::compact::{CompactKey, Records, V4_WORDS, V6_WORDS};
use super::contender::Kind;
use super::limits;
use super::population::Family;
use super::results::Case;
use super::rte_hash::entries_to_ask_for;
use super::{MEMORY_LEFT, trial};
use crate::host::hugepages::{self, PAGE_BYTES};
use crate::host::memory;

/// Pages besides: rounding, and EAL's own.
const PAGES_BESIDES: u64 = 40;

/// Bytes of the heap besides.
const HEAP_BESIDES: u64 = 64 << 20;

/// Memory that a trial takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Hugepages.
    pub hugepages: u64,
    /// Bytes of the heap.
    pub heap: u64,
}

impl Demand {
    /// What a contender takes.
    pub fn of(who: Kind, case: Case) -> Demand {
        let sessions = u64::from(case.sessions);
        let (key, record) = match case.family {
            Family::V4 => (size_of::<CompactKey<V4_WORDS>>(), Records::<V4_WORDS>::BYTES),
            Family::V6 => (size_of::<CompactKey<V6_WORDS>>(), Records::<V6_WORDS>::BYTES),
        };
        let (key, records) = (key as u64, record as u64 * sessions);
        let (hugepages, heap) = match who {
            Kind::Baton => {
                (TableShape::for_capacity(case.sessions).map_or(0, |shape| shape.file_bytes()), 8 * sessions)
            }
            Kind::RteHash => (records + 2 * rte_hash_bytes(case.sessions, key), 4 * sessions),
            // Tables that double, and entries with their allocator's overhead.
            Kind::Papaya | Kind::Scc | Kind::DashMap => (records, 2 * sessions * 2 * (key + 32)),
            Kind::Machine => (limits::bytes(case.sessions), 0),
        };
        Demand {
            hugepages: hugepages.div_ceil(PAGE_BYTES) + trial::NEIGHBOUR_PAGES + PAGES_BESIDES,
            heap: heap + HEAP_BESIDES,
        }
    }

    /// Why there is not enough memory now; nothing if there is.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn missing(&self) -> Result<Option<String>> {
        let (pages, heap) = (hugepages::free()?, memory::available()?.saturating_sub(MEMORY_LEFT));
        Ok(if pages < self.hugepages {
            Some(format!("it takes {} hugepages, {pages} are free", self.hugepages))
        } else if heap < self.heap {
            Some(format!("it takes up to {} MiB of memory, {} MiB are free", self.heap >> 20, heap >> 20))
        } else {
            None
        })
    }
}

/// Bytes of one `rte_hash`: buckets of a line, keys with a word before them on 16 bytes each, and a ring of free numbers.
fn rte_hash_bytes(sessions: u32, key: u64) -> u64 {
    let entries = u64::from(entries_to_ask_for(sessions));
    let slots = entries.next_power_of_two();
    slots / 8 * 64 + entries * (8 + key).next_multiple_of(16) + (entries + 1).next_power_of_two() * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_million_sessions_fit_into_24_gib() {
        for family in Family::ALL {
            let case = Case { sessions: 20_000_000, family };
            let of = |who| Demand::of(who, case);
            let pages = Kind::ALL.into_iter().map(|who| of(who).hugepages).max().unwrap();
            let heap = Kind::ALL.into_iter().map(|who| of(who).heap).max().unwrap();
            assert!(pages * PAGE_BYTES + heap < 22 << 30, "{pages} pages, {heap} bytes");
        }
    }

    #[test]
    fn what_there_is_not_is_told() {
        let demand = Demand { hugepages: 0, heap: u64::MAX };
        let why = demand.missing().unwrap().unwrap();
        assert!(why.contains("MiB of memory"), "{why}");
    }
}
