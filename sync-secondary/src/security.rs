//! The keys that this secondary seals and opens with, or the warning that there are none.

use std::sync::Arc;

use anyhow::Context;
use baton_common::config::{KeyFile, SECURITY_OFF, Security};
use baton_common::sync::seal::Keyring;

/// Reads the key file that the configuration names. With security off there is none, and that is said.
///
/// # Errors
/// The key file is missing, open to others, or holds no keys.
pub fn load_keys(security: &Security) -> anyhow::Result<Option<Arc<Keyring>>> {
    let key_file = match security {
        Security::Off => {
            tracing::warn!("sync.security is Off: {SECURITY_OFF}");
            return Ok(None);
        }
        Security::Aead { key_file } => key_file,
    };
    let keys = KeyFile::load(key_file).context("reading sync.security.key_file")?;
    tracing::info!(key = keys.sealing().id.0, count = keys.keys().len(), "datagrams are sealed");
    Ok(Some(Arc::new(Keyring::new(&keys))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_file_that_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("sync.key");

        let error =
            load_keys(&Security::Aead { key_file: key_file.clone() }).map(drop).expect_err("an error");
        assert!(format!("{error:#}").contains("batonctl key new"), "{error:#}");

        KeyFile::generate().unwrap().create(&key_file).unwrap();
        assert!(load_keys(&Security::Aead { key_file }).unwrap().is_some());
        assert!(load_keys(&Security::Off).unwrap().is_none());
    }
}
