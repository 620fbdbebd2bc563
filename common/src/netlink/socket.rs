//! Sockets to the kernel's routing tables: one that asks, one that listens for changes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::flow::Address;

/// Room for one read: the kernel's dumps come in parts of at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How long the kernel may take for an answer.
const ANSWER_TIMEOUT_MS: i64 = 2_000;
/// How often a dump is begun again because the tables changed under it.
const DUMP_ATTEMPTS: usize = 3;

/// Waits until there is something to read, at most `timeout_ms`; says whether there is.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, timeout_ms: i64) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec { tv_sec: timeout_ms / 1000, tv_nsec: (timeout_ms % 1000) * 1_000_000 };
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The socket that asks.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Requests {
    pub fn open() -> io::Result<Requests> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        Ok(Requests { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Every route of both families.
    pub fn routes(&mut self) -> io::Result<Vec<RouteMessage>> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.dump(RouteNetlinkMessage::GetRoute(request), &mut routes, |message| match message {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })?;
        }
        Ok(routes)
    }

    /// Every neighbour on an interface, of both families.
    pub fn neighbours(&mut self, ifindex: u32) -> io::Result<Vec<NeighbourMessage>> {
        let mut neighbours = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = NeighbourMessage::default();
            request.header.family = family;
            request.attributes.push(NeighbourAttribute::IfIndex(ifindex));
            let request = RouteNetlinkMessage::GetNeighbour(request);
            self.dump(request, &mut neighbours, |message| match message {
                RouteNetlinkMessage::NewNeighbour(neighbour) => Some(neighbour),
                _ => None,
            })?;
        }
        Ok(neighbours)
    }

    /// Tells the kernel that a neighbour is in use (`NTF_USE`): it asks for its link-layer address, or confirms it.
    pub fn use_neighbour(&mut self, ifindex: u32, address: Address) -> io::Result<()> {
        let mut request = NeighbourMessage::default();
        request.header.ifindex = ifindex;
        request.header.flags = NeighbourFlags::Use;
        let destination = match address.into() {
            std::net::IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
            std::net::IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
        };
        request.header.family = destination.0;
        request.attributes.push(NeighbourAttribute::Destination(destination.1));
        let request = RouteNetlinkMessage::NewNeighbour(request);
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)?;
        self.receive(|_| {}).map(|_| ())
    }

    /// Asks for a dump and appends what `pick` takes of it; again if the tables changed meanwhile.
    fn dump<T>(
        &mut self,
        request: RouteNetlinkMessage,
        found: &mut Vec<T>,
        pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> io::Result<()> {
        let kept = found.len();
        for _ in 0..DUMP_ATTEMPTS {
            found.truncate(kept);
            self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if self.receive(|message| found.extend(pick(message)))? == Dump::Whole {
                break;
            }
        }
        // Still torn after the last attempt: a notification of the change is under way, and leads to another dump.
        Ok(())
    }

    fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(request);
        message.header.flags = flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(|_| ())
    }

    /// Reads the answer to the last request up to its end.
    fn receive(&mut self, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<Dump> {
        let mut dump = Dump::Whole;
        loop {
            if !wait_readable(self.socket.as_fd(), ANSWER_TIMEOUT_MS)? {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the kernel did not answer a netlink request",
                ));
            }
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0)?;
            for bytes in messages(&self.buffer) {
                let header = NetlinkBuffer::new(bytes);
                if header.sequence_number() != self.sequence {
                    continue;
                }
                if header.flags() & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Torn;
                }
                // A message that this build cannot read is one route or neighbour less, not the end of the dump.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else { continue };
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Done(_) => return Ok(dump),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(dump),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

#[derive(PartialEq)]
enum Dump {
    Whole,
    /// The tables changed while they were read.
    Torn,
}

/// What may have changed since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub link: bool,
    pub routes: bool,
    pub neighbours: bool,
}

impl Changes {
    pub const ALL: Changes = Changes { link: true, routes: true, neighbours: true };

    pub fn any(&self) -> bool {
        self.link || self.routes || self.neighbours
    }
}

/// The socket that listens for changes.
pub(super) struct Notifications {
    socket: Socket,
    buffer: Vec<u8>,
}

// Multicast groups and message types of <linux/rtnetlink.h>.
const GROUPS: [u32; 5] = [1, 3, 7, 11, 32]; // LINK, NEIGH, IPV4_ROUTE, IPV6_ROUTE, NEXTHOP
const LINK_TYPES: [u16; 2] = [16, 17];
const ROUTE_TYPES: [u16; 4] = [24, 25, 104, 105];
const NEIGHBOUR_TYPES: [u16; 2] = [28, 29];

impl Notifications {
    pub fn open() -> io::Result<Notifications> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Notifications { socket, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Reads what has come, and notes in `changes` what may have changed for the interface.
    ///
    /// A notification only says that something must be read anew: a queued one may be older than the last dump.
    pub fn drain(&mut self, ifindex: Option<u32>, changes: &mut Changes) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The kernel had to drop notifications: nobody knows which.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    *changes = Changes::ALL;
                }
                Err(error) => return Err(error),
            }
            for bytes in messages(&self.buffer) {
                note(bytes, ifindex, changes);
            }
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn note(bytes: &[u8], ifindex: Option<u32>, changes: &mut Changes) {
    let message = NetlinkBuffer::new(bytes);
    let kind = message.message_type();
    // Both `ifinfomsg` and `ndmsg` have the interface index at byte 4.
    let about = message.payload().get(4..8).map(|index| u32::from_ne_bytes(index.try_into().unwrap()));
    if LINK_TYPES.contains(&kind) {
        changes.link = true;
    } else if ROUTE_TYPES.contains(&kind) {
        changes.routes = true;
    } else if NEIGHBOUR_TYPES.contains(&kind) && about == ifindex {
        changes.neighbours = true;
    }
}

/// The netlink messages in what one read returned.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = NetlinkBuffer::new_checked(bytes).ok()?.length() as usize;
        let message = bytes.get(..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(kind: u16, ifindex: u32) -> Vec<u8> {
        let mut bytes = vec![0; 28];
        bytes[..4].copy_from_slice(&28u32.to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[20..24].copy_from_slice(&ifindex.to_ne_bytes());
        bytes
    }

    #[test]
    fn notifications_are_sorted_by_what_they_are_about() {
        let noted = |kind, ifindex| {
            let mut changes = Changes::default();
            note(&notification(kind, ifindex), Some(7), &mut changes);
            changes
        };

        assert_eq!(noted(28, 7), Changes { neighbours: true, ..Changes::default() });
        assert_eq!(noted(28, 8), Changes::default());
        assert_eq!(noted(24, 0), Changes { routes: true, ..Changes::default() });
        assert_eq!(noted(16, 8), Changes { link: true, ..Changes::default() });
    }

    #[test]
    fn a_truncated_message_ends_the_read() {
        let mut bytes = [notification(24, 0), notification(28, 7)].concat();
        bytes.truncate(40);

        assert_eq!(messages(&bytes).count(), 1);
        assert_eq!(messages(&[]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }

    #[test]
    fn dumps_and_subscriptions_need_no_privilege() {
        let mut requests = Requests::open().unwrap();
        let mut notifications = Notifications::open().unwrap();
        let mut changes = Changes::default();

        requests.routes().unwrap();
        requests.neighbours(1).unwrap();
        notifications.drain(None, &mut changes).unwrap();
    }
}
