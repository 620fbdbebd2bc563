//! Models: what loom finds in every order of the threads' steps, and in every value that a load may see.
//!
//!     make loom
//!
//! Each model runs the code that runs in production on a real table or ring, see `shm::atomic::model`. Writer, readers and
//! successor are threads here that are processes there; both sides of each pair of orderings are spawned threads.
#![cfg(loom)]

mod fixture;
mod mutations;
mod ring;
mod successor;
mod table;
