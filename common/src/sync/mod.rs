//! The sync protocol: events, wire format, batching, sending, receiving.
