//! Frames made by hand, and a socket that sends them as they are.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use baton_common::packet::checksum::Sum;
use baton_common::packet::{MacAddress, UdpPath};
use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};

use crate::harness::Lab;

/// Baton's link-layer address on node 1.
pub const NODE1_MAC: MacAddress = [0x02, 0xba, 0x70, 0, 0, 1];
/// A link-layer address that nobody else has.
const SENDER_MAC: MacAddress = [0x02, 0, 0, 0, 0, 0xee];

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of an IPv4 header without options.
const IPV4_BYTES: usize = 20;

/// The segment that the nodes are on, written to from the router's side.
pub struct Fabric {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl Fabric {
    /// Opens the segment of a lab.
    pub fn open(lab: &Lab) -> Fabric {
        let netns =
            File::open(format!("/run/netns/{}", lab.netns("router"))).expect("the router's namespace");
        let opened = std::thread::scope(|scope| {
            // A thread of its own: it never leaves the namespace again.
            let thread = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).expect("into the router's namespace");
                let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None);
                let mut interfaces = getifaddrs().expect("the router's interfaces");
                let interface = interfaces
                    .find_map(|entry| {
                        let link = entry.address?.as_link_addr().copied()?;
                        (entry.interface_name == "fabric").then_some(link)
                    })
                    .expect("the bridge of the nodes");
                Fabric { socket: socket.expect("a packet socket"), interface }
            });
            thread.join()
        });
        opened.expect("the segment")
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = sendto(self.socket.as_raw_fd(), frame, &self.interface, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()));
    }
}

/// A frame to Baton's address on node 1 that carries a UDP datagram.
pub fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let endpoint = |text: &str| text.parse::<SocketAddr>().expect("an endpoint").into();
    let path = UdpPath {
        source_mac: SENDER_MAC,
        next_hop_mac: NODE1_MAC,
        source: endpoint(source),
        destination: endpoint(destination),
    };
    let mut frame = vec![0; 2048];
    let length = path.write(&mut frame, payload).expect("a datagram that fits");
    frame.truncate(length);
    frame
}

/// The same with TCP, with these flags and no payload. Its TCP checksum is left out: a balancer does not look at it.
pub fn tcp(source: &str, destination: &str, flags: u8) -> Vec<u8> {
    const DATA_OFFSET: u8 = 5 << 4;
    const TCP: u8 = 6;
    // Ports, sequence and acknowledgement number, offset and flags, window, checksum, urgent pointer: ports stand where
    // UDP has them, and what follows UDP's header is the rest.
    let mut rest = [0; 12];
    (rest[4], rest[5]) = (DATA_OFFSET, flags);
    let mut frame = udp(source, destination, &rest);
    let is_v4 = frame[ETHERNET_BYTES] >> 4 == 4;
    let (protocol_at, transport_at) = if is_v4 { (9, IPV4_BYTES) } else { (6, 40) };
    frame[ETHERNET_BYTES + protocol_at] = TCP;
    let numbers = ETHERNET_BYTES + transport_at + 4;
    frame[numbers..numbers + 4].copy_from_slice(&1u32.to_be_bytes());
    if is_v4 {
        seal_ipv4(&mut frame);
    }
    frame
}

/// Makes the IPv4 header's checksum right again after a change.
pub fn seal_ipv4(frame: &mut [u8]) {
    let header = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
    header[10..12].fill(0);
    let checksum = Sum::new().bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}
