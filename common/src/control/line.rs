//! Lines over a stream socket, with a bound on their length and on the time that the other side may take.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What came of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its newline.
    Whole(Vec<u8>),
    /// More bytes than allowed, and no newline.
    TooLong,
    /// The other side closed the connection. Part of a line may have come before.
    Closed,
}

/// A stream socket read and written by lines.
pub(super) struct Lines {
    stream: UnixStream,
    bytes_max: usize,
    /// Read from the socket and not handed out yet.
    pending: Vec<u8>,
}

impl Lines {
    /// Lines of at most `bytes_max` bytes, newline included, when they are read.
    pub fn new(stream: UnixStream, bytes_max: usize) -> Lines {
        Lines { stream, bytes_max, pending: Vec::new() }
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Reads one line.
    ///
    /// # Errors
    /// `TimedOut` if the whole line has not come within `timeout`, however often a part of it comes.
    pub fn read(&mut self, timeout: Duration) -> io::Result<Line> {
        let deadline = Instant::now() + timeout;
        let mut searched = 0;
        let mut chunk = [0; 4096];
        loop {
            if let Some(found) = self.pending[searched..].iter().position(|byte| *byte == b'\n') {
                let end = searched + found;
                if end >= self.bytes_max {
                    return Ok(Line::TooLong);
                }
                let rest = self.pending.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.truncate(end);
                return Ok(Line::Whole(line));
            }
            searched = self.pending.len();
            if searched >= self.bytes_max {
                return Ok(Line::TooLong);
            }
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Line::Closed),
                Ok(length) => self.pending.extend_from_slice(&chunk[..length]),
                Err(error) => retry(error)?,
            }
        }
    }

    /// Writes one line; `line` has no newline in it.
    ///
    /// # Errors
    /// `TimedOut` if the other side has not taken the whole line within `timeout`.
    pub fn write(&mut self, mut line: Vec<u8>, timeout: Duration) -> io::Result<()> {
        line.push(b'\n');
        let deadline = Instant::now() + timeout;
        let mut rest = &line[..];
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(left(deadline)?))?;
            match self.stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => rest = &rest[length..],
                Err(error) => retry(error)?,
            }
        }
        Ok(())
    }
}

/// The time left until a deadline; an error if there is none.
fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Passes on errors after which the same call is not to be made again.
fn retry(error: io::Error) -> io::Result<()> {
    match error.kind() {
        // What a socket's own timeout looks like: the deadline is looked at again.
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn pair(bytes_max: usize) -> (UnixStream, Lines) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, Lines::new(theirs, bytes_max))
    }

    #[test]
    fn lines_that_come_together_are_handed_out_one_by_one() {
        let (mut other, mut lines) = pair(16);
        other.write_all(b"one\n\ntwo\nthr").unwrap();
        drop(other);

        let read: Vec<Line> = (0..4).map(|_| lines.read(PATIENCE).unwrap()).collect();

        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(read, [whole("one"), whole(""), whole("two"), Line::Closed]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_collected() {
        for text in [&b"0123456789abcdef\n"[..], b"0123456789abcdef"] {
            let (mut other, mut lines) = pair(16);
            other.write_all(text).unwrap();

            assert_eq!(lines.read(PATIENCE).unwrap(), Line::TooLong);
        }
    }

    #[test]
    fn the_longest_line_is_read() {
        let (mut other, mut lines) = pair(16);
        other.write_all(b"0123456789abcde\n").unwrap();

        assert_eq!(lines.read(PATIENCE).unwrap(), Line::Whole(b"0123456789abcde".into()));
    }

    #[test]
    fn a_line_that_never_ends_times_out() {
        let (mut other, mut lines) = pair(16);
        other.write_all(b"half").unwrap();

        let error = lines.read(Duration::from_millis(20)).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_reader_that_does_not_read_times_out() {
        let (_other, mut lines) = pair(16);

        let error = lines.write(vec![b'x'; 16 << 20], Duration::from_millis(20)).unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
