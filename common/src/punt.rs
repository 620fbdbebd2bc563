//! The punt interface: the kernel's end of everything that is not balanced.
//!
//! To the kernel it is an Ethernet interface with Baton's link-layer address, on which the system configures addresses,
//! routes and daemons. Whole frames pass in both directions, unchanged.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use thiserror::Error;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Why the punt interface cannot be used.
#[derive(Debug, Error)]
pub enum PuntError {
    /// Making the interface, or attaching to it, failed.
    #[error(
        "cannot open the tap interface `{interface}`; it takes CAP_NET_ADMIN and /dev/net/tun, no other \
         process may hold it, and one that exists already must be a tap with a single queue"
    )]
    Open {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The interface is there, but not as it has to be.
    #[error("cannot {action} of the punt interface `{interface}`")]
    SetUp {
        /// What was tried.
        action: &'static str,
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// An open tap interface. One that existed before stays when this is dropped, with its addresses; one that was made by
/// this goes with it.
pub struct PuntTap {
    device: SyncDevice,
}

impl PuntTap {
    /// Makes the interface or attaches to the existing one, gives it a link-layer address and brings it up.
    ///
    /// # Errors
    /// See [`PuntError`].
    pub fn open(interface: &str, mac: [u8; 6]) -> Result<PuntTap, PuntError> {
        let device = DeviceBuilder::new()
            .name(interface)
            .layer(Layer::L2)
            .inherit_enable_state()
            .build_sync()
            .map_err(|source| PuntError::Open { interface: interface.into(), source })?;
        let failed = |action| {
            let interface = interface.to_owned();
            move |source| PuntError::SetUp { action, interface, source }
        };
        device.set_nonblocking(true).map_err(failed("change the mode"))?;
        // Setting the same address again would make the kernel forget its neighbours there.
        let present = device.mac_address().map_err(failed("read the link-layer address"))?;
        if present != mac {
            device.set_mac_address(mac).map_err(failed("set the link-layer address"))?;
        }
        device.enabled(true).map_err(failed("change the state to up"))?;
        Ok(PuntTap { device })
    }

    /// Takes the next frame that the kernel sends, if there is one: its length in `frame`. A longer one is cut off.
    ///
    /// # Errors
    /// The interface is down or gone.
    pub fn read(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        match self.device.recv(frame) {
            Ok(length) => Ok(Some(length)),
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the kernel a frame, as if it had come from the wire.
    ///
    /// # Errors
    /// The kernel did not take it: the frame is malformed, or the interface is down or gone.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.device.send(frame).map(|_| ())
    }
}

impl AsFd for PuntTap {
    /// Readable when the kernel has sent a frame.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
