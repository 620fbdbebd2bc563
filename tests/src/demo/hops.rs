//! What was lost on the way beside Baton: by interfaces and sockets of every host.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::netns;
use crate::state::Lab;

/// Losses and repetitions since the hosts were made, by host and what counted them: `n1 lb0 tx_dropped`,
/// `c1 Tcp RetransSegs`.
pub type Hops = BTreeMap<String, u64>;

/// What counts losses in `/proc/net/snmp`.
const SNMP: [(&str, &str); 4] =
    [("Udp", "InErrors"), ("Udp", "RcvbufErrors"), ("Udp", "SndbufErrors"), ("Tcp", "RetransSegs")];
/// What counts losses in `/proc/net/snmp6`.
const SNMP6: [&str; 3] = ["Udp6InErrors", "Udp6RcvbufErrors", "Udp6SndbufErrors"];
/// Where the losses stand among an interface's numbers in `/proc/net/dev`.
const INTERFACE: [(&str, usize); 4] =
    [("rx_errors", 2), ("rx_dropped", 3), ("tx_errors", 10), ("tx_dropped", 11)];

/// Reads the losses of all hosts.
///
/// # Errors
/// If a host's numbers cannot be read.
pub fn read(lab: &Lab) -> Result<Hops> {
    let mut hops = Hops::new();
    for host in lab.shape.hosts() {
        let [dev, snmp, snmp6] = netns::inside(&lab.netns(host), || {
            let file = |name: &str| {
                let path = format!("/proc/thread-self/net/{name}");
                std::fs::read_to_string(&path).with_context(|| path.clone())
            };
            Ok([file("dev")?, file("snmp")?, file("snmp6")?])
        })?;
        let counted = interfaces(&dev).into_iter().chain(protocols(&snmp)).chain(protocols6(&snmp6));
        hops.extend(counted.map(|(name, count)| (format!("{host} {name}"), count)));
    }
    Ok(hops)
}

/// What was added since `earlier`, where anything was.
pub fn since(now: &Hops, earlier: &Hops) -> Hops {
    let grown = now
        .iter()
        .map(|(name, &count)| (name.clone(), count.saturating_sub(earlier.get(name).copied().unwrap_or(0))));
    grown.filter(|(_, count)| *count > 0).collect()
}

fn interfaces(text: &str) -> Vec<(String, u64)> {
    let mut counted = Vec::new();
    for (name, numbers) in text.lines().filter_map(|line| line.split_once(':')) {
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        for (what, position) in INTERFACE {
            if let Some(Ok(count)) = numbers.get(position).map(|number| number.parse()) {
                counted.push((format!("{} {what}", name.trim()), count));
            }
        }
    }
    counted
}

/// Lines in pairs: a protocol's names, then its numbers.
fn protocols(text: &str) -> Vec<(String, u64)> {
    let mut counted = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks(2) {
        let [names, numbers] = pair else { continue };
        let protocol = names.split(':').next().unwrap_or_default();
        for (name, number) in names.split_whitespace().zip(numbers.split_whitespace()).skip(1) {
            if let (true, Ok(count)) = (SNMP.contains(&(protocol, name)), number.parse()) {
                counted.push((format!("{protocol} {name}"), count));
            }
        }
    }
    counted
}

fn protocols6(text: &str) -> Vec<(String, u64)> {
    let pairs = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?.parse().ok()?))
    });
    pairs.filter(|(name, _)| SNMP6.contains(name)).map(|(name, count)| (name.to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_interfaces_are_found() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n  \
                    lb0: 100 10 1 2 0 0 0 0 200 20 3 4 0 0 0 0\n";
        let expected = [("rx_errors", 1), ("rx_dropped", 2), ("tx_errors", 3), ("tx_dropped", 4)];
        assert_eq!(interfaces(text), expected.map(|(what, count)| (format!("lb0 {what}"), count)));
    }

    #[test]
    fn losses_of_protocols_are_found() {
        let text = "Tcp: RtoAlgorithm InSegs RetransSegs\nTcp: 1 50 6\nUdp: InDatagrams InErrors RcvbufErrors\nUdp: 9 8 7\n";
        let expected = [("Tcp RetransSegs", 6), ("Udp InErrors", 8), ("Udp RcvbufErrors", 7)];
        assert_eq!(protocols(text), expected.map(|(what, count)| (what.to_owned(), count)));
        assert_eq!(protocols6("Udp6InErrors   3\nIp6InReceives 5\n"), [("Udp6InErrors".to_owned(), 3)]);
    }

    #[test]
    fn only_what_was_added_counts() {
        let hops = |count| Hops::from([("a".to_owned(), 5), ("b".to_owned(), count)]);
        assert_eq!(since(&hops(9), &hops(2)), Hops::from([("b".to_owned(), 7)]));
    }
}
