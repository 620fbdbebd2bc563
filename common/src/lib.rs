//! The load balancer itself: tables, packet path, session rules and sync protocol.
//!
//! Nothing here knows DPDK, needs root or hugepages: what parses, looks up, rewrites, encodes, decodes and decides works
//! on slices and atomics. Imports point down the layers only (ARCHITECTURE.md lists them).

// Layer 1: time, identities, flow keys.
pub mod flow;
pub mod id;
pub mod time;

// Layer 2: packets and shared memory.
pub mod packet;
pub mod shm;

// Layer 3: services, counters, config, logging, steering, the kernel's neighbours.
pub mod config;
pub mod counter;
pub mod idle;
pub mod logging;
pub mod neighbour;
pub mod netlink;
pub mod punt;
pub mod runtime;
pub mod service;
pub mod steering;

// Layer 4: sessions and who takes part.
pub mod membership;
pub mod session;

// Layer 5: rewriting and synchronisation.
pub mod nat;
pub mod sync;

// Layer 6: the worker's pipeline, the control protocol, metrics and the list of table files.
pub mod control;
pub mod files;
pub mod metrics;
pub mod pipeline;
