//! `bench-sync`: sessions from one node to another, beside what others would have used.

pub mod memory;
pub mod node;
