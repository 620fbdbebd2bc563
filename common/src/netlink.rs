//! The kernel's neighbours and routes, mirrored over netlink.
