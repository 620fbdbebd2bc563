//! The hello: what a secondary says of itself.

/// How far a node is with taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum NodeState {
    /// It has started and has not heard every member yet.
    Joining = 1,
    /// It is asking for what it lacks.
    Syncing = 2,
    /// It holds the sessions of all members and may draw traffic.
    Ready = 3,
    /// It is about to leave: its traffic is to go elsewhere.
    Draining = 4,
}

impl NodeState {
    /// Every state.
    pub const ALL: [NodeState; 4] =
        [NodeState::Joining, NodeState::Syncing, NodeState::Ready, NodeState::Draining];

    /// The state with this number, if there is one.
    pub fn from_number(number: u8) -> Option<NodeState> {
        NodeState::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

/// What a secondary says of itself, from time to time and when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Whether it wants a hello in return: then this is a probe.
    pub wants_answer: bool,
    /// The highest version of the format that it speaks.
    pub version: u8,
    /// How far it is.
    pub state: NodeState,
    /// The largest datagram that it takes, bytes of UDP payload.
    pub datagram_bytes_max: u16,
    /// Digest of what must be configured the same on all members. Different digests are shown to the operator.
    pub config_digest: u64,
    /// Sessions that it owns.
    pub sessions_owned: u32,
    /// Sessions of others that it holds.
    pub sessions_held: u32,
}

/// The highest boot epoch that the sender has heard of the receiver: for a receiver that was refused for a lower one, because it
/// has lost its state and its clock was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochHeard {
    /// The epoch; not 0.
    pub boot_epoch: u64,
}
