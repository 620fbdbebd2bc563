//! The punt interface against a real kernel.

use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;

use crate::namespace::Namespace;
use baton_common::punt::{PuntError, PuntTap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const MAC: [u8; 6] = [0x02, 0xba, 0x70, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// The next frame from the kernel that `wanted` accepts; others (IPv6 configuration) are passed over.
fn next_frame(tap: &PuntTap, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut frame = [0; 2048];
    loop {
        while let Some(length) = tap.read(&mut frame).unwrap() {
            if wanted(&frame[..length]) {
                return frame[..length].to_vec();
            }
        }
        let mut fds = [PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
        assert_eq!(ready, 1, "the kernel sent nothing");
    }
}

fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x06]
}

/// An ARP request (RFC 826) of 10.2.0.1 for 10.2.0.11.
fn arp_request() -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &ROUTER_MAC, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]].concat();
    frame.extend([&ROUTER_MAC[..], &[10, 2, 0, 1], &[0; 6], &[10, 2, 0, 11]].concat());
    frame
}

#[test]
fn root_the_kernel_answers_arp_with_batons_link_layer_address() {
    let node = Namespace::new();
    let tap = node.run(|| PuntTap::open("punt0", MAC).unwrap());
    node.ip("addr add 10.2.0.11/24 dev punt0");

    tap.write(&arp_request()).unwrap();

    let reply = next_frame(&tap, is_arp);
    assert_eq!((&reply[..6], &reply[6..12]), (&ROUTER_MAC[..], &MAC[..]));
    assert_eq!(reply[20..22], [0, 2], "an ARP reply");
}

#[test]
fn root_a_persistent_interface_is_attached_to_and_left_in_place() {
    let node = Namespace::new();
    node.ip("tuntap add dev punt0 mode tap");
    node.ip("addr add 10.2.0.11/24 dev punt0");

    for _ in 0..2 {
        let tap = node.run(|| PuntTap::open("punt0", MAC).unwrap());
        node.run(|| UdpSocket::bind("10.2.0.11:0").unwrap().send_to(b"x", "10.2.0.1:9").unwrap());
        let asked = next_frame(&tap, is_arp);
        assert_eq!(asked[6..12], MAC);
    }

    node.ip("link show punt0");
}

#[test]
fn root_an_interface_made_for_this_goes_with_it() {
    let node = Namespace::new();

    drop(node.run(|| PuntTap::open("punt0", MAC).unwrap()));

    let shown = node.run(|| Command::new("ip").args(["link", "show", "punt0"]).output().unwrap());
    assert!(!shown.status.success());
}

#[test]
fn root_what_is_no_free_tap_is_refused_with_its_name() {
    let node = Namespace::new();
    node.ip("tuntap add dev tun0 mode tun");
    let _held = node.run(|| PuntTap::open("punt0", MAC).unwrap());

    for interface in ["tun0", "punt0", "a-name-that-is-too-long"] {
        let Err(error) = node.run(move || PuntTap::open(interface, MAC)) else {
            panic!("{interface} was opened")
        };
        assert!(matches!(error, PuntError::Open { .. }) && error.to_string().contains(interface), "{error}");
    }
}
