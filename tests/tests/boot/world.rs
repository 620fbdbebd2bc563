//! What is on the other side of the node's port: a client and a real server, in a network namespace inside the container.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::container::Container;
use crate::node::{REAL_SERVER, VIP};
use crate::wait::wait_for;

/// Puts the port's tap into the namespace and gives both sides addresses and routes. Needed again when a primary has made the tap anew.
const CONNECT: &str = "
ip netns list | grep -q world || ip netns add world
ip link set lb0 netns world
ip -n world link set lo up
ip -n world address replace 192.0.2.11/32 dev lo
ip -n world address add 10.2.0.1/24 dev lb0
ip -n world link set lb0 up
ip -n world route add 203.0.113.1 via 10.2.0.10
ip -n world route add 198.51.100.0/24 via 10.2.0.10
ip address replace 10.2.0.10/24 dev punt0
ip link set punt0 up
ip route replace 192.0.2.0/24 via 10.2.0.1
";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Client and server. Connected anew after each start of a primary.
pub struct World {
    client: UdpSocket,
    server: UdpSocket,
    sent: u32,
    seen: BTreeSet<SocketAddr>,
}

impl World {
    /// Connects them to the node, and waits until datagrams pass.
    pub fn connect(container: &Container) -> World {
        container.run(&["sh", "-ec", CONNECT]);
        let netns = File::open(container.path("/run/netns/world")).expect("the namespace");
        let sockets = std::thread::scope(|scope| {
            // A thread of its own: it never leaves the namespace again.
            let thread = scope.spawn(|| {
                setns(netns, CloneFlags::CLONE_NEWNET).expect("into the namespace");
                let server = UdpSocket::bind(REAL_SERVER).expect("the server's socket");
                let client = UdpSocket::bind("10.2.0.1:4000").expect("the client's socket");
                (client, server)
            });
            thread.join()
        });
        let (client, server) = sockets.expect("two sockets");
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        }
        let mut world = World { client, server, sent: 0, seen: BTreeSet::new() };
        wait_for(20, "a datagram there and back", || world.exchange());
        world
    }

    /// Sends `count` datagrams to the VIP one after the other. Each must come back.
    pub fn exchange_all(&mut self, count: u32) {
        for number in 0..count {
            self.exchange().unwrap_or_else(|error| panic!("datagram {number} of {count}: {error}"));
        }
    }

    /// The addresses that the server has seen: one for each session.
    pub fn sessions(&self) -> &BTreeSet<SocketAddr> {
        &self.seen
    }

    fn exchange(&mut self) -> Result<(), String> {
        self.sent += 1;
        let payload = self.sent.to_be_bytes();
        self.client.send_to(&payload, VIP).map_err(|error| error.to_string())?;
        let local = receive(&self.server, payload).map_err(|error| format!("at the server: {error}"))?;
        self.seen.insert(local);
        self.server.send_to(&payload, local).map_err(|error| error.to_string())?;
        let from = receive(&self.client, payload).map_err(|error| format!("at the client: {error}"))?;
        assert_eq!(from.to_string(), VIP);
        Ok(())
    }
}

/// Waits for this datagram, and says where it came from. Late ones are passed over.
fn receive(socket: &UdpSocket, payload: [u8; 4]) -> Result<SocketAddr, String> {
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((4, from)) if buffer[..4] == payload => return Ok(from),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err("nothing came".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
}
