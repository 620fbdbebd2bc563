//! The UDP echo server: sends every datagram back and writes into it which instance of the server answered.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

use crate::load::datagram;
use crate::process::ProcessId;
use crate::signals;
use crate::socket;

/// What the echo server is told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// UDP port
    #[arg(long, default_value_t = 7)]
    port: u16,
    /// A file to make when datagrams are answered
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

/// Answers until told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// If the port is taken or may not be used.
pub fn serve(arguments: &Arguments) -> Result<()> {
    signals::note()?;
    let addresses = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, arguments.port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, arguments.port)),
    ];
    let mut sockets = Vec::new();
    for address in addresses {
        sockets.push(socket::bind_udp(address).with_context(|| format!("cannot listen on UDP {address}"))?);
    }
    if let Some(path) = &arguments.ready_file {
        std::fs::write(path, "")?;
    }
    answer(sockets)
}

fn answer(mut sockets: Vec<UdpSocket>) -> Result<()> {
    let own = ProcessId::own();
    let instance = (own.start_ticks << 32) | u64::from(own.pid);
    let mut poll = Poll::new()?;
    for (number, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(number), Interest::READABLE)?;
    }
    let mut events = Events::with_capacity(16);
    while !signals::is_set() {
        match poll.poll(&mut events, Some(Duration::from_millis(200))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            answer_all(&sockets[event.token().0], instance);
        }
    }
    Ok(())
}

/// Answers everything that has arrived.
fn answer_all(socket: &UdpSocket, instance: u64) {
    let mut buffer = [0; 65_536];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                datagram::sign(&mut buffer[..length], instance);
                // A full send buffer drops the answer, as a network may; the client counts it.
                socket.send_to(&buffer[..length], peer).ok();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // An ICMP error for an earlier answer: the next datagram may be fine.
            Err(_) => {}
        }
    }
}
