//! Loss and duplication between the secondaries: what is lost is asked for, and forwarding does not notice.

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, Lab};
use crate::load::Load;
use crate::sessions;

const FLOWS: u32 = 1000;

#[test]
fn root_lost_sync_datagrams_are_asked_for_and_cost_no_packet() {
    let lab = Lab::up(&["--nodes", "2", "--steering", "TapBpf"]);
    lab.run(&["withdraw", "n2"]);

    lab.run(&["impair", "n1", "--loss", "10"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, 1000);
    load.wait_ready();
    assert_eq!(sessions::wait_until_replicated(&lab, 1, 2), u64::from(FLOWS));
    load.finish().assert_udp_whole(FLOWS);
    lab.run(&["impair", "n1", "--off"]);

    let (sent, received) = (Counters::settled(&lab, 1), Counters::settled(&lab, 2));
    let (numbers, gaps) = (sent.get(Counter::SyncTxDatagrams), received.get(Counter::SyncRxGaps));
    assert!(numbers >= 200, "{numbers} datagrams are too few to tell");
    assert!((numbers / 50..numbers / 4).contains(&gaps), "{gaps} of {numbers} lost, about a tenth expected");
    assert!(received.get(Counter::GapsAsked) >= gaps && sent.get(Counter::SyncTxAgain) > 0, "{sent:?}");
    assert_eq!(Counters::settled(&lab, 1).without(&[Counter::DropNotForUs]).drops(), Default::default());
    for node in ["n1", "n2"] {
        assert!(lab.processes(node).iter().all(|(_, _, alive)| *alive), "{:?}", lab.processes(node));
    }
}

#[test]
fn root_doubled_sync_datagrams_are_counted_and_change_nothing() {
    let lab = Lab::up(&["--nodes", "2", "--steering", "TapBpf"]);
    lab.run(&["withdraw", "n2"]);
    lab.run(&["impair", "n1", "--duplicate", "50"]);

    let mut load = Load::udp(&lab, ECHO4, FLOWS, 1000);
    load.wait_ready();

    assert_eq!(sessions::wait_until_replicated(&lab, 1, 2), u64::from(FLOWS));
    load.finish().assert_udp_whole(FLOWS);
    let (sent, received) = (Counters::settled(&lab, 1), Counters::settled(&lab, 2));
    let doubled = received.get(Counter::SyncRejectDuplicate);
    assert!(doubled >= 50, "{doubled} duplicates are too few to tell");
    // A few more are sent while the counters are read, one node's after the other's.
    let numbers = sent.get(Counter::SyncTxDatagrams)..=Counters::read(&lab, 1).get(Counter::SyncTxDatagrams);
    let once = received.get(Counter::SyncRxDatagrams) - doubled;
    assert!(numbers.contains(&once), "{once} of {numbers:?}");
    assert_eq!(
        received.starting_with("sync_reject_"),
        [(Counter::SyncRejectDuplicate.name(), doubled)].into()
    );
    assert_eq!(received.get(Counter::SyncRxGaps), 0);
}
