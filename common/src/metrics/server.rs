//! The metrics server: one thread that answers a bounded number of HTTP clients, each for a bounded time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use super::client::{Client, Turn};
use super::{Exposition, Source};

/// Clients served at one time. One more takes the place of the one that came first.
const CLIENTS_MAX: usize = 16;
/// How often the thread looks whether a client's time is over, and whether an address that was taken is free.
const TURN: Duration = Duration::from_millis(100);
/// The lowest priority of Linux: a flood of requests takes only time that nobody else wants.
const NICE: i32 = 19;

/// A metrics server. Dropping it stops it.
pub struct Server {
    /// The thread ends when this end of the pair is closed.
    lifeline: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to answer `GET /metrics` at `address`. If the address is taken, as by a predecessor that is just leaving, it
    /// is tried again until it is free, and said so once: metrics are no reason not to forward.
    ///
    /// # Errors
    /// The thread, or what ends it, cannot be made.
    pub fn start(address: SocketAddr, source: impl Source) -> io::Result<Server> {
        let (lifeline, end) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            // Of this thread only, as Linux has it. Without it, it answers all the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            if let Some(listener) = listen(address, &end) {
                serve(&listener, &source, &end);
            }
        })?;
        Ok(Server { lifeline: Some(lifeline), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Listens, as soon as it can; `None` if its end comes before.
fn listen(address: SocketAddr, end: &UnixStream) -> Option<TcpListener> {
    let mut warned = false;
    loop {
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => {
                info!(%address, "metrics can be read");
                return Some(listener);
            }
            Err(error) if !warned => {
                warned = true;
                warn!(%address, %error, "metrics cannot be read yet: it is tried until they can");
            }
            Err(_) => {}
        }
        if wait(&mut [PollFd::new(end, PollFlags::IN)])[0] {
            return None;
        }
    }
}

fn serve(listener: &TcpListener, source: &impl Source, end: &UnixStream) {
    let mut clients: VecDeque<Client> = VecDeque::with_capacity(CLIENTS_MAX);
    let mut metrics = || {
        let mut exposition = Exposition::new();
        source.write(&mut exposition);
        exposition.into_text()
    };
    loop {
        let mut fds = vec![PollFd::new(end, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        fds.extend(
            clients.iter().map(|client| PollFd::from_borrowed_fd(client.socket(), client.waits_for())),
        );
        let ready = wait(&mut fds);
        if ready[0] {
            return;
        }
        let (now, may_accept) = (Instant::now(), ready[1]);
        let mut ready = ready.into_iter().skip(2);
        clients.retain_mut(|client| {
            let is_ready = ready.next().unwrap_or(false);
            let keeps = !is_ready || client.go_on(now, &mut metrics) == Turn::Goes;
            keeps && now < client.deadline()
        });
        if may_accept {
            admit(listener, &mut clients, now);
        }
    }
}

/// Waits a turn at most; whether each of these is ready.
fn wait(fds: &mut [PollFd<'_>]) -> Vec<bool> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(TURN.subsec_nanos()) };
    match poll(fds, Some(&timeout)) {
        Ok(_) => fds.iter().map(|fd| !fd.revents().is_empty()).collect(),
        Err(_) => vec![false; fds.len()],
    }
}

/// Takes one client in. Whoever has been here longest makes way: an honest client is served at once.
fn admit(listener: &TcpListener, clients: &mut VecDeque<Client>, now: Instant) {
    match listener.accept().and_then(|(stream, _)| Client::new(stream, now)) {
        Ok(client) => {
            if clients.len() == CLIENTS_MAX {
                clients.pop_front();
            }
            clients.push_back(client);
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
        // Out of file descriptors or memory: not to be asked for again at once.
        Err(_) => std::thread::sleep(TURN),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::super::MetricKind;
    use super::*;

    struct Fixed(u64);

    impl Source for Fixed {
        fn write(&self, to: &mut Exposition) {
            to.family("a", MetricKind::Gauge, "A.");
            // Larger than what socket buffers hold on their own.
            for number in 0..self.0 {
                to.sample(&[("number", &number.to_string())], number);
            }
        }
    }

    /// An address of this machine where nobody listened a moment ago.
    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn scrape(address: SocketAddr) -> String {
        let mut stream = connect(address);
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_scrape_gets_all_of_it_however_long() {
        let address = free_address();
        let _server = Server::start(address, Fixed(200_000)).unwrap();

        let text = scrape(address);

        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{}", &text[..200]);
        assert!(text.ends_with("a{number=\"199999\"} 199999\n"), "{}", &text[text.len() - 200..]);
    }

    #[test]
    fn clients_that_say_nothing_keep_nobody_out() {
        let address = free_address();
        let _server = Server::start(address, Fixed(1)).unwrap();
        let silent: Vec<TcpStream> = (0..3 * CLIENTS_MAX).map(|_| connect(address)).collect();
        for mut stream in &silent {
            // Those that had to make way do not hear it.
            let _ = stream.write_all(b"GET /met");
        }

        assert!(scrape(address).starts_with("HTTP/1.1 200 OK\r\n"));

        let mut ended = 0;
        for mut stream in &silent {
            stream.set_nonblocking(true).unwrap();
            let left = stream.read(&mut [0; 8]);
            ended += usize::from(!matches!(left, Err(error) if error.kind() == ErrorKind::WouldBlock));
        }
        assert!(ended >= 2 * CLIENTS_MAX, "{ended} of {} made way", silent.len());
    }

    #[test]
    fn a_client_that_does_not_end_its_request_is_let_go() {
        let address = free_address();
        let _server = Server::start(address, Fixed(1)).unwrap();
        let mut slow = connect(address);
        slow.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();

        assert_eq!(
            slow.read(&mut [0; 8]).unwrap(),
            0,
            "no answer, but the end, and before the test's own patience is"
        );
    }

    #[test]
    fn a_successor_takes_the_address_over_when_it_is_free() {
        let address = free_address();
        let first = Server::start(address, Fixed(1)).unwrap();
        scrape(address);
        let second = Server::start(address, Fixed(2)).unwrap();
        assert!(!scrape(address).contains("number=\"1\""));

        drop(first);

        let deadline = Instant::now() + Duration::from_secs(10);
        while !scrape(address).contains("number=\"1\"") {
            assert!(Instant::now() < deadline);
        }
        drop(second);
    }
}
