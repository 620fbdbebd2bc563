//! A safe wrapper over the parts of DPDK that Baton uses.
