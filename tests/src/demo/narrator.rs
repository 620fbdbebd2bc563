//! What the demo tells a person while it goes on.

use std::io::Write;
use std::time::{Duration, Instant};

/// Writes lines with the time since the start in front.
pub struct Narrator {
    started: Instant,
}

impl Narrator {
    /// The story begins now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A heading.
    pub fn act(&self, title: &str) {
        print(&format!("\n=== {title}\n"));
    }

    /// Something that happened.
    pub fn say(&self, text: &str) {
        print(&format!("[{:5.1} s] {text}\n", self.elapsed().as_secs_f64()));
    }

    /// Text as it is.
    pub fn show(&self, text: &str) {
        print(text);
    }
}

/// A reader that wants no more, such as `head`, is no failure.
fn print(text: &str) {
    let mut output = std::io::stdout();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).ok();
}
