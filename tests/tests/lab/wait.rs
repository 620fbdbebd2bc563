//! Waiting for what comes in the end, for a bounded time.

use std::time::{Duration, Instant};

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks `probe` until it has an answer, and returns that. Panics with what it said last if there is none in time.
pub fn wait_for<T>(seconds: u64, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match probe() {
            Ok(answer) => return answer,
            Err(said) if Instant::now() > deadline => panic!("waited {seconds} s for {what}: {said}"),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// `Ok` if both are equal; the text of both otherwise.
pub fn equal<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}")) }
}
