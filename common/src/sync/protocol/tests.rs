//! Whole protocols whose keys are changed while they talk, as `batonctl key` has it done: added on all nodes, then used on all,
//! then the old one removed on all.

use std::sync::Arc;

use super::mutation::Mutation;
use super::net::{Durable, Net, durables};
use crate::config::KeyFile;
use crate::counter::Counter;
use crate::sync::Reject;
use crate::sync::seal::Keyring;
use crate::sync::sim::network::Weather;

/// A key file with these keys: the number, and whether it seals.
fn keyring(keys: &[(u8, bool)]) -> Arc<Keyring> {
    let line = |(id, seals): &(u8, bool)| {
        format!("{id} {} {id:02x}{}\n", if *seals { "seal" } else { "open" }, "00".repeat(31))
    };
    let text: String = keys.iter().map(line).collect();
    Arc::new(Keyring::new(&KeyFile::parse(&text, "test").unwrap()))
}

const OLD: &[(u8, bool)] = &[(1, true)];
const ADDED: &[(u8, bool)] = &[(1, true), (2, false)];
const USED: &[(u8, bool)] = &[(1, false), (2, true)];
const NEW: &[(u8, bool)] = &[(2, true)];

/// Nodes with the old key on a network that loses, doubles and reorders. Repair by digests is off: what is lost stays lost.
fn sealed(durables: &[Durable]) -> Net<'_> {
    let mut net = Net::new(durables, 64, Some(&keyring(OLD)));
    for host in &mut net.hosts {
        host.protocol.mutation = Mutation::NoDigests;
    }
    net.network.weather = Weather { loss: 50_000, duplicates: 20_000, delay_us: 5000, full: 0 };
    net
}

/// Gives these keys to one node after the other, while they talk.
fn give(net: &mut Net<'_>, keys: &[(u8, bool)], open: &mut Vec<(usize, crate::session::Session)>) {
    for host in 0..net.hosts.len() {
        net.hosts[host].protocol.use_keyring(&keyring(keys));
        net.load(300, open);
    }
}

#[test]
fn keys_change_without_a_datagram_lost() {
    let durables = durables(2);
    let mut net = sealed(&durables);
    let mut open = Vec::new();
    net.load(300, &mut open);

    for keys in [ADDED, USED, NEW] {
        give(&mut net, keys, &mut open);
    }
    net.network.weather = Weather::default();
    net.load(100, &mut open);
    net.run(1500);

    assert_eq!(net.refusals, []);
    for (host, Durable { counters, .. }) in net.hosts.iter().zip(&durables) {
        assert_eq!(counters.value(Counter::GapsGivenUp), 0);
        assert!(counters.value(Counter::GapsAsked) > 100, "something was lost and came after all");
        assert_eq!(host.tables.iter().count(), open.len());
    }
    for (owner, session) in &open {
        let held = net.held(1 - owner, session).expect("known to the other node");
        assert_eq!((held.session.owner, held.session.local), (session.owner, session.local));
    }
}

#[test]
fn a_key_that_is_used_before_all_nodes_have_it_is_refused_and_the_session_is_asked_for_again() {
    let durables = durables(2);
    let mut net = sealed(&durables);
    net.network.weather = Weather::default();
    net.hosts[0].protocol.use_keyring(&keyring(USED));
    let session = net.open(0);
    net.run(10);
    assert!(net.refusals.contains(&Reject::KeyUnknown));
    assert!(net.held(1, &session).is_none());

    net.hosts[1].protocol.use_keyring(&keyring(ADDED));
    net.open(0);
    net.run(100);

    assert!(net.held(1, &session).is_some());
}

#[test]
fn who_removes_a_key_that_another_node_still_uses_hears_nothing_of_it() {
    let durables = durables(2);
    let mut net = sealed(&durables);
    net.network.weather = Weather::default();
    net.hosts.iter_mut().for_each(|host| host.protocol.use_keyring(&keyring(ADDED)));
    net.hosts[0].protocol.use_keyring(&keyring(NEW));
    let (mine, theirs) = (net.open(0), net.open(1));
    net.run(100);
    assert!(net.held(1, &mine).is_some() && net.held(0, &theirs).is_none());
    assert!(net.refusals.iter().all(|reject| *reject == Reject::KeyUnknown) && !net.refusals.is_empty());
}
