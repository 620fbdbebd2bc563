//! Packet headers, the parser, checksums.
