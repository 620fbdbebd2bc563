//! What a comparison has found, for people.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::flow::{Endpoint, Protocol};
use crate::id::NodeId;
use crate::session::SessionState;

/// How far a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparisonState {
    /// It goes on.
    Running,
    /// All that there is was compared.
    Done,
    /// The peer did not answer in time: what is there is not all.
    TimedOut,
}

/// One side's version of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its owner.
    pub owner: NodeId,
    /// Its generation.
    pub generation: u32,
    /// The balancer's endpoint towards the real server.
    #[serde(with = "text")]
    pub local: Endpoint,
    /// The real server.
    #[serde(with = "text")]
    pub server: Endpoint,
    /// Where the session stands. Not compared: it changes in place, on each node as it sees packets.
    pub state: SessionState,
}

/// What is not the same on both sides: the first of these that is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The peer has it, this node does not.
    MissingHere,
    /// This node has it, the peer does not.
    MissingThere,
    /// Who owns it.
    Owner,
    /// Its generation.
    Generation,
    /// The second half of it.
    Endpoints,
}

/// A session that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What is different.
    pub kind: DifferenceKind,
    /// Whose sessions were compared: the node that says it owns this one, or is said to.
    pub owner: NodeId,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its client.
    #[serde(with = "text")]
    pub client: Endpoint,
    /// Its VIP.
    #[serde(with = "text")]
    pub vip: Endpoint,
    /// What this node has.
    pub here: Option<Version>,
    /// What the peer has.
    pub there: Option<Version>,
}

impl DifferenceKind {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            DifferenceKind::MissingHere => "missing here",
            DifferenceKind::MissingThere => "missing there",
            DifferenceKind::Owner => "owner",
            DifferenceKind::Generation => "generation",
            DifferenceKind::Endpoints => "endpoints",
        }
    }
}

impl Difference {
    /// What is different between two versions.
    pub(super) fn kind_of(here: Option<&Version>, there: Option<&Version>) -> DifferenceKind {
        match (here, there) {
            (None, _) => DifferenceKind::MissingHere,
            (_, None) => DifferenceKind::MissingThere,
            (Some(here), Some(there)) if here.owner != there.owner => DifferenceKind::Owner,
            (Some(here), Some(there)) if here.generation != there.generation => DifferenceKind::Generation,
            _ => DifferenceKind::Endpoints,
        }
    }
}

/// A comparison of what this node and a peer have of each other's sessions, finished or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// The peer.
    pub node: NodeId,
    /// How far it is.
    pub state: ComparisonState,
    /// How long it took, or has taken so far. Milliseconds.
    pub elapsed_ms: u64,
    /// Sessions that were compared, each on its own or as part of a range.
    pub sessions: u64,
    /// Ranges that were compared, of the peer's sessions and of this node's.
    pub ranges: u32,
    /// Ranges of these that differed twice.
    pub ranges_differing: u32,
    /// Ranges of these whose sessions were not looked at: there were too many, or they never came as a whole.
    pub ranges_skipped: u32,
    /// Sessions that differ.
    pub differences: Vec<Difference>,
    /// Sessions that differ as well, for which there was no room in the list.
    pub differences_unlisted: u64,
    /// Sessions that differed once and were not looked at again: there were too many.
    pub unconfirmed: u64,
}

impl Comparison {
    pub(super) fn new(node: NodeId) -> Comparison {
        Comparison {
            node,
            state: ComparisonState::Running,
            elapsed_ms: 0,
            sessions: 0,
            ranges: 0,
            ranges_differing: 0,
            ranges_skipped: 0,
            differences: Vec::new(),
            differences_unlisted: 0,
            unconfirmed: 0,
        }
    }

    /// Whether it is finished and found nothing: both sides have the same.
    pub fn is_equal(&self) -> bool {
        self.state == ComparisonState::Done
            && self.differences.is_empty()
            && self.unconfirmed == 0
            && self.ranges_skipped == 0
    }
}

/// Why there is nothing to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CompareError {
    /// The node is no other member.
    #[error("node {0} is no peer of this node: `batonctl peers` lists them")]
    NoPeer(NodeId),
}

/// Endpoints as people write them.
mod text {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::flow::Endpoint;

    pub(super) fn serialize<S: Serializer>(endpoint: &Endpoint, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(endpoint)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Endpoint, D::Error> {
        SocketAddr::deserialize(deserializer).map(Endpoint::from)
    }
}
