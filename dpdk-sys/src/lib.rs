//! Bindings to the system libdpdk.
