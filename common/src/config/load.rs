//! Reading a configuration, and reporting on one.

use std::path::Path;

use super::field_path::FieldPath;
use super::locate::locate;
use super::{Config, ConfigError, KeyFile, Security, shape, validate};

/// Where the configuration lies if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/baton/baton.ron";

/// Where the keys of the sync protocol lie if nobody says otherwise.
pub const DEFAULT_KEY_FILE: &str = "/etc/baton/sync.key";

/// The sample configuration with every field explained: what `--print-default` prints.
pub const SAMPLE: &str = include_str!("../../../conf/baton.ron");

impl Config {
    /// Reads and validates the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not of the configuration's shape, or holds values that are wrong: see [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&read(path)?, &path.display().to_string())
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

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

/// What every binary's `--check` prints, and whether the configuration is good: `PATH: ok`, or one line a problem. With
/// sync on, the key file has to be good too.
pub fn check_report(path: &Path) -> (String, bool) {
    match check(path) {
        Ok(config) if config.sync.enabled && config.sync.security == Security::Off => {
            (format!("{}: ok, but sync.security is Off: {SECURITY_OFF}", path.display()), true)
        }
        Ok(_) => (format!("{}: ok", path.display()), true),
        Err(error) => (error.to_string(), false),
    }
}

/// What it means that `sync.security` is `Off`, for people.
pub const SECURITY_OFF: &str =
    "whoever reaches the sync network can read this cluster's sessions, forge and end them";

fn check(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    let file = path.display().to_string();
    let config = Config::parse(&text, &file)?;
    if let (true, Security::Aead { key_file }) = (config.sync.enabled, &config.sync.security) {
        KeyFile::load(key_file).map_err(|error| {
            let field = FieldPath::root().field("sync").field("security").field("key_file");
            ConfigError::KeyFile { file, position: locate(&text, &field), error }
        })?;
    }
    Ok(config)
}
