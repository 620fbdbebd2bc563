//! Mutations: a model build with one mistake in it, to see that the models find it.
//!
//! The mistake is named by the environment, `LOOM_MUTATION=<file>:<line>:<kind>`: the line of one access to shared memory and
//! what is wrong with it. So there is no trace of them in the code that is modelled.

use std::panic::Location;
use std::sync::LazyLock;

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its ordering is relaxed; a fence is not there.
    Relax,
    /// A fence orders less than it says: acquire and release instead of sequentially consistent.
    AcqRel,
    /// The store does not happen.
    Skip,
    /// The store happens after the thread's next one.
    Defer,
    /// The load says what this thread's last load of the word has said: a second look is not taken.
    Repeat,
    /// The load says this: what it is for is not checked.
    Value(u64),
}

impl Kind {
    /// The kind as it stands in the environment.
    pub fn to_text(self) -> String {
        match self {
            Kind::Relax => "relax".into(),
            Kind::AcqRel => "acqrel".into(),
            Kind::Skip => "skip".into(),
            Kind::Defer => "defer".into(),
            Kind::Repeat => "repeat".into(),
            Kind::Value(value) => value.to_string(),
        }
    }

    fn from_text(text: &str) -> Option<Kind> {
        [Kind::Relax, Kind::AcqRel, Kind::Skip, Kind::Defer, Kind::Repeat]
            .into_iter()
            .find(|kind| kind.to_text() == text)
            .or_else(|| text.parse().ok().map(Kind::Value))
    }
}

/// The name of the environment's variable.
pub const VARIABLE: &str = "LOOM_MUTATION";

static MUTATION: LazyLock<Option<(String, u32, Kind)>> = LazyLock::new(|| {
    let text = std::env::var(VARIABLE).ok()?;
    let mut parts = text.split(':');
    let parsed = (|| {
        let (file, line, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some((file.to_owned(), line.parse().ok()?, Kind::from_text(kind)?))
    })();
    Some(parsed.unwrap_or_else(|| panic!("{VARIABLE}={text}: no <file>:<line>:<kind>")))
});

/// Whether this build has a mistake in it.
pub fn is_on() -> bool {
    MUTATION.is_some()
}

/// What is wrong with the access at this place in the code.
pub fn of(at: &Location<'_>) -> Option<Kind> {
    let (file, line, kind) = MUTATION.as_ref()?;
    (at.line() == *line && at.file().ends_with(file.as_str())).then_some(*kind)
}
