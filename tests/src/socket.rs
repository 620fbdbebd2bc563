//! UDP sockets with buffers large enough that a busy machine does not drop what the network delivered.

use std::net::{SocketAddr, UdpSocket as StdUdpSocket};

use anyhow::Result;
use mio::net::UdpSocket;
use nix::sys::socket::{SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

/// Receive and send buffer, bytes.
const BUFFER_BYTES: usize = 4 << 20;

/// A non-blocking UDP socket on `address`; one for IPv6 takes no IPv4.
///
/// # Errors
/// If the address is taken or may not be used.
pub fn bind_udp(address: SocketAddr) -> Result<UdpSocket> {
    let family = if address.is_ipv4() {
        nix::sys::socket::AddressFamily::Inet
    } else {
        nix::sys::socket::AddressFamily::Inet6
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // More than the system's limit takes a privilege; without it the limit must do.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
        setsockopt(&socket, sockopt::SndBuf, &BUFFER_BYTES)?;
    }
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(address))?;
    Ok(UdpSocket::from_std(StdUdpSocket::from(socket)))
}
