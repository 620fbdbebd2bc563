//! The sync protocol: how the sessions of one node come to stand in the remote tables of the others.
//!
//! Nothing here does I/O: events, datagrams and time go in; datagrams and table writes come out.
//!
//! - [`event`]: what a worker tells its node's secondary.
//! - [`wire`]: what secondaries tell each other, as bytes.
//! - [`seal`]: what keeps that from others' eyes and hands.
//! - [`protocol`]: events and datagrams in, datagrams and table writes out: what is believed, repaired, aged and claimed.
//! - [`tables`]: the tables in shared memory, as the protocol sees them.
//! - [`state`]: what a restarted secondary must know to go on, in shared memory.

mod address;
pub mod ageing;
pub mod event;
#[cfg(test)]
mod fixture;
mod position;
pub mod protocol;
mod reject;
pub mod roster;
pub mod seal;
#[cfg(test)]
mod sim;
pub mod state;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod transmit;
pub mod wire;

pub use position::{Arrival, StreamPosition, WINDOW};
pub use reject::Reject;
