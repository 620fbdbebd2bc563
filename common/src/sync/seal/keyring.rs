//! The keyring: the keys of a key file, made ready to derive senders' keys from them (HKDF-SHA-256, RFC 5869).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::place::Origin;
use crate::config::{KeyFile, Secret, SyncKey};
use crate::id::KeyId;

/// The salt of the extraction: it keeps these keys apart from whatever else somebody uses the same bits for.
const SALT: &[u8] = b"baton sync key";

/// The first part of what a key is derived for. The version is that of the derivation, not of the wire format.
const LABEL: &[u8] = b"baton sync sender 1";

/// What a fingerprint is derived for.
const LABEL_FINGERPRINT: &[u8] = b"baton sync fingerprint";

/// Bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = 8;

/// The keys that are in use at a time. To change them, another keyring takes this one's place:
/// [`Sealer::use_keyring`](super::Sealer::use_keyring), [`Opener::use_keyring`](super::Opener::use_keyring).
pub struct Keyring {
    keys: Vec<(KeyId, Prk)>,
    /// The position of the key that seals.
    sealing: usize,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.keys.iter().map(|(id, _)| id.0).collect();
        write!(f, "Keyring {{ keys: {ids:?}, sealing: {} }}", self.keys[self.sealing].0)
    }
}

impl Keyring {
    /// The keyring of a key file.
    pub fn new(file: &KeyFile) -> Keyring {
        let salt = Salt::new(HKDF_SHA256, SALT);
        let keys = file.keys().iter().map(|key| (key.id, salt.extract(key.secret.bytes()))).collect();
        let seals = |key: &SyncKey| key.id == file.sealing().id;
        Keyring { keys, sealing: file.keys().iter().position(seals).unwrap_or_default() }
    }

    /// A sender's own key to seal with, and the number of the key that it comes from.
    pub(super) fn sealing_key(&self, origin: &Origin) -> (KeyId, LessSafeKey) {
        let (id, secret) = &self.keys[self.sealing];
        (*id, derive(secret, origin))
    }

    /// A sender's own key to open with; `None` if there is no key of that number.
    pub(super) fn opening_key(&self, id: KeyId, origin: &Origin) -> Option<LessSafeKey> {
        let (_, secret) = self.keys.iter().find(|(other, _)| *other == id)?;
        Some(derive(secret, origin))
    }
}

fn derive(secret: &Prk, origin: &Origin) -> LessSafeKey {
    let info = origin.info();
    let parts = [LABEL, &info];
    let derived =
        secret.expand(&parts, &AES_256_GCM).expect("a key is not longer than HKDF's longest output");
    LessSafeKey::new(UnboundKey::from(derived))
}

/// What may be shown of a key: it tells whether two files have the same one, and nothing of its bits.
pub fn fingerprint(secret: &Secret) -> [u8; FINGERPRINT_BYTES] {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            FINGERPRINT_BYTES
        }
    }
    let secret = Salt::new(HKDF_SHA256, SALT).extract(secret.bytes());
    let mut fingerprint = [0; FINGERPRINT_BYTES];
    let derived =
        secret.expand(&[LABEL_FINGERPRINT], Length).and_then(|output| output.fill(&mut fingerprint));
    derived.expect("a fingerprint is not longer than HKDF's longest output");
    fingerprint
}
