//! The keys that this secondary seals and opens with, or the warning that there are none.

use std::sync::Arc;

use anyhow::Context;
use baton_common::config::{Config, KeyFile, SECURITY_OFF, Security};
use baton_common::sync::roster::Identity;
use baton_common::sync::seal::{Keyring, Opener, Sealer};

/// What datagrams are sealed and opened with.
pub struct Keys {
    keyring: Option<Arc<Keyring>>,
}

impl Keys {
    /// Reads the key file that the configuration names. With security off, there is none, and that is said.
    ///
    /// # Errors
    /// The key file is missing, open to others, or holds no keys.
    pub fn load(config: &Config) -> anyhow::Result<Keys> {
        let key_file = match &config.sync.security {
            Security::Off => {
                tracing::warn!("sync.security is Off: {SECURITY_OFF}");
                return Ok(Keys { keyring: None });
            }
            Security::Aead { key_file } => key_file,
        };
        let keys = KeyFile::load(key_file).context("reading sync.security.key_file")?;
        tracing::info!(key = keys.sealing().id.0, count = keys.keys().len(), "datagrams are sealed");
        Ok(Keys { keyring: Some(Arc::new(Keyring::new(&keys))) })
    }

    /// A sealer for this sender's life.
    pub fn sealer(&self, sender: Identity, boot_epoch: u64) -> Sealer {
        match &self.keyring {
            Some(keyring) => Sealer::new(keyring, sender, boot_epoch),
            None => Sealer::off(),
        }
    }

    /// An opener for what peers send.
    pub fn opener(&self) -> Opener {
        self.keyring.clone().map_or_else(Opener::off, Opener::new)
    }
}

#[cfg(test)]
mod tests {
    use baton_common::config;

    use super::*;

    fn with(security: Security) -> anyhow::Result<Keys> {
        let mut config = Config::parse(config::SAMPLE, "sample").unwrap();
        config.sync.security = security;
        Keys::load(&config)
    }

    #[test]
    fn keys_come_from_the_file_that_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let key_file = directory.path().join("sync.key");
        let sender = Identity { cluster: 1, node: baton_common::id::NodeId(1), numa: Default::default() };

        let error = with(Security::Aead { key_file: key_file.clone() }).err().expect("an error");
        assert!(format!("{error:#}").contains("batonctl key new"), "{error:#}");

        KeyFile::generate().unwrap().create(&key_file).unwrap();
        let keys = with(Security::Aead { key_file }).unwrap();
        assert_eq!(keys.sealer(sender, 1).overhead_bytes(), 16);
        assert_eq!(with(Security::Off).unwrap().sealer(sender, 1).overhead_bytes(), 0);
    }
}
