//! The sync protocol: how the sessions of one node come to stand in the remote tables of the others.
//!
//! Nothing here does I/O: events, datagrams and time go in; datagrams and table writes come out.
//!
//! - [`wire`]: what secondaries tell each other, as bytes.

mod address;
mod reject;
pub mod wire;

pub use reject::Reject;
