//! Nodes, routers, servers and clients in network namespaces.

fn main() {}
