//! The sealer: what a sender does to a datagram before it leaves.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use rustc_hash::FxHashMap;

use super::place::{Origin, Place};
use super::{Keyring, TAG_BYTES};
use crate::id::{KeyId, NodeId, NumaId};
use crate::sync::roster::Identity;
use crate::sync::wire::{HEADER_BYTES, Header};

/// Why a datagram was not sealed. It must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The header names another sender, boot epoch or key than the sealer's, or the datagram is too short to have one.
    #[error("the datagram's header is not of this sealer's sender, boot epoch and key")]
    Header,
    /// This place, or a later one, was sealed before: to seal it again would give its key away.
    #[error("number {sequence} is not behind {last}, which was sealed last: send again what was sealed then")]
    Place {
        /// The number that was asked for.
        sequence: u64,
        /// The number that was sealed last, to the same addressee in the same stream.
        last: u64,
    },
}

/// An addressee and a stream: numbers rise along it.
type Line = (Option<(NodeId, NumaId)>, u8);

/// Seals the datagrams of one life of one sender, or none if security is off.
///
/// A datagram is sealed once. What is sent again are the same bytes, sealed: never the records a second time.
pub struct Sealer {
    sealing: Option<Sealing>,
}

struct Sealing {
    origin: Origin,
    id: KeyId,
    key: LessSafeKey,
    /// The number sealed last, of each line. As many as there are addressees and streams.
    last: FxHashMap<Line, u64>,
}

impl Sealer {
    /// A sealer for this sender and its boot epoch, with the keyring's sealing key.
    pub fn new(keyring: &Keyring, sender: Identity, boot_epoch: u64) -> Sealer {
        let Identity { cluster, node, numa } = sender;
        let origin = Origin { cluster, node, numa, boot_epoch };
        let (id, key) = keyring.sealing_key(&origin);
        Sealer { sealing: Some(Sealing { origin, id, key, last: FxHashMap::default() }) }
    }

    /// A sealer that leaves datagrams as they are.
    pub fn off() -> Sealer {
        Sealer { sealing: None }
    }

    /// The key to name in headers; `None` if security is off.
    pub fn key(&self) -> Option<KeyId> {
        self.sealing.as_ref().map(|sealing| sealing.id)
    }

    /// Bytes that a datagram grows by.
    pub fn overhead_bytes(&self) -> usize {
        if self.sealing.is_some() { TAG_BYTES } else { 0 }
    }

    /// Seals with another keyring's sealing key from now on. Places that were sealed stay so.
    pub fn use_keyring(&mut self, keyring: &Keyring) {
        if let Some(sealing) = &mut self.sealing {
            (sealing.id, sealing.key) = keyring.sealing_key(&sealing.origin);
        }
    }

    /// Seals a datagram, which begins with `header`, in place: it grows by [`overhead_bytes`](Sealer::overhead_bytes).
    ///
    /// # Errors
    /// See [`SealError`]; the datagram is as it was.
    pub fn seal(&mut self, header: &Header, datagram: &mut Vec<u8>) -> Result<(), SealError> {
        if header.key != self.key() {
            return Err(SealError::Header);
        }
        match &mut self.sealing {
            Some(sealing) => sealing.seal(header, datagram),
            None => Ok(()),
        }
    }
}

impl Sealing {
    fn seal(&mut self, header: &Header, datagram: &mut Vec<u8>) -> Result<(), SealError> {
        let (clear, records) = datagram.split_at_mut_checked(HEADER_BYTES).ok_or(SealError::Header)?;
        if Origin::of(header) != self.origin {
            return Err(SealError::Header);
        }
        let place = Place::of(header);
        let last = self.last.entry((place.to, place.stream)).or_default();
        if place.sequence <= *last {
            return Err(SealError::Place { sequence: place.sequence, last: *last });
        }
        *last = place.sequence;
        let nonce = Nonce::assume_unique_for_key(place.nonce());
        // Fails only for what is longer than GCM's 64 GiB.
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*clear), records);
        datagram.extend_from_slice(sealed.map_err(|_| SealError::Header)?.as_ref());
        Ok(())
    }
}
