//! The asking side of the control protocol.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use super::line::{Line, Lines};
use super::{
    HandedOver, RESPONSE_BYTES_MAX, Refusal, Request, Response, ServiceStatus, Status, SyncStatus,
    socket_path, sync_socket_path,
};
use crate::id::NumaId;
use crate::sync::protocol::Comparison;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// The primary.
    Primary,
    /// The secondary of a NUMA node.
    Secondary(NumaId),
}

impl Callee {
    /// Where it listens in a runtime directory.
    pub fn socket_path(self, runtime: &Path) -> PathBuf {
        match self {
            Callee::Primary => socket_path(runtime),
            Callee::Secondary(numa) => sync_socket_path(runtime, numa),
        }
    }

    /// The unit that runs it.
    fn unit(self) -> String {
        match self {
            Callee::Primary => "baton-primary".into(),
            Callee::Secondary(numa) => format!("baton-sync@{numa}"),
        }
    }
}

impl Display for Callee {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Callee::Primary => write!(formatter, "the primary"),
            Callee::Secondary(numa) => write!(formatter, "the sync secondary of NUMA node {numa}"),
        }
    }
}

/// Why a call got no answer, or not the one that was hoped for.
#[derive(Debug, Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error("{callee} is not running: nobody listens on {path}; start {}", callee.unit())]
    NotRunning {
        /// Who does not.
        callee: Callee,
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket may not be used, or the connection broke.
    #[error("cannot talk to {callee} over {path}")]
    Connection {
        /// To whom.
        callee: Callee,
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("{callee} did not answer within {} ms: it is overloaded or stopped", timeout.as_millis())]
    TimedOut {
        /// Who did not.
        callee: Callee,
        /// How long was waited.
        timeout: Duration,
    },
    /// The answer makes no sense to this version.
    #[error("the answer of {callee} is not understood ({reason}): are both of the same version?")]
    Protocol {
        /// Whose answer.
        callee: Callee,
        /// What is wrong with it.
        reason: String,
    },
    /// The request was refused.
    #[error("{callee} refused: {refusal}")]
    Refused {
        /// Who refused.
        callee: Callee,
        /// Why.
        refusal: Refusal,
    },
}

/// A connection to the primary or a secondary. Calls block, at most for the timeout.
pub struct Client {
    lines: Lines,
    callee: Callee,
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Connects to a process of a runtime directory.
    ///
    /// # Errors
    /// Nobody listens there, or the socket may not be used.
    pub fn connect(runtime: &Path, callee: Callee, timeout: Duration) -> Result<Client, CallError> {
        let path = callee.socket_path(runtime);
        match UnixStream::connect(&path) {
            Ok(stream) => Ok(Client { lines: Lines::new(stream, RESPONSE_BYTES_MAX), callee, path, timeout }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    CallError::NotRunning { callee, path, source }
                }
                _ => CallError::Connection { callee, path, source },
            }),
        }
    }

    /// Makes a request and waits for its response, whatever it is.
    ///
    /// # Errors
    /// No response in time, or none that is understood.
    pub fn call(&mut self, request: &Request) -> Result<Response, CallError> {
        let request = serde_json::to_vec(request).map_err(|error| self.not_understood(&error))?;
        self.lines.write(request, self.timeout).map_err(|error| self.failed(error))?;
        match self.lines.read(self.timeout).map_err(|error| self.failed(error))? {
            Line::Whole(line) => serde_json::from_slice(&line).map_err(|error| self.not_understood(&error)),
            Line::TooLong => Err(self.not_understood(&format!("more than {RESPONSE_BYTES_MAX} bytes"))),
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
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks for the services.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused.
    pub fn services(&mut self) -> Result<Vec<ServiceStatus>, CallError> {
        match self.call(&Request::Services)? {
            Response::Services(services) => Ok(services),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks to attach this process to DPDK as the secondary of a NUMA node, or as the successor of the one that lives, and waits
    /// until it may.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused. After a timeout or [`RefusalCode::Busy`](super::RefusalCode::Busy)
    /// it is safe to ask again, never to attach.
    pub fn attach_secondary(&mut self, numa: NumaId, succeeds: bool) -> Result<(), CallError> {
        match self.call(&Request::AttachSecondary { numa, pid: std::process::id(), succeeds })? {
            Response::AttachGranted { numa: granted } if granted == numa => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Says that the secondary of a NUMA node has attached.
    ///
    /// # Errors
    /// As [`Client::call`], or the primary refused.
    pub fn secondary_ready(&mut self, numa: NumaId) -> Result<(), CallError> {
        match self.call(&Request::SecondaryReady { numa })? {
            Response::SecondaryNoted => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks a secondary how it and its peers are.
    ///
    /// # Errors
    /// As [`Client::call`], or it refused.
    pub fn sync_status(&mut self) -> Result<SyncStatus, CallError> {
        match self.call(&Request::SyncStatus)? {
            Response::Sync(status) => Ok(*status),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks a secondary how the comparison goes that it was asked for.
    ///
    /// # Errors
    /// As [`Client::call`], or it refused: it was asked for none.
    pub fn comparison(&mut self) -> Result<Comparison, CallError> {
        match self.call(&Request::SyncComparison)? {
            Response::Comparison(comparison) => Ok(*comparison),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks a secondary to hand its part over to a successor, and waits until that is done.
    ///
    /// # Errors
    /// As [`Client::call`], or the successor failed: the old one is in charge as before.
    pub fn hand_over(&mut self) -> Result<HandedOver, CallError> {
        match self.call(&Request::SyncHandOver)? {
            Response::HandedOver(done) => Ok(done),
            other => Err(self.unexpected(other)),
        }
    }

    /// Asks for something to be done that has nothing to answer.
    ///
    /// # Errors
    /// As [`Client::call`], or it was refused.
    pub fn have_done(&mut self, request: &Request) -> Result<(), CallError> {
        match self.call(request)? {
            Response::Done => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    fn failed(&self, source: io::Error) -> CallError {
        let callee = self.callee;
        match source.kind() {
            io::ErrorKind::TimedOut => CallError::TimedOut { callee, timeout: self.timeout },
            _ => CallError::Connection { callee, path: self.path.clone(), source },
        }
    }

    fn not_understood(&self, reason: &dyn ToString) -> CallError {
        CallError::Protocol { callee: self.callee, reason: reason.to_string() }
    }

    fn unexpected(&self, response: Response) -> CallError {
        match response {
            Response::Error(refusal) => CallError::Refused { callee: self.callee, refusal },
            other => self.not_understood(&format!("unexpected {other:?}")),
        }
    }
}
