//! Memory shared between processes: files, their headers, and what lies in them that knows nothing of sessions.
//!
//! `docs/shm-layout.md` shows every layout, who writes what, and what happens when a writer dies.

pub mod atomic;
pub mod bucket;
pub mod dirty;
pub mod header;
pub mod index;
pub mod pages;
pub mod process;
pub mod readers;
pub mod region;
pub mod ring;
pub mod shared;
pub mod slab;
