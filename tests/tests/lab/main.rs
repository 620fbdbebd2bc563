//! Tests of whole labs: real processes on hugepages, real connections through network namespaces.

mod burst;
mod counters;
mod datagrams;
mod forwarding;
mod frame;
mod handover;
mod harness;
mod kills;
mod labs;
mod load;
mod loss;
mod metrics;
mod movement;
mod packets;
mod partition;
mod peer;
mod primary;
mod random;
mod secondary;
mod sessions;
mod takeover;
mod top;
mod traffic;
mod wait;
mod young;
