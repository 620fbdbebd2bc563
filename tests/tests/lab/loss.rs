//! Loss and duplication between the secondaries: the peer counts each, and forwarding does not notice.

use std::time::Duration;

use baton_common::counter::Counter;

use crate::counters::Counters;
use crate::harness::{ECHO4, Lab};
use crate::load::Load;
use crate::sessions;
use crate::wait::wait_for;

const FLOWS: u32 = 1000;

#[test]
fn root_lost_sync_datagrams_are_counted_and_cost_no_packet() {
    let lab = Lab::up(&["--nodes", "2", "--steering", "TapBpf"]);
    lab.run(&["withdraw", "n2"]);
    // One datagram must have come through before, or its first loss is no gap.
    let mut first = Load::udp(&lab, ECHO4, 10, 100);
    first.wait_ready();
    let heard = |lab: &Lab| Counters::read(lab, 2).get(Counter::SyncRxDatagrams);
    wait_for(10, "the peer to hear something", || if heard(&lab) > 0 { Ok(()) } else { Err("0".into()) });

    lab.run(&["impair", "n1", "--loss", "10"]);
    let mut load = Load::udp(&lab, ECHO4, FLOWS, 1000);
    load.wait_ready();
    std::thread::sleep(Duration::from_millis(500));
    lab.run(&["impair", "n1", "--off"]);
    // The next datagram shows the last gap.
    let mut last = Load::udp(&lab, ECHO4, 10, 100);
    last.wait_ready();

    load.finish().assert_udp_whole(FLOWS);
    [first, last].map(Load::finish).iter().for_each(|report| report.assert_udp_whole(10));
    let (sent, received) = wait_for(10, "every datagram sent to be received or missed", || {
        let (sent, received) = (Counters::read(&lab, 1), Counters::read(&lab, 2));
        let numbers = sent.get(Counter::SyncTxDatagrams);
        let arrived = received.get(Counter::SyncRxDatagrams) + received.get(Counter::SyncRxGaps);
        if numbers == arrived {
            Ok((sent, received))
        } else {
            Err(format!("{numbers} sent, {arrived} known of"))
        }
    });
    let (numbers, gaps) = (sent.get(Counter::SyncTxDatagrams), received.get(Counter::SyncRxGaps));
    assert!(numbers >= 200, "{numbers} datagrams are too few to tell");
    assert!((numbers / 40..numbers / 4).contains(&gaps), "{gaps} of {numbers} lost, about a tenth expected");
    // The refresh of a session whose upsert was lost is the only thing that can be wrong with what arrives.
    let unknown =
        [(Counter::SyncRejectUnknownSession.name(), received.get(Counter::SyncRejectUnknownSession))];
    let rejected = received.starting_with("sync_reject_");
    assert!(rejected.is_empty() || rejected == unknown.into(), "{rejected:?}");
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
    assert_eq!(received.get(Counter::SyncRxDatagrams), sent.get(Counter::SyncTxDatagrams) + doubled);
    assert_eq!(
        received.starting_with("sync_reject_"),
        [(Counter::SyncRejectDuplicate.name(), doubled)].into()
    );
    assert_eq!(received.get(Counter::SyncRxGaps), 0);
}
