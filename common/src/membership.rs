//! Membership: which nodes take part in the cluster.
