//! Reading a configuration, and reporting on one.

use std::path::Path;

use super::{Config, ConfigError, shape, validate};

/// Where the configuration lies if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/baton/baton.ron";

/// The sample configuration with every field explained: what `--print-default` prints.
pub const SAMPLE: &str = include_str!("../../../conf/baton.ron");

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not of the configuration's shape, or holds values that are wrong: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
        Config::parse(&text, &path.display().to_string())
    }

    /// Validates `text`; `name` is what messages call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
        let raw = shape::read(text, name).map_err(ConfigError::Shape)?;
        validate::validate(raw, text, name)
    }
}

/// What every binary's `--check` prints, and whether the configuration is good: `PATH: ok`, or one line a problem.
pub fn check_report(path: &Path) -> (String, bool) {
    match Config::load(path) {
        Ok(_) => (format!("{}: ok", path.display()), true),
        Err(error) => (error.to_string(), false),
    }
}
