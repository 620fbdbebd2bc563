//! Memory shared between processes: regions, headers, locks, rings, the table's index.
