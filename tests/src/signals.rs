//! Interruption: SIGINT, SIGTERM and SIGHUP end what is going on in order, not at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(false)));

/// From now on these signals are noted, and [`check`] fails once one has come.
///
/// # Errors
/// If the handlers cannot be installed.
pub fn note() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&INTERRUPTED))?;
    }
    Ok(())
}

/// An error if a signal came since [`clear`].
///
/// # Errors
/// See above.
pub fn check() -> Result<()> {
    if is_set() {
        bail!("interrupted");
    }
    Ok(())
}

/// If a signal came since [`clear`].
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Forgets the signals that came: what follows cleans up and is to run through.
pub fn clear() {
    INTERRUPTED.store(false, Ordering::Relaxed);
}
