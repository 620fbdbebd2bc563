//! What takes root: the kernel's interfaces and tables, in network namespaces that end with their thread.

mod namespace;
mod netlink;
mod punt;
