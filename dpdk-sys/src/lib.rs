//! Bindings to the system's libdpdk 22.11, linked dynamically.
//!
//! Only what the `dpdk` crate uses is bound, and `rte_hash`, which the benchmarks compare with. libdpdk's static inline functions stand here under names that begin with
//! `baton_`: a small C shim turns them into real ones. libdpdk's own manual documents every item.

/// What bindgen made of libdpdk's headers.
#[allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    clippy::all,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    reason = "generated from C headers: names, comments and unsafe code are bindgen's"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
