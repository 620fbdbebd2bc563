//! The kernel's neighbours and routes, mirrored over netlink.
//!
//! A [`Mirror`] is a thread that keeps a [`Neighbours`] snapshot in step with what the kernel knows of one interface. A
//! notification never changes the snapshot by itself: it makes the thread read the tables anew, so a lost, reordered or
//! misunderstood one costs time at most. Resolution is the kernel's work too: the mirror asks it to (`NTF_USE`).

mod message;
mod socket;
mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::net::if_::if_nametoindex;
use tracing::{info, warn};

use crate::flow::Address;
use crate::neighbour::{Neighbours, NextHop, Route, SharedNeighbours};
use crate::time::Millis;
use message::Neighbour;
use socket::{Changes, Notifications, Requests};
use wanted::Wanted;

/// How often the thread looks for workers' requests.
const TICK_MS: i64 = 10;
/// Shortest time between two readings of the tables.
const READ_PAUSE_MS: u64 = 10;
/// How often the tables are read though nothing was heard.
const READ_ANYWAY_MS: u64 = 30_000;
/// How long to wait after an error of a netlink socket.
const ERROR_PAUSE_MS: u64 = 1_000;
/// Requests that workers may leave between two looks.
const REQUESTS_MAX: usize = 1024;

/// What to mirror.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// The name of the interface. It may appear later, go away and come back.
    pub interface: String,
    /// Destinations whose next hops are always kept resolved: real servers, peers.
    pub keep: Vec<Address>,
}

/// The thread that mirrors the kernel. It runs in the network namespace of the thread that started it, and ends when
/// this is dropped.
pub struct Mirror {
    neighbours: SharedNeighbours,
    resolver: Resolver,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Asks the mirror for link-layer addresses. Cheap to clone, one for each worker.
#[derive(Clone)]
pub struct Resolver(SyncSender<Address>);

impl From<SyncSender<Address>> for Resolver {
    /// A resolver whose requests go to whoever receives from that channel.
    fn from(requests: SyncSender<Address>) -> Resolver {
        Resolver(requests)
    }
}

impl Resolver {
    /// Asks for a next hop's link-layer address, which will show up in the snapshot.
    ///
    /// Never blocks, allocates or calls the system: a request that finds the queue full is dropped, and the next packet
    /// will make it again.
    #[inline]
    pub fn want(&self, next_hop: Address) {
        let _ = self.0.try_send(next_hop);
    }
}

impl Mirror {
    /// Starts the thread. The first snapshot is empty unless the interface exists already.
    ///
    /// # Errors
    /// Netlink sockets cannot be opened or read, or the thread cannot be made.
    pub fn start(options: MirrorOptions) -> io::Result<Mirror> {
        let neighbours = Neighbours::default().into_shared();
        let (sender, requests) = sync_channel(REQUESTS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let mut reflection = Reflection {
            interface: options.interface,
            keep: options.keep,
            kernel: Requests::open()?,
            notifications: Notifications::open()?,
            shared: neighbours.clone(),
            ifindex: None,
            routes: Vec::new(),
            neighbours: NeighbourTable::new(),
            macs: BTreeMap::new(),
            wanted: Wanted::default(),
            refused: false,
        };
        reflection.read(Changes::ALL)?;
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("netlink".into())
            .spawn(move || reflection.run(&requests, &stopped))?;
        Ok(Mirror { neighbours, resolver: Resolver(sender), stop, thread: Some(thread) })
    }

    /// The snapshot that is always in step, for a [`NeighbourReader`](crate::neighbour::NeighbourReader).
    pub fn neighbours(&self) -> SharedNeighbours {
        self.neighbours.clone()
    }

    /// What workers ask for link-layer addresses with.
    pub fn resolver(&self) -> Resolver {
        self.resolver.clone()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type NeighbourTable = BTreeMap<Address, Neighbour>;

/// The thread's state: the tables as they were last read.
struct Reflection {
    interface: String,
    keep: Vec<Address>,
    kernel: Requests,
    notifications: Notifications,
    shared: SharedNeighbours,
    ifindex: Option<u32>,
    routes: Vec<Route>,
    neighbours: NeighbourTable,
    /// The link-layer addresses of the snapshot that is published.
    macs: BTreeMap<Address, [u8; 6]>,
    wanted: Wanted,
    /// The kernel has refused to resolve, and that was said.
    refused: bool,
}

impl Reflection {
    fn run(mut self, requests: &Receiver<Address>, stop: &AtomicBool) {
        let mut changes = Changes::default();
        let mut read_at = Millis::now();
        while !stop.load(Ordering::Relaxed) {
            let step = self.step(requests, &mut changes, &mut read_at);
            if let Err(error) = step {
                warn!(%error, "the kernel's routes and neighbours cannot be read, trying again");
                changes = Changes::ALL;
                read_at = Millis::now() + ERROR_PAUSE_MS - READ_PAUSE_MS;
                std::thread::sleep(std::time::Duration::from_millis(TICK_MS as u64));
                self.reopen();
            }
        }
    }

    fn step(
        &mut self,
        requests: &Receiver<Address>,
        changes: &mut Changes,
        read_at: &mut Millis,
    ) -> io::Result<()> {
        if socket::wait_readable(self.notifications.as_fd(), TICK_MS)? {
            self.notifications.drain(self.ifindex, changes)?;
        }
        let now = Millis::now();
        if now.since(*read_at) >= READ_ANYWAY_MS {
            *changes = Changes::ALL;
        }
        if changes.any() && now >= *read_at + READ_PAUSE_MS {
            self.read(*changes)?;
            *changes = Changes::default();
            *read_at = now;
        }
        for next_hop in requests.try_iter().take(REQUESTS_MAX) {
            self.wanted.ask(next_hop, now);
        }
        self.resolve(now);
        Ok(())
    }

    /// Reads what may have changed, and publishes a new snapshot if anything did.
    fn read(&mut self, mut changes: Changes) -> io::Result<()> {
        if changes.link {
            let ifindex = if_nametoindex(self.interface.as_str()).ok();
            if ifindex != self.ifindex {
                info!(interface = self.interface, ?ifindex, "the punt interface appeared, went or changed");
                self.ifindex = ifindex;
                self.wanted.restart();
                changes = Changes::ALL;
            }
        }
        let (routes, neighbours) = match self.ifindex {
            Some(ifindex) => (self.read_routes(ifindex, changes)?, self.read_neighbours(ifindex, changes)?),
            None => (Some(Vec::new()), Some(NeighbourTable::new())),
        };
        self.neighbours = neighbours.unwrap_or_else(|| std::mem::take(&mut self.neighbours));
        let macs: BTreeMap<Address, [u8; 6]> =
            self.neighbours.iter().filter_map(|(address, known)| Some((*address, known.mac?))).collect();
        let routes = routes.filter(|routes| *routes != self.routes);
        if routes.is_some() || macs != self.macs {
            self.routes = routes.unwrap_or_else(|| std::mem::take(&mut self.routes));
            self.publish(macs);
        }
        Ok(())
    }

    fn read_routes(&mut self, ifindex: u32, changes: Changes) -> io::Result<Option<Vec<Route>>> {
        if !changes.routes {
            return Ok(None);
        }
        let found = self.kernel.routes()?;
        Ok(Some(found.iter().filter_map(|route| message::route(route, ifindex)).collect()))
    }

    fn read_neighbours(&mut self, ifindex: u32, changes: Changes) -> io::Result<Option<NeighbourTable>> {
        if !changes.neighbours {
            return Ok(None);
        }
        let found = self.kernel.neighbours(ifindex)?;
        Ok(Some(found.iter().filter_map(|neighbour| message::neighbour(neighbour, ifindex)).collect()))
    }

    fn publish(&mut self, macs: BTreeMap<Address, [u8; 6]>) {
        let snapshot = Neighbours::new(&self.routes, macs.clone());
        let gateways = self.routes.iter().flat_map(|route| &route.hops).filter_map(|hop| match hop.hop {
            NextHop::Gateway(gateway) => Some(gateway),
            NextHop::OnLink => None,
        });
        let kept = self.keep.iter().filter_map(|destination| snapshot.next_hop(*destination));
        let standing: BTreeSet<Address> = gateways.chain(kept).collect();
        self.wanted.set_standing(standing);
        self.macs = macs;
        self.shared.store(Arc::new(snapshot));
    }

    /// Asks the kernel for the neighbours that are due.
    fn resolve(&mut self, now: Millis) {
        let Some(ifindex) = self.ifindex else { return };
        let neighbours = &self.neighbours;
        let due = self.wanted.due(now, |address| neighbours.get(&address).map(|known| known.state));
        for address in due {
            match self.kernel.use_neighbour(ifindex, address) {
                Ok(()) => self.refused = false,
                Err(error) if !self.refused => {
                    self.refused = true;
                    warn!(%error, %address, "the kernel does not resolve a neighbour: is CAP_NET_ADMIN missing?");
                }
                Err(_) => {}
            }
        }
    }

    /// Takes new sockets, if that is possible, since the old ones failed.
    fn reopen(&mut self) {
        if let (Ok(kernel), Ok(notifications)) = (Requests::open(), Notifications::open()) {
            self.kernel = kernel;
            self.notifications = notifications;
        }
    }
}
