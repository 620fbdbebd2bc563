//! The key file: the keys of the sync protocol, one a line, so that they can be changed without a gap.
//!
//! ```text
//! # id  use   256 bits in hex
//! 1     seal  5f0c…
//! 2     open  91ab…
//! ```
//!
//! Every key opens what peers send; the one with `seal` seals what this node sends. Blank lines and `#` comments are skipped.
//! Messages never show a key's digits.

mod store;
mod text;

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::id::KeyId;

/// Most keys of a file: two are enough to change them, more are left to forgotten ones.
pub const KEYS_MAX: usize = 16;

/// Bytes of a key.
const SECRET_BYTES: usize = 32;

/// A key's 256 bits. Not shown, and wiped from memory when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a key is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// For what this node sends, and for what peers send.
    Seal,
    /// For what peers send.
    Open,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncKey {
    /// Its number, which datagrams carry. Not zero.
    pub id: KeyId,
    /// What it is used for.
    pub usage: KeyUse,
    /// The key itself.
    pub secret: Secret,
}

/// The keys of a file: at least one, at most [`KEYS_MAX`], of different numbers and bits, and exactly one seals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    keys: Vec<SyncKey>,
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("{}: cannot read the key file: {error}; make one with `batonctl key new {}`, and copy it to every node", path.display(), path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It cannot be written.
    #[error("{}: cannot write the key file: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It is no regular file, or too long to hold keys.
    #[error("{}: found something else, expected a key file; make one with `batonctl key new`", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner have rights on it.
    #[error("{}: found mode {mode:04o}, expected 0600: others may read the keys; run `chmod 600 {}`, and change the keys if somebody did", path.display(), path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It belongs to somebody else.
    #[error("{}: found user {owner} as its owner, expected root or user {reader}, who reads it; run `chown root {}`", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who reads it.
        reader: u32,
    },
    /// A line is none of a key file.
    #[error("{name}:{line}: found {found}, expected {expected}")]
    Line {
        /// The file's name, as it was given.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What stands there; never a key's digits.
        found: String,
        /// What has to stand there.
        expected: &'static str,
    },
    /// The keys do not make a set that can be used.
    #[error("{name}: found {found}, expected {expected}")]
    Set {
        /// The file's name, as it was given.
        name: String,
        /// What there is.
        found: String,
        /// What there has to be.
        expected: &'static str,
    },
}

/// Why the keys of a file were not changed as asked.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such key.
    #[error("there is no key {0} in the file")]
    Unknown(KeyId),
    /// It is the key that seals.
    #[error("key {0} seals: let another one seal first (`batonctl key use`)")]
    Seals(KeyId),
    /// No more keys fit.
    #[error("the file has {KEYS_MAX} keys: remove one first")]
    Full,
    /// The kernel gave no random numbers.
    #[error("no random numbers for a key: {0}")]
    Random(io::Error),
}

impl KeyFile {
    /// A file with one new key, number 1.
    ///
    /// # Errors
    /// `Random`.
    pub fn generate() -> Result<KeyFile, ChangeError> {
        Ok(KeyFile { keys: vec![SyncKey { id: KeyId(1), usage: KeyUse::Seal, secret: random()? }] })
    }

    /// The keys, in the order of the file.
    pub fn keys(&self) -> &[SyncKey] {
        &self.keys
    }

    /// The key that seals.
    pub fn sealing(&self) -> &SyncKey {
        let seals = |key: &&SyncKey| key.usage == KeyUse::Seal;
        self.keys.iter().find(seals).unwrap_or(&self.keys[0])
    }

    /// Adds a new key, which only opens until every node has it, and returns its number.
    ///
    /// # Errors
    /// `Full` or `Random`; nothing has changed then.
    pub fn add(&mut self) -> Result<KeyId, ChangeError> {
        if self.keys.len() >= KEYS_MAX {
            return Err(ChangeError::Full);
        }
        let highest = self.keys.iter().map(|key| key.id.0).max().unwrap_or_default();
        let free = |id: &u8| self.keys.iter().all(|key| key.id.0 != *id);
        let next = (highest.saturating_add(1)..=u8::MAX).chain(1..=u8::MAX).find(free);
        let id = KeyId(next.ok_or(ChangeError::Full)?);
        self.keys.push(SyncKey { id, usage: KeyUse::Open, secret: random()? });
        Ok(id)
    }

    /// Makes a key the one that seals. The one before goes on opening.
    ///
    /// # Errors
    /// `Unknown`; nothing has changed then.
    pub fn seal_with(&mut self, id: KeyId) -> Result<(), ChangeError> {
        let position = self.position(id)?;
        for (at, key) in self.keys.iter_mut().enumerate() {
            key.usage = if at == position { KeyUse::Seal } else { KeyUse::Open };
        }
        Ok(())
    }

    /// Takes a key away that no node seals with any more.
    ///
    /// # Errors
    /// `Unknown`, or `Seals`; nothing has changed then.
    pub fn remove(&mut self, id: KeyId) -> Result<(), ChangeError> {
        let position = self.position(id)?;
        if self.keys[position].usage == KeyUse::Seal {
            return Err(ChangeError::Seals(id));
        }
        self.keys.remove(position);
        Ok(())
    }

    fn position(&self, id: KeyId) -> Result<usize, ChangeError> {
        self.keys.iter().position(|key| key.id == id).ok_or(ChangeError::Unknown(id))
    }
}

/// A secret from the kernel's random numbers.
fn random() -> Result<Secret, ChangeError> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    let mut filled = 0;
    while filled < SECRET_BYTES {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(ChangeError::Random(error.into())),
        }
    }
    Ok(Secret(bytes))
}
