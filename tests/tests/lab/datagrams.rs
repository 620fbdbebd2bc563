//! Bad sync datagrams of every kind: each changes its own counter and nothing else, and good ones are still taken.

use std::collections::BTreeMap;

use baton_common::config::KeyFile;
use baton_common::counter::Counter::{self, *};
use baton_common::id::KeyId;
use baton_common::sync::seal::Keyring;
use baton_common::sync::wire::HEADER_BYTES;

use crate::counters::Counters;
use crate::frame::{ETHERNET_BYTES, Fabric, udp};
use crate::harness::{ECHO4, Lab};
use crate::load::Load;
use crate::peer::{Peer, flow, record, upsert};
use crate::sessions::{self, remote_table};
use crate::wait::wait_for;

/// Where node 1 takes sync datagrams.
const NODE1: &str = "10.2.0.101:7400";
/// Where node 2 sends them from.
const NODE2: &str = "10.2.0.102:7400";

#[test]
fn root_bad_datagrams_change_only_their_counters_with_steering_in_the_tap() {
    send_every_kind("TapBpf", true);
}

#[test]
fn root_bad_datagrams_change_only_their_counters_with_steering_in_software() {
    send_every_kind("Software", true);
}

#[test]
fn root_bad_datagrams_change_only_their_counters_with_security_off() {
    send_every_kind("Auto", false);
}

/// Counters that move by themselves, or in one way of steering only.
const SENDING: [Counter; 9] = [
    SyncHandoff,
    SyncTxOnBehalf,
    SyncTxDatagrams,
    SyncTxBytes,
    SyncTxUpserts,
    SyncTxDeletes,
    SyncTxRefreshes,
    SyncTxFull,
    SyncTxNoNeighbour,
];

/// A lab with node 1 alone, spoken to in the name of node 2.
struct Conversation {
    lab: Lab,
    fabric: Fabric,
    peer: Peer,
    /// The generation of the next good session: its end is remembered, so each is newer than the last.
    generation: u32,
}

fn send_every_kind(steering: &str, sealed: bool) {
    let mut options = vec!["--nodes", "2", "--workers", "2", "--steering", steering];
    options.extend((!sealed).then_some("--no-seal"));
    let lab = Lab::up(&options);
    assert_eq!(lab.log(1, "sync").contains("sync.security is Off"), !sealed, "security off is warned of");
    lab.kill("n2", &[]);
    lab.run(&["withdraw", "n2"]);
    let fabric = Fabric::open(&lab);
    let peer = Peer::new(&lab, sealed);
    let mut talk = Conversation { lab, fabric, peer, generation: 7 };

    talk.good();
    talk.headers();
    talk.senders();
    match sealed {
        true => talk.seals(),
        false => talk.seals_nobody_wants(),
    }
    talk.positions();
    talk.records();
    talk.news();
    talk.sessions_of_its_own();
    talk.packets();
    talk.noise();
    talk.good();
    for role in ["primary", "sync"] {
        assert!(talk.lab.pid("n1", role).is_some(), "the {role} lives");
    }
}

impl Conversation {
    /// Sends a payload as node 2 does; checks that exactly these counters move, by these steps, beside those of everything
    /// that arrives, and that the remote table stays as it is.
    fn changes_only(&self, what: &str, payload: &[u8], counted: &[(Counter, u64)]) {
        self.frame_changes_only(what, &udp(NODE2, NODE1, payload), payload.len(), counted);
    }

    fn frame_changes_only(&self, what: &str, frame: &[u8], bytes: usize, counted: &[(Counter, u64)]) {
        let table = remote_table(&self.lab, 1);
        let mut expected: Vec<_> = counted.to_vec();
        expected.extend([(SyncRxDatagrams, 1), (SyncRxBytes, bytes as u64)]);
        self.counts(what, frame, &expected);
        assert_eq!(remote_table(&self.lab, 1), table, "{what}");
    }

    /// Sends a frame and checks that exactly these counters of synchronisation move, by these steps.
    fn counts(&self, what: &str, frame: &[u8], counted: &[(Counter, u64)]) {
        // What node 1 itself has to tell is no part of this, nor that a worker hands the datagram on.
        let read = || Counters::read(&self.lab, 1).without(&SENDING);
        let steps = counted.iter().filter(|(_, step)| *step > 0);
        let expected: BTreeMap<&str, u64> = steps.map(|(counter, step)| (counter.name(), *step)).collect();
        let before = read();
        self.fabric.send(frame);
        let added = wait_for(5, what, || {
            let added = read().since(&before);
            let moved = added.starting_with("sync_");
            if moved == expected {
                Ok(added.clone())
            } else {
                Err(format!("{moved:?}, expected {expected:?}"))
            }
        });
        assert_eq!(added.without(&[DropNotForUs]).drops(), Default::default(), "{what}");
    }

    /// A good datagram: an upsert that is taken, as it was meant, and a delete.
    fn good(&mut self) {
        let before = remote_table(&self.lab, 1);
        self.generation += 1;
        let generation = self.generation;
        let new = upsert(flow(41_000), generation);
        let payload = self.peer.next(&[new]);
        let bytes = payload.len() as u64;
        self.counts(
            "a good upsert",
            &udp(NODE2, NODE1, &payload),
            &[(SyncRxUpserts, 1), (SyncRxDatagrams, 1), (SyncRxBytes, bytes)],
        );
        let found = sessions::list(&self.lab, 1, &["--client", "10.1.1.9:41000", "--table", "remote"]);
        assert_eq!(found.len(), 1, "{found:?}");
        let expected = serde_json::json!({
            "protocol": "tcp", "client": "10.1.1.9:41000", "vip": "10.9.0.1:80", "local": "10.4.2.1:41000",
            "server": "10.3.0.11:80", "state": "tcp_established", "owner": 2, "generation": generation,
        });
        for (field, value) in expected.as_object().expect("fields") {
            assert_eq!(&found[0][field], value, "{field}");
        }
        let payload = self.peer.next(&[record::delete(flow(41_000), generation)]);
        let bytes = payload.len() as u64;
        self.counts(
            "a good delete",
            &udp(NODE2, NODE1, &payload),
            &[(SyncRxDeletes, 1), (SyncRxDatagrams, 1), (SyncRxBytes, bytes)],
        );
        assert_eq!(remote_table(&self.lab, 1), before);
        // From here on there is something in the table that a bad datagram could harm.
        let payload = self.peer.next(&[upsert(flow(40_000), 5), upsert(flow(40_001), 5)]);
        self.fabric.send(&udp(NODE2, NODE1, &payload));
        wait_for(5, "two sessions in the remote table", || match remote_table(&self.lab, 1).len() {
            2 => Ok(()),
            other => Err(format!("{other}")),
        });
    }

    /// Headers that are none, or say what they may not say.
    fn headers(&self) {
        let good = self.peer.peek(&[upsert(flow(42_000), 5)]);
        let changed = |at: usize, value: u8| {
            let mut payload = good.clone();
            payload[at] = value;
            payload
        };
        self.changes_only("no payload", &[], &[(SyncRejectTruncated, 1)]);
        self.changes_only("half a header", &good[..20], &[(SyncRejectTruncated, 1)]);
        self.changes_only("a header short of a byte", &good[..39], &[(SyncRejectTruncated, 1)]);
        self.changes_only("another magic number", &changed(0, b'X'), &[(SyncRejectMagic, 1)]);
        self.changes_only("a future version", &changed(4, 2), &[(SyncRejectVersion, 1)]);
        self.changes_only("an unknown stream", &changed(5, 9), &[(SyncRejectHeaderField, 1)]);
        self.changes_only("a reserved flag", &changed(6, 1), &[(SyncRejectReserved, 1)]);
        self.changes_only("another reserved flag", &changed(7, 0x80), &[(SyncRejectReserved, 1)]);
        self.changes_only("another cluster", &changed(8, 2), &[(SyncRejectCluster, 1)]);
        self.changes_only("for another node", &changed(20, 3), &[(SyncRejectAddressee, 1)]);
        self.changes_only("another kind of membership", &changed(12, 1), &[(SyncRejectMembershipEpoch, 1)]);
        let mut unnumbered = good.clone();
        unnumbered[32..40].fill(0);
        self.changes_only("no sequence number", &unnumbered, &[(SyncRejectHeaderField, 1)]);
    }

    /// Senders that are no members, or not who they say they are.
    fn senders(&self) {
        let named = |node: u8| {
            let mut payload = self.peer.peek(&[upsert(flow(42_000), 5)]);
            payload[16] = node;
            payload
        };
        self.changes_only("no node's number", &named(0), &[(SyncRejectHeaderField, 1)]);
        self.changes_only("the receiver's own number", &named(1), &[(SyncRejectOwnNode, 1)]);
        self.changes_only("the number of no member", &named(7), &[(SyncRejectMember, 1)]);
        let good = named(2);
        for source in ["10.2.0.55:7400", "10.2.0.103:7400", "10.2.0.12:7400"] {
            let frame = udp(source, NODE1, &good);
            self.frame_changes_only(
                "an address that is not the member's",
                &frame,
                good.len(),
                &[(SyncRejectMember, 1)],
            );
        }
    }

    /// Datagrams that are not sealed as this cluster's are.
    fn seals(&self) {
        let news = [upsert(flow(42_000), 5)];
        let good = self.peer.peek(&news);
        let changed = |at: usize| {
            let mut payload = good.clone();
            payload[at] ^= 0x10;
            payload
        };
        let strangers = KeyFile::generate().expect("random numbers");
        let mut later = strangers.clone();
        later.add().expect("random numbers");
        later.seal_with(KeyId(2)).expect("the second key");
        let sealed_by = |keys| self.peer.peek_with(Some(&Keyring::new(keys)), &news);
        let last = good.len() - 1;
        let cases = [
            ("another key of that number", sealed_by(&strangers), SyncRejectTag),
            ("a key that nobody has", sealed_by(&later), SyncRejectKeyUnknown),
            ("in the clear", self.peer.peek_with(None, &news), SyncRejectUnsealed),
            ("a record that was changed", changed(HEADER_BYTES), SyncRejectTag),
            ("a tag that was changed", changed(last), SyncRejectTag),
            ("another number in the stream", changed(32 + 2), SyncRejectTag),
            ("a later life", changed(24 + 6), SyncRejectTag),
            ("without a tag", good[..HEADER_BYTES + 15].to_vec(), SyncRejectTruncated),
            ("a byte short", good[..last].to_vec(), SyncRejectTag),
        ];
        for (what, payload, counter) in cases {
            self.changes_only(what, &payload, &[(counter, 1)]);
        }
    }

    /// A datagram that is sealed, though this cluster's are not.
    fn seals_nobody_wants(&self) {
        let keys = Keyring::new(&KeyFile::generate().expect("random numbers"));
        let sealed = self.peer.peek_with(Some(&keys), &[upsert(flow(42_000), 5)]);
        self.changes_only("sealed", &sealed, &[(SyncRejectSealed, 1)]);
    }

    /// Places in the stream that were passed already.
    fn positions(&mut self) {
        let news = [upsert(flow(42_000), 5)];
        self.changes_only(
            "a number received before",
            &self.peer.numbered(0, &news),
            &[(SyncRejectDuplicate, 1)],
        );
        self.changes_only("a number long passed", &self.peer.numbered(1024, &news), &[(SyncRejectTooOld, 1)]);
        self.changes_only("an earlier life", &self.peer.of_earlier_life(&news), &[(SyncRejectEpoch, 1)]);
        // Late is not bad in itself, but what it tells is old by now.
        let held = [upsert(flow(40_000), 4)];
        self.changes_only(
            "late and old",
            &self.peer.numbered(9, &held),
            &[(SyncRxLate, 1), (SyncRejectStale, 1)],
        );
        self.peer.skip(3);
        let refused = self.peer.next(&held);
        self.changes_only("a gap", &refused, &[(SyncRxGaps, 3), (SyncRejectStale, 1)]);
    }

    /// Records that cannot be understood.
    fn records(&mut self) {
        // The last record is the upsert itself: a header of 4 bytes and an item of 13. Before it stands what it refers to.
        let good = upsert(flow(42_000), 5);
        let item = good.len() - 13;
        let changed = |at: usize, value: u8| {
            let mut record = good.clone();
            record[at] = value;
            record
        };
        let with = |flags: u8, payload: &[u8]| [&good[..item - 4], &record::raw(16, flags, payload)].concat();
        let extended = |extension: &[u8]| with(5, &[&good[item..], extension].concat());
        let cases = [
            ("an unknown record that must be known", record::raw(200, 1, &[1, 2, 3]), SyncRejectRecordType),
            ("an unknown record that may be skipped", record::raw(200, 0, &[1, 2, 3]), SyncSkippedRecords),
            ("a length past the end", changed(item - 2, 200), SyncRejectRecordLength),
            ("half a record header", vec![16, 1], SyncRejectRecordLength),
            ("an unknown state", changed(item + 10, 0x5f), SyncRejectRecordField),
            ("an unknown flag", changed(item - 3, 0x81), SyncRejectRecordField),
            ("a multicast client", changed(item, 224), SyncRejectRecordField),
            ("a real server that is not named", changed(item + 8, 1), SyncRejectReference),
            ("a record shorter than its fields", with(1, &good[item..][..12]), SyncRejectRecordSize),
            ("an extension that must be known", extended(&[0x81, 2, 0, 0]), SyncRejectExtension),
            ("an extension past the record", extended(&[1, 9]), SyncRejectRecordField),
            ("a local address 0.0.0.0", record::raw(5, 1, &[0x0f, 0, 0, 0, 0]), SyncRejectDictionaryEntry),
        ];
        for (what, record, counter) in cases {
            let payload = self.peer.next(&[record]);
            self.changes_only(what, &payload, &[(counter, 1)]);
        }
    }

    /// Records that are understood and no news.
    fn news(&mut self) {
        let cases = [
            ("an older generation", upsert(flow(40_000), 4), SyncRejectStale),
            ("an older generation's end", record::delete(flow(40_000), 4), SyncRejectStale),
            ("an older generation's refresh", record::refresh(flow(40_000), 4), SyncRejectStale),
            ("the end of an unknown session", record::delete(flow(42_000), 5), SyncRejectUnknownSession),
            ("the refresh of an unknown session", record::refresh(flow(42_000), 5), SyncRejectUnknownSession),
            ("a client in a server's place", upsert(flow(40_000).reversed(42_000), 9), SyncRejectConflict),
        ];
        for (what, record, counter) in cases {
            let payload = self.peer.next(&[record]);
            self.changes_only(what, &payload, &[(counter, 1)]);
        }
        let several = [upsert(flow(40_000), 4), record::raw(200, 1, &[]), record::delete(flow(42_000), 1)];
        let payload = self.peer.next(&several);
        let each =
            [SyncRejectStale, SyncRejectRecordType, SyncRejectUnknownSession].map(|counter| (counter, 1));
        self.changes_only("three bad records", &payload, &each);
    }

    /// Claims on sessions of the receiver's own: of two with one generation, the lower number's is believed.
    fn sessions_of_its_own(&mut self) {
        let mut load = Load::udp(&self.lab, ECHO4, 1, 20);
        load.wait_ready();
        drop(load);
        let own = sessions::list(&self.lab, 1, &["--table", "local", "--vip", ECHO4]);
        let client = own[0]["client"].as_str().expect("a client").parse().expect("an endpoint");
        let claim = upsert(flow(42_000).of_udp_client(client), 1);
        let payload = self.peer.next(&[claim]);
        self.changes_only("a session of the receiver's own", &payload, &[(SyncRejectStale, 1)]);
        let still = sessions::list(&self.lab, 1, &["--table", "local", "--vip", ECHO4]);
        assert_eq!(still[0]["client"], own[0]["client"]);
    }

    /// Packets that carry no datagram that may be believed.
    fn packets(&self) {
        let good = self.peer.peek(&[upsert(flow(42_000), 5)]);
        let mut damaged = udp(NODE2, NODE1, &good);
        *damaged.last_mut().expect("a payload") ^= 1;
        let table = remote_table(&self.lab, 1);
        self.counts("a wrong UDP checksum", &damaged, &[(SyncRejectChecksum, 1), (SyncRxDatagrams, 1)]);
        let mut unsummed = udp(NODE2, NODE1, &good);
        unsummed[ETHERNET_BYTES + 26..ETHERNET_BYTES + 28].fill(0);
        self.counts("no UDP checksum", &unsummed, &[(SyncRejectChecksum, 1), (SyncRxDatagrams, 1)]);
        assert_eq!(remote_table(&self.lab, 1), table);
    }

    /// Random bytes, and good datagrams with random bytes changed in their headers' fixed part.
    fn noise(&self) {
        const TIMES: usize = 200;
        let table = remote_table(&self.lab, 1);
        let before = Counters::read(&self.lab, 1);
        let mut state = 0x5eed_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        for _ in 0..TIMES {
            let length = usize::from(random()) * 4;
            // Never the right magic number: what follows it may by chance be believed.
            let payload: Vec<u8> = (0..length).map(|at| if at == 0 { b'b' } else { random() }).collect();
            self.fabric.send(&udp(NODE2, NODE1, &payload));
        }
        let rejected = wait_for(10, "every noise to be rejected", || {
            let added = Counters::read(&self.lab, 1).since(&before);
            let rejected = added.get(SyncRejectMagic) + added.get(SyncRejectTruncated);
            if rejected == TIMES as u64 {
                Ok(added)
            } else {
                Err(format!("{:?}", added.starting_with("sync_")))
            }
        });
        assert_eq!(rejected.get(SyncRxDatagrams), TIMES as u64);
        assert_eq!(rejected.starting_with("sync_reject_").values().sum::<u64>(), TIMES as u64);
        assert_eq!(remote_table(&self.lab, 1), table);
    }
}
