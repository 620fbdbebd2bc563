//! Neighbours and routes: which link-layer address a packet to an IP address is sent to.
