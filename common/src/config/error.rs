//! What can be wrong with a configuration, told so that it can be put right.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::key_file::KeyFileError;
use super::locate::Position;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {error}; name an existing, readable file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// The text is not RON, or not of the configuration's shape. Reading ends at the first such place.
    #[error("{0}")]
    Shape(Box<Problem>),
    /// Values are out of range or do not fit together. All of them, in the order of the text.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
    /// The configuration is good, but the key file that it names is not. Only [`check_report`](super::check_report) looks.
    #[error("{file}:{}:{}: sync.security.key_file: {error}", position.line, position.column)]
    KeyFile {
        /// The configuration's name, as it was given.
        file: String,
        /// Where the key file is named in it.
        position: Position,
        /// What is wrong with the key file.
        error: KeyFileError,
    },
}

impl ConfigError {
    /// The places that are wrong; none if the configuration could not be read, or it is another file that is wrong.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigError::Read { .. } | ConfigError::KeyFile { .. } => &[],
            ConfigError::Shape(problem) => std::slice::from_ref(problem),
            ConfigError::Invalid(problems) => problems,
        }
    }
}

/// One place of a configuration that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's name, as it was given.
    pub file: String,
    /// Where in the file.
    pub position: Position,
    /// The field's path, for example `services[1].real_servers[0].weight`.
    pub field: String,
    /// What stands there.
    pub found: String,
    /// What has to stand there.
    pub expected: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, position: Position { line, column }, field, found, expected, remedy } = self;
        write!(f, "{file}:{line}:{column}: {field}: found {found}, expected {expected}; {remedy}")
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}
