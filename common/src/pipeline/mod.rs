//! The worker's pipeline: a burst of frames in, a verdict for each out.

mod verdict;

pub use verdict::{DropReason, Verdict};
