//! One HTTP client of the metrics server: its request as far as it has come, then the answer as far as it has gone.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

/// Longest request, bytes; headers and all.
const REQUEST_BYTES_MAX: usize = 8192;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a client may take for its request and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the client's end of the connection, once the answer is sent.
const LINGER: Duration = Duration::from_secs(1);

/// A client.
pub(super) struct Client {
    stream: TcpStream,
    deadline: Instant,
    step: Step,
}

enum Step {
    /// The request is on its way.
    Asking(Vec<u8>),
    /// The answer is.
    Answering { text: Vec<u8>, sent: usize },
    /// Both are through. Closing before the client has read the answer could take it away from it.
    Leaving,
}

/// What becomes of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It stays.
    Goes,
    /// There is nothing more to do for it.
    Over,
}

impl Client {
    /// A client that has just come.
    pub(super) fn new(stream: TcpStream, now: Instant) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        Ok(Client { stream, deadline: now + PATIENCE, step: Step::Asking(Vec::new()) })
    }

    /// The socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What to wait for.
    pub(super) fn waits_for(&self) -> PollFlags {
        match self.step {
            Step::Asking(_) | Step::Leaving => PollFlags::IN,
            Step::Answering { .. } => PollFlags::OUT,
        }
    }

    /// When its time is over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Goes on as far as it can without waiting. `metrics` makes the answer's body.
    pub(super) fn go_on(&mut self, now: Instant, metrics: &mut dyn FnMut() -> String) -> Turn {
        match self.advance(now, metrics) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && now < self.deadline => Turn::Goes,
            // Whether it went, broke or was too slow: there is nobody to tell.
            _ => Turn::Over,
        }
    }

    /// Goes on until it would have to wait, which is an error as all others are, or is through.
    fn advance(&mut self, now: Instant, metrics: &mut dyn FnMut() -> String) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            match &mut self.step {
                Step::Asking(request) => {
                    let read = read(&mut self.stream, &mut buffer)?;
                    if read == 0 {
                        return Ok(());
                    }
                    request.extend_from_slice(&buffer[..read]);
                    if let Some(text) = answer(request, metrics) {
                        self.step = Step::Answering { text, sent: 0 };
                    }
                }
                Step::Answering { text, sent } if *sent < text.len() => {
                    *sent += write(&mut self.stream, &text[*sent..])?;
                }
                Step::Answering { .. } => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.deadline = now + LINGER;
                    self.step = Step::Leaving;
                }
                Step::Leaving => {
                    if read(&mut self.stream, &mut buffer)? == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| stream.read(buffer))
}

fn write(stream: &mut TcpStream, text: &[u8]) -> io::Result<usize> {
    uninterrupted(|| stream.write(text))
}

fn uninterrupted(mut work: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The answer to a request, once it is whole or cannot become one.
fn answer(request: &[u8], metrics: &mut dyn FnMut() -> String) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < REQUEST_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(response("431 Request Header Fields Too Large", "the request is too long\n", true));
        }
        Err(_) => return Some(response("400 Bad Request", "this is no HTTP request\n", true)),
    }
    let path = parsed.path.unwrap_or_default().split('?').next().unwrap_or_default();
    let with_body = match parsed.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Some(response("405 Method Not Allowed", "only GET and HEAD\n", true)),
    };
    Some(match path {
        "/metrics" => response("200 OK", &metrics(), with_body),
        _ => response("404 Not Found", "the metrics are at /metrics\n", with_body),
    })
}

fn response(status: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         {allow}Connection: close\r\n\r\n",
        body.len()
    );
    let body = if with_body { body } else { "" };
    [head.as_bytes(), body.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(request: &str) -> Option<String> {
        let text = answer(request.as_bytes(), &mut || "a 1\n".to_owned())?;
        Some(String::from_utf8(text).unwrap())
    }

    #[test]
    fn only_metrics_are_there_and_only_to_be_read() {
        let status = |request: &str| answer_to(request).unwrap().split("\r\n").next().unwrap().to_owned();
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(status("GET /metrics?a=b HTTP/1.0\r\n\r\n"), "HTTP/1.1 200 OK");
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
        assert_eq!(status("\u{1}\u{2}\u{3} nonsense\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let get = answer_to("GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let head = answer_to("HEAD /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(get, format!("{head}a 1\n"));
        assert!(head.contains("Content-Length: 4\r\n"), "{head}");
    }

    #[test]
    fn a_request_is_waited_for_up_to_its_greatest_length() {
        assert_eq!(answer_to("GET /metrics HTTP/1.1\r\nHost:"), None);
        let long = format!("GET /metrics HTTP/1.1\r\nHost: {}", "x".repeat(REQUEST_BYTES_MAX));
        assert!(answer_to(&long).unwrap().starts_with("HTTP/1.1 431 "));
        let many = format!("GET /metrics HTTP/1.1\r\n{}", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert!(answer_to(&many).unwrap().starts_with("HTTP/1.1 431 "));
    }
}
