//! Atomics of shared memory: the standard library's, and in a build for the models (`--cfg loom`) ones that loom watches.

pub use std::sync::atomic::Ordering;

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, fence};

#[cfg(loom)]
pub mod model;
#[cfg(loom)]
pub mod mutation;
#[cfg(loom)]
pub use model::{AtomicU32, AtomicU64, fence};
