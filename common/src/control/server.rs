//! The answering side of the control protocol.

use std::fs::Permissions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::warn;

use super::line::{Line, Lines};
use super::{REQUEST_BYTES_MAX, Refusal, RefusalCode, Request, Response};

/// Clients served at one time; more are sent away.
const CLIENTS_MAX: usize = 16;
/// How long a client may keep its connection without a whole request, and take for reading a response.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the listening thread looks whether it is to stop. Milliseconds.
const STOP_LATENCY_MS: i64 = 100;

/// What a process does about each request. Called from a thread per client, so it may wait, if not for ever.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request of process `caller`, as the kernel says.
    ///
    /// # Errors
    /// It is refused. What is not this process's to answer is refused with [`not_mine`].
    fn answer(&self, request: Request, caller: u32) -> Result<Response, Refusal>;
}

/// The refusal of a request that another process answers.
pub fn not_mine(request: &Request) -> Refusal {
    Refusal::new(RefusalCode::NotPossible, format!("{request:?} is not for this process: ask the other one"))
}

/// A listening control socket: one thread that accepts, and one for each client. Dropping it stops accepting and removes
/// the socket; clients that are being served keep their threads until they time out.
pub struct Server {
    path: PathBuf,
    owns_path: bool,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `path`, readable and writable for its owner only. A socket that is there already is replaced: whoever
    /// calls this holds the process's lock.
    ///
    /// # Errors
    /// The socket or the thread cannot be made.
    pub fn start(path: &Path, handler: Arc<dyn Handler>) -> io::Result<Server> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || accept(&listener, &handler, &stopped))?;
        Ok(Server { path: path.into(), owns_path: true, stop, thread: Some(thread) })
    }
}

impl Server {
    /// Moves the socket to another path, and takes the place of one that is there, so that somebody listens at any time.
    ///
    /// # Errors
    /// The socket cannot be moved.
    pub fn move_to(&mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.path = path.into();
        self.owns_path = true;
        Ok(())
    }

    /// Notes that another process is about to listen at this path: the socket there is not this one's to remove.
    pub fn leave_path(&mut self) {
        self.owns_path = false;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if self.owns_path {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn accept(listener: &UnixListener, handler: &Arc<dyn Handler>, stop: &AtomicBool) {
    let clients = Arc::new(());
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: 0, tv_nsec: STOP_LATENCY_MS * 1_000_000 };
        if !matches!(poll(&mut fds, Some(&timeout)), Ok(ready) if ready > 0) {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => admit(stream, handler, &clients),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                warn!(%error, "a control client cannot be accepted");
                std::thread::sleep(Duration::from_millis(STOP_LATENCY_MS as u64));
            }
        }
    }
}

/// Starts a thread for a client, or sends it away if there are too many. `clients` is shared by the threads that run.
fn admit(stream: UnixStream, handler: &Arc<dyn Handler>, clients: &Arc<()>) {
    let mut lines = Lines::new(stream, REQUEST_BYTES_MAX);
    if Arc::strong_count(clients) > CLIENTS_MAX {
        let refusal =
            Refusal::new(RefusalCode::Busy, format!("{CLIENTS_MAX} clients are connected: try again later"));
        // A fresh socket has room for one line.
        let _ = respond(&mut lines, &Response::Error(refusal));
        return;
    }
    let (handler, counted) = (handler.clone(), clients.clone());
    let served = std::thread::Builder::new().name("control-client".into()).spawn(move || {
        serve(&mut lines, &*handler);
        drop(counted);
    });
    if let Err(error) = served {
        warn!(%error, "a control client cannot be served");
    }
}

/// Answers a client's requests until it goes, is silent for too long, or does not take its answers.
fn serve(lines: &mut Lines, handler: &dyn Handler) {
    let Ok(peer) = getsockopt(lines.stream(), PeerCredentials) else { return };
    let pid = peer.pid().unsigned_abs();
    loop {
        let response = match lines.read(CLIENT_TIMEOUT) {
            Ok(Line::Whole(line)) => answer(&line, pid, handler),
            Ok(Line::TooLong) => {
                let message = format!("a request has at most {REQUEST_BYTES_MAX} bytes");
                let _ = respond(lines, &Response::Error(Refusal::new(RefusalCode::TooLong, message)));
                return;
            }
            Ok(Line::Closed) | Err(_) => return,
        };
        if respond(lines, &response).is_err() {
            return;
        }
    }
}

fn respond(lines: &mut Lines, response: &Response) -> io::Result<()> {
    lines.write(serde_json::to_vec(response)?, CLIENT_TIMEOUT)
}

fn answer(line: &[u8], caller: u32, handler: &dyn Handler) -> Response {
    parse(line).and_then(|request| handler.answer(request, caller)).unwrap_or_else(Response::Error)
}

fn parse(line: &[u8]) -> Result<Request, Refusal> {
    let malformed = |error: serde_json::Error| Refusal::new(RefusalCode::Malformed, error.to_string());
    let value: serde_json::Value = serde_json::from_slice(line).map_err(malformed)?;
    match value.get("request").and_then(|name| name.as_str()) {
        Some(name) if !Request::NAMES.contains(&name) => {
            let known = Request::NAMES.join(", ");
            Err(Refusal::new(
                RefusalCode::UnknownRequest,
                format!("this version knows no request `{name}`, only {known}"),
            ))
        }
        _ => serde_json::from_value(value).map_err(malformed),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::sync::Mutex;

    use tempfile::TempDir;

    use super::super::{CallError, Callee, Client, HeapStatus, NodeStatus, PortStatus, Status, socket_path};
    use super::*;
    use crate::id::{NodeId, NumaId};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Grants NUMA node 0 to whoever asks, and notes what was asked.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<String>>);

    impl Recorder {
        fn status() -> Status {
            let node = NodeStatus { id: NodeId(7), name: "lb7".into(), cluster: 1 };
            let port = PortStatus {
                device: "net_tap0".into(),
                driver: "net_tap".into(),
                mac: "02:ba:70:00:00:07".into(),
                rx_queues: 3,
                tx_queues: 3,
            };
            Status {
                version: "1".into(),
                pid: 1,
                uptime_ms: 2,
                node,
                steering: "software".into(),
                port,
                workers: vec![],
                secondaries: vec![],
                sync_enabled: true,
                heap: HeapStatus::default(),
            }
        }
    }

    impl Handler for Recorder {
        fn answer(&self, request: Request, caller: u32) -> Result<Response, Refusal> {
            self.0.lock().unwrap().push(format!("{request:?} by {caller}"));
            match request {
                Request::Status => Ok(Response::Status(Box::new(Recorder::status()))),
                Request::Services => Ok(Response::Services(vec![])),
                Request::AttachSecondary { numa: NumaId(0), .. } => {
                    Ok(Response::AttachGranted { numa: NumaId(0) })
                }
                Request::SecondaryReady { .. } => Ok(Response::SecondaryNoted),
                other => Err(not_mine(&other)),
            }
        }
    }

    struct Fixture {
        directory: TempDir,
        recorder: Arc<Recorder>,
        _server: Server,
    }

    impl Fixture {
        fn new() -> Fixture {
            let directory = TempDir::new().unwrap();
            let recorder = Arc::new(Recorder::default());
            let server = Server::start(&socket_path(directory.path()), recorder.clone()).unwrap();
            Fixture { directory, recorder, _server: server }
        }

        fn path(&self) -> PathBuf {
            socket_path(self.directory.path())
        }

        fn client(&self) -> Client {
            Client::connect(self.directory.path(), Callee::Primary, PATIENCE).unwrap()
        }

        /// What the server answers to these bytes.
        fn raw(&self, request: &[u8]) -> String {
            let mut stream = UnixStream::connect(self.path()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let _ = stream.write_all(request);
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        }
    }

    #[test]
    fn a_client_gets_what_the_handler_says() {
        let fixture = Fixture::new();
        let mut client = fixture.client();

        assert_eq!(client.status().unwrap(), Recorder::status());
        assert_eq!(client.services().unwrap(), []);
        client.attach_secondary(NumaId(0), false).unwrap();
        client.secondary_ready(NumaId(0)).unwrap();

        let pid = std::process::id();
        let asked = fixture.recorder.0.lock().unwrap();
        assert!(asked.iter().all(|line| line.ends_with(&format!(" by {pid}"))), "{asked:?}");
        assert_eq!(asked.len(), 4);
    }

    #[test]
    fn a_refusal_reaches_the_client_with_its_reason() {
        let fixture = Fixture::new();

        let error = fixture.client().attach_secondary(NumaId(3), false).unwrap_err();

        let CallError::Refused { callee: Callee::Primary, refusal } = &error else { panic!("{error}") };
        assert_eq!(refusal.code, RefusalCode::NotPossible);
        assert_eq!(error.to_string(), format!("the primary refused: {refusal}"));
    }

    #[test]
    fn a_secondary_that_is_not_running_is_named() {
        let fixture = Fixture::new();
        let callee = Callee::Secondary(NumaId(1));

        let Err(error) = Client::connect(fixture.directory.path(), callee, PATIENCE) else { panic!() };

        assert!(error.to_string().contains("NUMA node 1 is not running"), "{error}");
        assert!(error.to_string().contains("start baton-sync@1"), "{error}");
    }

    #[test]
    fn nonsense_gets_a_typed_answer_and_the_next_request_its_own() {
        let fixture = Fixture::new();

        assert!(fixture.raw(b"{\"request\":\"dance\"}\n").contains("\"unknown_request\""));
        for malformed in ["", "{", "[]", "{}", "{\"request\":7}", "{\"request\":\"attach_secondary\"}"] {
            let line = fixture.raw(format!("{malformed}\n").as_bytes());
            assert!(line.contains("\"malformed\""), "{malformed}: {line}");
        }
        assert!(fixture.raw(&[b'x'; REQUEST_BYTES_MAX + 1]).contains("\"too_long\""));
        fixture.client().status().unwrap();
    }

    #[test]
    fn silent_clients_keep_nobody_else_waiting() {
        let fixture = Fixture::new();
        let mut silent: Vec<UnixStream> =
            (0..CLIENTS_MAX - 1).map(|_| UnixStream::connect(fixture.path()).unwrap()).collect();
        silent.iter_mut().for_each(|stream| stream.write_all(b"{\"request\":").unwrap());

        fixture.client().status().unwrap();
    }

    #[test]
    fn one_client_too_many_is_sent_away() {
        let fixture = Fixture::new();
        let _held: Vec<UnixStream> =
            (0..CLIENTS_MAX).map(|_| UnixStream::connect(fixture.path()).unwrap()).collect();

        let mut turned_away = UnixStream::connect(fixture.path()).unwrap();

        let mut answer = String::new();
        turned_away.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"busy\""), "{answer}");
    }

    #[test]
    fn without_a_server_the_client_says_that_the_primary_is_not_running() {
        let directory = TempDir::new().unwrap();

        let Err(error) = Client::connect(directory.path(), Callee::Primary, PATIENCE) else { panic!() };

        assert!(matches!(error, CallError::NotRunning { .. }));
        assert!(error.to_string().contains("start baton-primary"), "{error}");
    }

    #[test]
    fn a_server_that_never_answers_times_out() {
        let directory = TempDir::new().unwrap();
        let path = socket_path(directory.path());
        let _listener = UnixListener::bind(&path).unwrap();
        let mut client =
            Client::connect(directory.path(), Callee::Primary, Duration::from_millis(20)).unwrap();

        let error = client.status().unwrap_err();

        assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn a_left_over_socket_is_replaced_and_the_own_one_removed() {
        let directory = TempDir::new().unwrap();
        let path = socket_path(directory.path());
        drop(UnixListener::bind(&path).unwrap());

        let server = Server::start(&path, Arc::new(Recorder::default())).unwrap();
        Client::connect(directory.path(), Callee::Primary, PATIENCE).unwrap().status().unwrap();
        drop(server);

        assert!(!path.exists());
    }
}
