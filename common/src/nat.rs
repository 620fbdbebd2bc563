//! FullNAT rewriting of a packet in place.
