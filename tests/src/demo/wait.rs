//! Waiting that ends: at the event, at the limit, or when the demo is interrupted.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::signals;

/// How often an event is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Waits until `happened`, at most for `limit`; says if it did.
///
/// # Errors
/// If the demo is interrupted or `happened` fails.
pub fn wait_for(limit: Duration, mut happened: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        signals::check()?;
        if happened()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Like [`wait_for`], where `what` must happen.
///
/// # Errors
/// As [`wait_for`], or if it did not happen in time.
pub fn wait_until(limit: Duration, what: &str, happened: impl FnMut() -> Result<bool>) -> Result<()> {
    if !wait_for(limit, happened)? {
        bail!("{what}: not within {} s", limit.as_secs());
    }
    Ok(())
}

/// Sleeps, unless the demo is interrupted.
///
/// # Errors
/// If it is.
pub fn pause(time: Duration) -> Result<()> {
    let deadline = Instant::now() + time;
    loop {
        signals::check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}
