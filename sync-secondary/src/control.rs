//! This secondary's control socket: what `batonctl` asks of it, on threads of their own.
//!
//! The sync thread publishes how it is, and takes commands when it looks after such things; neither waits for the other.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use baton_common::config::Security;
use baton_common::control::{
    Handler, Refusal, RefusalCode, Request, Response, Server, SyncStatus, not_mine, sync_socket_path,
};
use baton_common::id::{NodeId, NumaId};
use baton_common::metrics::AskStatus;
use baton_common::sync::protocol::Comparison;
use baton_common::sync::seal::Keyring;

use crate::security::load_keys;

/// How long a command may take until the sync thread has carried it out.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the sync thread is to do.
pub enum Command {
    /// Whether the node is to draw no traffic.
    Drain(bool),
    /// The configured share of what the members announce is enough.
    Accept,
    /// Seal and open with these from now on.
    UseKeys(Arc<Keyring>),
    /// Compare sessions with this peer.
    Compare(NodeId),
}

/// A command, and whom to tell that it was carried out, or why it was not.
pub struct Order {
    pub command: Command,
    pub done: SyncSender<Result<(), String>>,
}

/// What clients see.
#[derive(Default)]
struct Board {
    status: Option<SyncStatus>,
    comparison: Option<Comparison>,
}

/// The sync thread's end.
pub struct Desk {
    board: Arc<Mutex<Board>>,
    orders: Receiver<Order>,
    _server: Server,
}

/// The clients' end.
struct Clerk {
    board: Arc<Mutex<Board>>,
    orders: Mutex<Sender<Order>>,
    security: Security,
}

impl Desk {
    /// Begins to listen. To be called before DPDK binds this thread to its CPU: the socket's threads are not to share it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(runtime: &Path, numa: NumaId, security: &Security) -> anyhow::Result<Desk> {
        let board = Arc::new(Mutex::new(Board::default()));
        let (sender, orders) = channel();
        let clerk = Clerk { board: board.clone(), orders: Mutex::new(sender), security: security.clone() };
        let path = sync_socket_path(runtime, numa);
        let server = Server::start(&path, Arc::new(clerk))
            .with_context(|| format!("listening on {}", path.display()))?;
        Ok(Desk { board, orders, _server: server })
    }

    /// Says how this secondary is, and how the comparison goes that it was asked for.
    pub fn publish(&self, status: SyncStatus, comparison: Option<&Comparison>) {
        let comparison = comparison.cloned();
        *self.board.lock().unwrap_or_else(PoisonError::into_inner) =
            Board { status: Some(status), comparison };
    }

    /// Reads what was last published, from any thread.
    pub fn status_reader(&self) -> AskStatus {
        let board = self.board.clone();
        Box::new(move || board.lock().unwrap_or_else(PoisonError::into_inner).status.clone())
    }

    /// The next command, if there is one.
    pub fn next_order(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }
}

impl Clerk {
    fn order(&self, command: Command) -> Result<Response, Refusal> {
        let busy = || Refusal::new(RefusalCode::Busy, "the sync thread is not at work yet: try again");
        let (done, wait) = sync_channel(1);
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        orders.send(Order { command, done }).map_err(|_| busy())?;
        match wait.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(Response::Done),
            Ok(Err(reason)) => Err(Refusal::new(RefusalCode::NotPossible, reason)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(busy()),
        }
    }

    fn reload_keys(&self) -> Result<Response, Refusal> {
        let refused = |message: String| Refusal::new(RefusalCode::NotPossible, message);
        match load_keys(&self.security) {
            Ok(Some(keyring)) => self.order(Command::UseKeys(keyring)),
            Ok(None) => Err(refused("sync.security is Off: there are no keys".into())),
            Err(error) => Err(refused(format!("{error:#}; the keys in use stay as they were"))),
        }
    }
}

impl Handler for Clerk {
    fn answer(&self, request: Request, _caller: u32) -> Result<Response, Refusal> {
        match request {
            Request::SyncStatus => {
                let status = self.board.lock().unwrap_or_else(PoisonError::into_inner).status.clone();
                let starting = || Refusal::new(RefusalCode::Busy, "the secondary is starting: try again");
                status.map(|status| Response::Sync(Box::new(status))).ok_or_else(starting)
            }
            Request::SyncDrain { draining } => self.order(Command::Drain(draining)),
            Request::SyncAccept => self.order(Command::Accept),
            Request::SyncKeys => self.reload_keys(),
            Request::SyncCompare { node } => self.order(Command::Compare(node)),
            Request::SyncComparison => {
                let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
                let none = || Refusal::new(RefusalCode::NotPossible, "no comparison was asked for");
                let comparison = board.comparison.clone().ok_or_else(none)?;
                Ok(Response::Comparison(Box::new(comparison)))
            }
            other => Err(not_mine(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use baton_common::config::KeyFile;
    use baton_common::control::{CallError, Callee, Client};
    use baton_common::sync::protocol::readiness::ReadyState;

    use super::*;

    const NUMA: NumaId = NumaId(3);

    fn client(runtime: &Path) -> Client {
        Client::connect(runtime, Callee::Secondary(NUMA), Duration::from_secs(10)).unwrap()
    }

    /// Calls while the sync thread's part is played here: it carries out what it is told.
    fn call_while_working(runtime: &Path, desk: &Desk, request: Request) -> (Result<(), CallError>, usize) {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| client(runtime).have_done(&request));
            let mut orders = 0;
            while !call.is_finished() {
                if let Some(order) = desk.next_order() {
                    orders += 1;
                    order.done.send(Ok(())).unwrap();
                }
                std::thread::yield_now();
            }
            (call.join().unwrap(), orders)
        })
    }

    #[test]
    fn what_is_published_is_what_clients_see() {
        let runtime = tempfile::tempdir().unwrap();
        let desk = Desk::open(runtime.path(), NUMA, &Security::Off).unwrap();
        let early = client(runtime.path()).sync_status().unwrap_err();
        assert!(early.to_string().contains("is starting"), "{early}");

        let status = SyncStatus {
            version: "1".into(),
            pid: 7,
            numa: NUMA,
            state: ReadyState::Syncing,
            alarm: true,
            member: true,
            sessions_owned: 11,
            peers: vec![],
        };
        desk.publish(status.clone(), None);

        assert_eq!(client(runtime.path()).sync_status().unwrap(), status);
    }

    #[test]
    fn commands_are_done_when_the_sync_thread_has_done_them() {
        let runtime = tempfile::tempdir().unwrap();
        let desk = Desk::open(runtime.path(), NUMA, &Security::Off).unwrap();

        let (drained, orders) =
            call_while_working(runtime.path(), &desk, Request::SyncDrain { draining: true });

        assert!(drained.is_ok() && orders == 1);
        let (refused, _) = call_while_working(runtime.path(), &desk, Request::Services);
        assert!(refused.unwrap_err().to_string().contains("ask the other one"));
    }

    #[test]
    fn a_key_file_that_is_broken_changes_nothing() {
        let runtime = tempfile::tempdir().unwrap();
        let key_file = runtime.path().join("sync.key");
        KeyFile::generate().unwrap().create(&key_file).unwrap();
        let security = Security::Aead { key_file: key_file.clone() };
        let desk = Desk::open(runtime.path(), NUMA, &security).unwrap();

        let (reloaded, orders) = call_while_working(runtime.path(), &desk, Request::SyncKeys);
        assert!(reloaded.is_ok() && orders == 1);

        std::fs::write(&key_file, "1 seal 00").unwrap();
        let (refused, orders) = call_while_working(runtime.path(), &desk, Request::SyncKeys);
        assert!(refused.unwrap_err().to_string().contains("stay as they were"));
        assert_eq!(orders, 0);
    }
}
