//! The secondaries of one node and those of the others cannot hear each other for a while: what they missed is made up for.

use std::time::Duration;

use crate::harness::{HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::sessions;
use crate::traffic::Traffic;

/// Connections of each family that are opened, or closed, during the partition.
const CHANGED: u32 = 40;

#[test]
fn root_a_partition_heals_and_costs_no_connection() {
    let lab = Lab::up(&["--nodes", "3"]);
    let traffic = Traffic::start(&lab);
    let leaving = opened(&lab);
    let leaving_clients = sessions::established(&lab, 2);

    lab.run(&["impair", "n1", "--loss", "100"]);
    // Time for what was under way, and for clients to come and go.
    std::thread::sleep(Duration::from_secs(2));
    leaving.into_iter().for_each(|load| load.finish().assert_http_whole(CHANGED));
    let arrived = opened(&lab);
    let (staying, came) = traffic.stop_coming();
    came.iter().for_each(|report| report.assert_churn_whole());
    // Each side knows its own new ones and not the other's, and the other's old ones, which are gone.
    let [one, two] = [1, 2].map(|node| sessions::held(&lab, node));
    let (only_one, only_two) = (one.difference(&two).count(), two.difference(&one).count());
    println!("{only_one} sessions known to node 1 only, {only_two} to node 2 only");
    assert!(only_one > 10 && only_two > 10, "the sides do not differ: {only_one} and {only_two}");
    let known = sessions::established(&lab, 2);
    let ghosts = leaving_clients.iter().filter(|client| known.contains(*client)).count() as u64;
    assert!(ghosts > Traffic::staying() + 10, "the ends of sessions were not missed: {ghosts}");

    lab.run(&["impair", "n1", "--off"]);
    let sessions = Traffic::staying() + u64::from(2 * CHANGED);
    let (held, took) = sessions::wait_until_equal(&lab, &[1, 2, 3], sessions);
    println!(
        "{held} sessions held by all {} ms after the partition healed, {sessions} connections are open",
        took.as_millis()
    );

    arrived.into_iter().for_each(|load| load.finish().assert_http_whole(CHANGED));
    sessions::wait_until_equal(&lab, &[1, 2, 3], Traffic::staying());
    staying.finish_whole();
}

/// Connections of both families that stay open until their load is finished.
fn opened(lab: &Lab) -> [Load; 2] {
    let mut loads = [HTTP4, HTTP6].map(|target| Load::http(lab, target, CHANGED, &[]));
    loads.iter_mut().for_each(Load::wait_ready);
    loads
}
