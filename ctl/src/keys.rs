//! The key file: made, shown and changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use baton_common::config::{Config, KeyFile, KeyUse, Security};
use baton_common::id::KeyId;
use baton_common::sync::seal::fingerprint;
use serde::Serialize;

use crate::arguments::{KeyChoice, KeyCommand, KeyPath};
use crate::report::{self, Report};

/// What is in a key file, without the keys.
#[derive(Debug, Serialize)]
pub struct KeysReport {
    file: PathBuf,
    keys: Vec<KeyRow>,
    /// What to do next, for people.
    #[serde(skip)]
    next: &'static str,
}

/// One key.
#[derive(Debug, Serialize)]
struct KeyRow {
    id: KeyId,
    seals: bool,
    fingerprint: String,
}

/// Does what is asked and reports the file's keys as they then are.
pub fn run(command: &KeyCommand, config: &Path) -> Result<KeysReport> {
    match command {
        KeyCommand::New(file) => {
            let path = path_of(file, config)?;
            let keys = KeyFile::generate()?;
            keys.create(&path)?;
            Ok(KeysReport::new(path, &keys, "copy it to every node, then start baton-sync"))
        }
        KeyCommand::Show(file) => {
            let path = path_of(file, config)?;
            let keys = KeyFile::load(&path)?;
            Ok(KeysReport::new(path, &keys, ""))
        }
        KeyCommand::Add(file) => {
            let next = "copy the file to every node and run `batonctl sync keys` there; then `batonctl key use` with the new number";
            change(file, config, next, |keys| keys.add().map(|_| ()).map_err(Into::into))
        }
        KeyCommand::Use(KeyChoice { id, file }) => {
            let next = "copy the file to every node and run `batonctl sync keys` there; then `batonctl key remove` with the old number";
            change(file, config, next, |keys| Ok(keys.seal_with(KeyId(*id))?))
        }
        KeyCommand::Remove(KeyChoice { id, file }) => {
            let next = "copy the file to every node and run `batonctl sync keys` there";
            change(file, config, next, |keys| Ok(keys.remove(KeyId(*id))?))
        }
    }
}

fn change(
    file: &KeyPath,
    config: &Path,
    next: &'static str,
    change: impl FnOnce(&mut KeyFile) -> Result<()>,
) -> Result<KeysReport> {
    let path = path_of(file, config)?;
    let mut keys = KeyFile::load(&path)?;
    change(&mut keys).with_context(|| format!("{} is unchanged", path.display()))?;
    keys.replace(&path)?;
    Ok(KeysReport::new(path, &keys, next))
}

/// The file that was named, or else the one that the configuration names.
fn path_of(file: &KeyPath, config: &Path) -> Result<PathBuf> {
    if let Some(path) = &file.path {
        return Ok(path.clone());
    }
    match Config::load(config)?.sync.security {
        Security::Aead { key_file } => Ok(key_file),
        Security::Off => bail!("sync.security is Off in {}: name the key file", config.display()),
    }
}

impl KeysReport {
    fn new(file: PathBuf, keys: &KeyFile, next: &'static str) -> KeysReport {
        let row = |key: &baton_common::config::SyncKey| KeyRow {
            id: key.id,
            seals: key.usage == KeyUse::Seal,
            fingerprint: fingerprint(&key.secret).iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        KeysReport { file, keys: keys.keys().iter().map(row).collect(), next }
    }
}

impl Report for KeysReport {
    fn text(&self) -> String {
        let mut table = report::table(&["#key", "use", "fingerprint"]);
        for KeyRow { id, seals, fingerprint } in &self.keys {
            table.add_row([id.to_string().as_str(), if *seals { "seal" } else { "open" }, fingerprint]);
        }
        let next = if self.next.is_empty() { String::new() } else { format!("\nNext: {}\n", self.next) };
        format!("{}\n{}{next}", self.file.display(), report::lines(&table))
    }
}
