//! The steering plan: which queue or worker a packet belongs to.
