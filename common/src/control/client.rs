//! The asking side of the control protocol.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::line::{Line, Lines};
use super::{RESPONSE_BYTES_MAX, Refusal, Request, Response, ServiceStatus, Status};
use crate::id::NumaId;

/// Why a call got no answer, or not the one that was hoped for.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error("the primary is not running: nobody listens on {path}; start baton-primary")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket may not be used, or the connection broke.
    #[error("cannot talk to the primary over {path}")]
    Connection {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("the primary did not answer within {} ms: it is overloaded or stopped", timeout.as_millis())]
    TimedOut {
        /// How long was waited.
        timeout: Duration,
    },
    /// The answer makes no sense to this version.
    #[error("the primary's answer is not understood ({reason}): are both of the same version?")]
    Protocol {
        /// What is wrong with it.
        reason: String,
    },
    /// The primary refused.
    #[error("the primary refused: {0}")]
    Refused(#[from] Refusal),
}

/// A connection to the primary. Calls block, at most for the timeout.
pub struct Client {
    lines: Lines,
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// Nobody listens there, or it may not be used.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Client, CallError> {
        let stream = UnixStream::connect(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CallError::NotRunning { path: path.into(), source }
            }
            _ => CallError::Connection { path: path.into(), source },
        })?;
        Ok(Client { lines: Lines::new(stream, RESPONSE_BYTES_MAX), path: path.into(), timeout })
    }

    /// Makes a request and waits for its response, whatever it is.
    ///
    /// # Errors
    /// No response in time, or none that is understood.
    pub fn call(&mut self, request: &Request) -> Result<Response, CallError> {
        let request = serde_json::to_vec(request).map_err(|error| not_understood(&error))?;
        self.lines.write(request, self.timeout).map_err(|error| self.failed(error))?;
        match self.lines.read(self.timeout).map_err(|error| self.failed(error))? {
            Line::Whole(line) => serde_json::from_slice(&line).map_err(|error| not_understood(&error)),
            Line::TooLong => Err(not_understood(&format!("more than {RESPONSE_BYTES_MAX} bytes"))),
            Line::Closed => Err(self.failed(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Asks how the primary is.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused.
    pub fn status(&mut self) -> Result<Status, CallError> {
        match self.call(&Request::Status)? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        }
    }

    /// Asks for the services.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused.
    pub fn services(&mut self) -> Result<Vec<ServiceStatus>, CallError> {
        match self.call(&Request::Services)? {
            Response::Services(services) => Ok(services),
            other => Err(unexpected(other)),
        }
    }

    /// Asks to attach this process to DPDK as the secondary of a NUMA node, and waits until it may.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused. After a timeout or [`RefusalCode::Busy`](super::RefusalCode::Busy)
    /// it is safe to ask again, never to attach.
    pub fn attach_secondary(&mut self, numa: NumaId) -> Result<(), CallError> {
        match self.call(&Request::AttachSecondary { numa, pid: std::process::id() })? {
            Response::AttachGranted { numa: granted } if granted == numa => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Says that the secondary of a NUMA node has attached.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused.
    pub fn secondary_ready(&mut self, numa: NumaId) -> Result<(), CallError> {
        match self.call(&Request::SecondaryReady { numa })? {
            Response::SecondaryNoted => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn failed(&self, source: io::Error) -> CallError {
        match source.kind() {
            io::ErrorKind::TimedOut => CallError::TimedOut { timeout: self.timeout },
            _ => CallError::Connection { path: self.path.clone(), source },
        }
    }
}

fn not_understood(reason: &dyn ToString) -> CallError {
    CallError::Protocol { reason: reason.to_string() }
}

fn unexpected(response: Response) -> CallError {
    match response {
        Response::Error(refusal) => CallError::Refused(refusal),
        other => not_understood(&format!("unexpected {other:?}")),
    }
}
