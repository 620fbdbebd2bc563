//! One keep-alive connection: opens, asks, reads the answer and checks it, and remembers why it was lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16_384;

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// A RST, or another error of the socket.
    Reset,
    /// The other side closed.
    Closed,
    /// No answer in time.
    Timeout,
    /// An answer that is not this request's, from another server than before, or damaged.
    Wrong,
}

/// What an event brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing that matters yet, or the loss of the connection.
    Nothing,
    /// The connection is open.
    Opened,
    /// The answer is there; the request was sent at `asked`.
    Answered {
        /// When the request was sent.
        asked: Instant,
    },
    /// Both sides have closed, the load first.
    Closed,
}

/// A connection of the load.
pub struct Connection {
    /// The socket, until the connection is lost.
    pub stream: Option<TcpStream>,
    /// If it was ever open.
    pub was_opened: bool,
    /// If it came to its end in order.
    pub was_closed: bool,
    /// Why it is no more.
    pub loss: Option<Loss>,
    /// Requests answered.
    pub answers: u64,
    /// The name of the server that answers.
    pub server: Option<String>,
    /// If the load has closed its side.
    closing: bool,
    /// The last request's number.
    number: u64,
    /// When the connection began to wait: for the opening, or for an answer.
    waiting: Option<Instant>,
    /// Longest wait, and when it began.
    longest: Option<(Duration, Instant)>,
    received: Vec<u8>,
}

impl Connection {
    /// Begins to open a connection.
    pub fn open(target: SocketAddr) -> Self {
        let (stream, loss) = match TcpStream::connect(target) {
            Ok(stream) => (Some(stream), None),
            Err(_) => (None, Some(Loss::Reset)),
        };
        Self {
            stream,
            was_opened: false,
            was_closed: false,
            loss,
            answers: 0,
            server: None,
            closing: false,
            number: 0,
            waiting: loss.is_none().then(Instant::now),
            longest: None,
            received: Vec::new(),
        }
    }

    /// If it is on its way to be opened.
    pub fn is_opening(&self) -> bool {
        !self.was_opened && self.loss.is_none()
    }

    /// Since when it waits for the opening or for an answer.
    pub fn waits_since(&self) -> Option<Instant> {
        self.waiting
    }

    /// The longest wait for an answer and when it began; the one that goes on counts.
    pub fn longest_pause(&self) -> (Duration, Instant) {
        let now = self.waiting.filter(|_| self.was_opened).map(|since| (since.elapsed(), since));
        self.longest.into_iter().chain(now).max().unwrap_or((Duration::ZERO, Instant::now()))
    }

    /// Closes it and remembers why.
    pub fn lose(&mut self, loss: Loss) {
        if let Some(since) = self.waiting.take()
            && self.was_opened
        {
            self.longest = self.longest.max(Some((since.elapsed(), since)));
        }
        self.loss = Some(loss);
        self.stream = None;
        self.received = Vec::new();
    }

    /// Sends request `number`.
    pub fn ask(&mut self, number: u64) {
        let Some(stream) = &mut self.stream else { return };
        let request = format!("GET /?n={number} HTTP/1.1\r\nHost: lab\r\n\r\n");
        self.number = number;
        self.waiting = Some(Instant::now());
        // One request is on its way at most, so the send buffer takes it whole.
        match stream.write(request.as_bytes()) {
            Ok(length) if length == request.len() => {}
            Ok(_) | Err(_) => self.lose(Loss::Reset),
        }
    }

    /// Closes this side; the end is there when the other side has closed, too.
    pub fn close(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        self.closing = true;
        self.waiting = Some(Instant::now());
        if stream.shutdown(Shutdown::Write).is_err() {
            self.lose(Loss::Reset);
        }
    }

    /// Deals with an event of the socket.
    pub fn advance(&mut self) -> Progress {
        let Some(stream) = &mut self.stream else { return Progress::Nothing };
        if !self.was_opened {
            if !matches!(stream.take_error(), Ok(None)) {
                self.lose(Loss::Reset);
                return Progress::Nothing;
            }
            if stream.peer_addr().is_err() {
                return Progress::Nothing;
            }
            // Small requests go out at once.
            stream.set_nodelay(true).ok();
            self.was_opened = true;
            self.waiting = None;
            return Progress::Opened;
        }
        self.read()
    }

    fn read(&mut self) -> Progress {
        let mut buffer = [0; 4096];
        loop {
            let Some(stream) = &mut self.stream else { return Progress::Nothing };
            match stream.read(&mut buffer) {
                Ok(0) if self.closing => return self.end(),
                Ok(0) => {
                    // An answer may have come with the close: it was given.
                    self.take_answer();
                    if self.loss.is_none() {
                        self.lose(Loss::Closed);
                    }
                    return Progress::Nothing;
                }
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.lose(Loss::Reset),
            }
            if self.received.len() > ANSWER_BYTES_MAX {
                self.lose(Loss::Wrong);
            }
        }
        self.take_answer()
    }

    fn end(&mut self) -> Progress {
        if let Some(since) = self.waiting.take() {
            self.longest = self.longest.max(Some((since.elapsed(), since)));
        }
        self.was_closed = true;
        self.stream = None;
        Progress::Closed
    }

    /// Looks if the answer is whole, and checks it.
    fn take_answer(&mut self) -> Progress {
        let Some((head, body)) = split_answer(&self.received) else { return Progress::Nothing };
        let expected = format!(" {}\n", self.number);
        let right = head.starts_with("HTTP/1.1 200 ") && body.ends_with(&expected) && self.waiting.is_some();
        let server = body.split(' ').next().unwrap_or_default().to_owned();
        if !right || self.server.as_ref().is_some_and(|known| *known != server) {
            self.lose(Loss::Wrong);
            return Progress::Nothing;
        }
        self.received.clear();
        self.server = Some(server);
        self.answers += 1;
        let Some(asked) = self.waiting.take() else { return Progress::Nothing };
        self.longest = self.longest.max(Some((asked.elapsed(), asked)));
        Progress::Answered { asked }
    }
}

/// Head and body, if as much body is there as the head announces; more than that is a body of the wrong size.
fn split_answer(received: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(received);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (body.len() >= length.unwrap_or(0)).then(|| (head.to_owned(), body.to_owned()))
}
