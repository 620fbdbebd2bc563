//! Local endpoints: the addresses and ports that a worker uses towards real servers.
//!
//! There is no list of free ports to keep, rebuild or get wrong: an endpoint is free exactly when no table holds a session
//! with it towards the same real server. This yields candidates; the caller asks its tables.

use crate::flow::{Address, Endpoint};

/// Candidates tried for one new session before it is refused.
pub const CANDIDATES_MAX: u32 = 128;

/// The local addresses and the port range of one worker.
#[derive(Clone, Debug)]
pub struct LocalPorts {
    v4: Vec<Address>,
    v6: Vec<Address>,
    first: u16,
    count: u32,
}

impl LocalPorts {
    /// The endpoints made of `addresses` and the ports `first..=last`.
    pub fn new(addresses: &[Address], (first, last): (u16, u16)) -> LocalPorts {
        let (v4, v6) = addresses.iter().partition(|address| address.is_v4());
        LocalPorts { v4, v6, first, count: u32::from(last) - u32::from(first) + 1 }
    }

    /// The candidates for a session towards `server` whose client-side key hashes to `hash`, in the order to try them.
    ///
    /// The start is as good as random, so a port that was just freed is unlikely to be taken at once, and the walk jumps, so that a
    /// run of ports in use is not walked through.
    pub fn candidates(&self, server: Address, hash: u64) -> impl Iterator<Item = Endpoint> + use<'_> {
        let addresses = if server.is_v4() { &self.v4 } else { &self.v6 };
        let start = (hash >> 32) as u32 % self.count;
        let tries = CANDIDATES_MAX.min(self.count * addresses.len() as u32);
        (0..tries).map(move |attempt| {
            let address = addresses[(hash as usize).wrapping_add(attempt as usize) % addresses.len()];
            let round = attempt / addresses.len() as u32;
            let offset = (u64::from(start) + u64::from(round) * u64::from(PORT_STEP)) % u64::from(self.count);
            Endpoint { address, port: self.first + offset as u16 }
        })
    }
}

/// A prime above 65,536: it shares no factor with any range's size, so the walk visits every port.
const PORT_STEP: u32 = 104_729;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn address(last: u8) -> Address {
        Address::v4([10, 0, 0, last])
    }

    #[test]
    fn candidates_are_distinct_and_in_range() {
        let ports = LocalPorts::new(&[address(1), address(2)], (2000, 2999));
        let seen: HashSet<Endpoint> = ports.candidates(address(9), 0x1234_5678_9abc_def1).collect();
        assert_eq!(seen.len(), CANDIDATES_MAX as usize);
        assert!(seen.iter().all(|endpoint| (2000..=2999).contains(&endpoint.port)));
    }

    #[test]
    fn a_small_range_is_tried_whole() {
        let ports = LocalPorts::new(&[address(1)], (5000, 5009));
        let seen: HashSet<u16> = ports.candidates(address(9), 77).map(|endpoint| endpoint.port).collect();
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn the_whole_port_range_can_be_used() {
        let ports = LocalPorts::new(&[address(1)], (0, 65535));
        assert_eq!(ports.candidates(address(9), u64::MAX).next().unwrap().address, address(1));
    }

    #[test]
    fn a_family_without_addresses_has_no_candidates() {
        let ports = LocalPorts::new(&[address(1)], (5000, 5009));
        assert_eq!(ports.candidates(Address::v6([0x20; 16]), 77).count(), 0);
    }
}
