//! This secondary's control socket: what `batonctl` asks of it, on threads of their own.
//!
//! The sync thread publishes how it is, and takes commands when it looks after such things; neither waits for the other.

use std::path::{Path, PathBuf};
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
use crate::succession::{Misstep, Succession};
use crate::successor::Program;

/// How long a command may take until the sync thread has carried it out.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a successor waits for the sync thread to give the part up.
const GIVE_UP_PATIENCE: Duration = Duration::from_secs(2);

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
    succession: Arc<Succession>,
    path: PathBuf,
    server: Server,
}

/// The clients' end.
struct Clerk {
    board: Arc<Mutex<Board>>,
    orders: Mutex<Sender<Order>>,
    security: Security,
    succession: Arc<Succession>,
    successor: Program,
}

impl Desk {
    /// Begins to listen; as a successor beside the socket of who is in charge, until [`Desk::step_in`]. To be called before
    /// DPDK binds this thread to its CPU: the socket's threads are not to share it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(
        runtime: &Path,
        numa: NumaId,
        security: &Security,
        successor: Program,
        succeeds: bool,
    ) -> anyhow::Result<Desk> {
        let board = Arc::new(Mutex::new(Board::default()));
        let (sender, orders) = channel();
        let succession = Arc::new(Succession::new());
        let clerk = Clerk {
            board: board.clone(),
            orders: Mutex::new(sender),
            security: security.clone(),
            succession: succession.clone(),
            successor,
        };
        let path = sync_socket_path(runtime, numa);
        let first = if succeeds { path.with_extension("next.sock") } else { path.clone() };
        let server = Server::start(&first, Arc::new(clerk))
            .with_context(|| format!("listening on {}", first.display()))?;
        Ok(Desk { board, orders, succession, path, server })
    }

    /// Takes the place of the predecessor's socket.
    ///
    /// # Errors
    /// The socket cannot be moved.
    pub fn step_in(&mut self) -> anyhow::Result<()> {
        self.server.move_to(&self.path).with_context(|| format!("listening on {}", self.path.display()))
    }

    /// Leaves the socket's place to the successor.
    pub fn step_down(&mut self) {
        self.server.leave_path();
    }

    /// Who has this secondary's part.
    pub fn succession(&self) -> &Succession {
        &self.succession
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
    fn answer(&self, request: Request, caller: u32) -> Result<Response, Refusal> {
        match request {
            Request::SyncStatus => {
                let mut status = self.board.lock().unwrap_or_else(PoisonError::into_inner).status.clone();
                if let Some(SyncStatus { succession, .. }) = &mut status {
                    (succession.failures, succession.failure) = self.succession.failures();
                }
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
            Request::SyncHandOver => self.successor.succeed(&self.succession).map(Response::HandedOver),
            Request::SyncGiveUp => done(self.succession.ask(caller, GIVE_UP_PATIENCE)),
            Request::SyncTaken { silence_us } => done(self.succession.taken(caller, silence_us)),
            other => Err(not_mine(&other)),
        }
    }
}

fn done(step: Result<(), Misstep>) -> Result<Response, Refusal> {
    step.map(|()| Response::Done)
        .map_err(|misstep| Refusal::new(RefusalCode::NotPossible, misstep.to_string()))
}

#[cfg(test)]
mod tests {
    use baton_common::config::KeyFile;
    use baton_common::control::{CallError, Callee, Client, SuccessionStatus};
    use baton_common::sync::protocol::readiness::ReadyState;

    use super::*;

    const NUMA: NumaId = NumaId(3);

    fn desk(runtime: &Path, security: &Security) -> anyhow::Result<Desk> {
        let successor = Program { path: "/nonexistent".into(), arguments: vec![] };
        Desk::open(runtime, NUMA, security, successor, false)
    }

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
        let desk = desk(runtime.path(), &Security::Off).unwrap();
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
            succession: SuccessionStatus::default(),
            peers: vec![],
        };
        desk.publish(status.clone(), None);

        assert_eq!(client(runtime.path()).sync_status().unwrap(), status);
    }

    #[test]
    fn commands_are_done_when_the_sync_thread_has_done_them() {
        let runtime = tempfile::tempdir().unwrap();
        let desk = desk(runtime.path(), &Security::Off).unwrap();

        let (drained, orders) =
            call_while_working(runtime.path(), &desk, Request::SyncDrain { draining: true });

        assert!(drained.is_ok() && orders == 1);
        let (refused, _) = call_while_working(runtime.path(), &desk, Request::Services);
        assert!(refused.unwrap_err().to_string().contains("ask the other one"));
    }

    #[test]
    fn a_successors_socket_stands_beside_until_it_steps_in() {
        let runtime = tempfile::tempdir().unwrap();
        let mut old = desk(runtime.path(), &Security::Off).unwrap();
        let program = Program { path: "/nonexistent".into(), arguments: vec![] };
        let mut new = Desk::open(runtime.path(), NUMA, &Security::Off, program, true).unwrap();
        let refused = client(runtime.path()).hand_over().unwrap_err();
        assert!(refused.to_string().contains("cannot be started"), "{refused}");
        assert_eq!((old.succession().failures().0, new.succession().failures().0), (1, 0));

        old.step_down();
        new.step_in().unwrap();
        drop(old);

        client(runtime.path()).hand_over().unwrap_err();
        assert_eq!(new.succession().failures().0, 1);
        drop(new);
        assert!(!sync_socket_path(runtime.path(), NUMA).exists());
    }

    #[test]
    fn only_a_successor_may_ask_for_the_part() {
        let runtime = tempfile::tempdir().unwrap();
        let _desk = desk(runtime.path(), &Security::Off).unwrap();
        for request in [Request::SyncGiveUp, Request::SyncTaken { silence_us: 0 }] {
            let refused = client(runtime.path()).have_done(&request).unwrap_err();
            assert!(refused.to_string().contains("was not started as the successor"), "{refused}");
        }
    }

    #[test]
    fn a_key_file_that_is_broken_changes_nothing() {
        let runtime = tempfile::tempdir().unwrap();
        let key_file = runtime.path().join("sync.key");
        KeyFile::generate().unwrap().create(&key_file).unwrap();
        let security = Security::Aead { key_file: key_file.clone() };
        let desk = desk(runtime.path(), &security).unwrap();

        let (reloaded, orders) = call_while_working(runtime.path(), &desk, Request::SyncKeys);
        assert!(reloaded.is_ok() && orders == 1);

        std::fs::write(&key_file, "1 seal 00").unwrap();
        let (refused, orders) = call_while_working(runtime.path(), &desk, Request::SyncKeys);
        assert!(refused.unwrap_err().to_string().contains("stay as they were"));
        assert_eq!(orders, 0);
    }
}
