//! Packets to a VIP that cannot be forwarded: each is counted by its own reason, and the rest goes on.

use baton_common::counter::Counter;
use baton_common::packet::TcpFlags;

use crate::counters::Counters;
use crate::frame::{ETHERNET_BYTES, Fabric, seal_ipv4, tcp, udp};
use crate::harness::{ECHO4, ECHO6, HTTP4, HTTP6, Lab};
use crate::load::Load;
use crate::wait::wait_for;

/// How often each packet is sent.
const TIMES: u64 = 3;

const CLIENT4: &str = "10.1.1.9:4000";
const CLIENT6: &str = "[fd00:1:1::9]:4000";

#[test]
fn root_bad_packets_are_counted_by_their_reasons_and_hold_up_nothing() {
    let lab = Lab::up(&["--nodes", "1", "--workers", "2", "--steering", "TapBpf"]);
    let fabric = Fabric::open(&lab);
    let mut http = Load::http(&lab, HTTP4, 50, &[]);
    let mut echo = Load::udp(&lab, ECHO6, 50, 500);
    http.wait_ready();
    echo.wait_ready();

    for (what, reason, frame) in bad_packets() {
        let before = Counters::read(&lab, 1);
        for _ in 0..TIMES {
            fabric.send(&frame);
        }
        let drops = wait_for(5, what, || {
            let drops = Counters::read(&lab, 1).without(&[Counter::DropNotForUs]).since(&before);
            if drops.get(reason) < TIMES { Err(format!("{:?}", drops.drops())) } else { Ok(drops) }
        });
        assert_eq!(drops.drops(), [(reason.name(), TIMES)].into(), "{what}");
        assert_eq!(drops.get(Counter::SessionsCreated), 0, "{what}");
    }

    // The same way, a good packet passes: the frames above were not lost elsewhere.
    let before = Counters::read(&lab, 1);
    fabric.send(&udp(CLIENT4, ECHO4, b"hello"));
    wait_for(5, "a good packet to open a session", || {
        match Counters::read(&lab, 1).since(&before).get(Counter::SessionsCreated) {
            1 => Ok(()),
            other => Err(format!("{other} sessions")),
        }
    });
    http.finish().assert_http_whole(50);
    echo.finish().assert_udp_whole(50);
    assert_eq!(Counters::settled(&lab, 1).unaccounted(), 0);
}

/// What is wrong with it, the counter that counts it, the frame.
fn bad_packets() -> Vec<(&'static str, Counter, Vec<u8>)> {
    use Counter::*;
    let good = || udp(CLIENT4, ECHO4, b"hello");
    let changed = |frame: Vec<u8>, change: &dyn Fn(&mut [u8])| {
        let mut frame = frame;
        change(&mut frame[ETHERNET_BYTES..]);
        frame
    };
    let resealed = |change: &dyn Fn(&mut [u8])| {
        let mut frame = changed(good(), change);
        seal_ipv4(&mut frame);
        frame
    };
    let ack = TcpFlags::ACK.0;
    vec![
        ("an IPv4 header cut short", DropMalformed, good()[..ETHERNET_BYTES + 12].to_vec()),
        (
            "an IPv6 header cut short",
            DropMalformed,
            udp(CLIENT6, ECHO6, b"hello")[..ETHERNET_BYTES + 30].to_vec(),
        ),
        ("an IPv4 length past the frame", DropMalformed, resealed(&|ip| ip[2..4].copy_from_slice(&[0, 200]))),
        (
            "a TCP header cut short",
            DropMalformed,
            changed(tcp(CLIENT6, HTTP6, ack), &|ip| ip[40 + 12] = 15 << 4),
        ),
        ("a wrong IPv4 checksum", DropIpChecksum, changed(good(), &|ip| ip[10] ^= 1)),
        ("a TTL of 1", DropTtlExpired, resealed(&|ip| ip[8] = 1)),
        ("a hop limit of 1", DropTtlExpired, changed(udp(CLIENT6, ECHO6, b"hello"), &|ip| ip[7] = 1)),
        ("the first fragment", DropFragment, resealed(&|ip| ip[6..8].copy_from_slice(&[0x20, 0]))),
        ("a later fragment", DropFragment, resealed(&|ip| ip[6..8].copy_from_slice(&[0, 9]))),
        ("a UDP port without a service", DropNoService, udp(CLIENT4, "10.9.0.1:9", b"hello")),
        ("a TCP port without a service", DropNoService, tcp(CLIENT6, "[fd00:9::1]:81", TcpFlags::SYN.0)),
        ("TCP over IPv4 without a session", DropNoSession, tcp(CLIENT4, HTTP4, ack)),
        ("TCP over IPv6 without a session", DropNoSession, tcp(CLIENT6, HTTP6, ack)),
        ("a server's packet without a session", DropNoSession, tcp("10.3.0.11:80", "10.4.1.1:1500", ack)),
    ]
}
