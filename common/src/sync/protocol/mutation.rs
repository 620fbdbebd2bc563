//! Planted bugs: rules that a test can switch off, to show that the simulation finds it. There are none outside tests.

/// A rule that is not obeyed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mutation {
    /// Every rule is obeyed.
    #[default]
    None,
    /// Rule 1: news of any generation is taken.
    AnyGenerationWins,
    /// Rule 1: of two owners with one generation the later one wins at each node.
    LastOwnerWins,
    /// Rule 1: late news sets a state back.
    LateNewsSetsBack,
    /// Rule 2: a claim is not told to anyone.
    ClaimsAreKept,
    /// Rule 2: whoever loses a claim goes on reporting.
    LoserGoesOn,
    /// Rule 3: what was received is sent on as its own.
    NewsIsPassedOn,
    /// Rule 4: deletes leave no tombstone.
    NoTombstones,
    /// Rule 4: owners tell nothing when a session ages.
    AgeingIsSilent,
    /// Rule 4: members that left are still listened to.
    DepartedAreHeard,
    /// Rule 4: sessions of members that left are adopted by nobody.
    OrphansStaySo,
    /// Rule 4: the others age a session like its owner, without a margin, and as if refreshes never came.
    RefreshIsIgnored,
    /// Rule 5: a restarted node does not ask for its own sessions back.
    NothingIsGivenBack,
    /// Repair (a): gaps are not asked for.
    NoNacks,
    /// Repair (b): digests are never compared.
    NoDigests,
    /// Repair (b): what a complete range did not have is kept.
    NothingIsPurged,
    /// Repair (b): what an incomplete range did not have is dropped.
    IncompleteRangesPurge,
    /// Repair (c): misses are not asked about.
    NoQueries,
    /// Repair (c): a session whose handshake is not done is nobody else's business, even if a peer asks for it.
    HandshakesAreKept,
    /// Readiness: a node is ready once it has heard everyone.
    ReadyAtOnce,
    /// Restart: a node that is in an earlier life than its last one stays there.
    OutdatedStaySo,
    /// Restart: the numbers of a restarted secondary begin anew.
    NumbersBeginAnew,
}
