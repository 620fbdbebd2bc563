//! The process that takes a lab down when its owner is gone, however the owner ended.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::down;
use crate::state::{self, Lab};

/// Waits until the owner of lab `name` is gone, then takes the lab down. Ends by itself if the lab goes first: `down`
/// kills it.
///
/// # Errors
/// If the lab has no owner, or cannot be taken down.
pub fn guard(name: &str) -> Result<()> {
    let lab = Lab::load(&state::dir_of(name))?;
    let owner = lab.owner.context("the lab has no owner to wait for")?;
    if let Some(handle) = owner.pidfd() {
        loop {
            match poll(&mut [PollFd::new(&handle, PollFlags::IN)], None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    // An owner that ended in order has begun to take the lab down itself: it kills this process first.
    std::thread::sleep(Duration::from_millis(200));
    down::down(name).map(drop)
}
