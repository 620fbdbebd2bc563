//! The units at work: systemd boots in a container with Baton installed, and starts, watches, reloads, upgrades and stops it.

mod container;
#[path = "../install/mod.rs"]
mod install;
mod life;
mod node;
mod refusal;
mod remains;
#[path = "../lab/wait.rs"]
mod wait;
mod world;
