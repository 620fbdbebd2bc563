//! What a command tells: as text for people, as JSON for programs.

use serde::Serialize;

/// The result of a command.
pub trait Report: Serialize {
    /// The result as lines of text.
    fn text(&self) -> String;
}

/// An amount of memory for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}
