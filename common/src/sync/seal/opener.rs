//! The opener: what a receiver does to a datagram before it believes a word of it.

use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use rustc_hash::FxHashMap;

use super::place::{Origin, Place};
use super::{Keyring, TAG_BYTES};
use crate::id::{KeyId, NodeId, NumaId};
use crate::sync::Reject;
use crate::sync::state::PEERS_MAX;
use crate::sync::wire::{HEADER_BYTES, Header};

/// Opens datagrams; with security off, passes those on that are in the clear.
pub struct Opener {
    opening: Option<Opening>,
}

struct Opening {
    keyring: Arc<Keyring>,
    senders: FxHashMap<(NodeId, NumaId), Sender>,
}

/// The key of the datagram that was opened last of a sender. One is enough: a sender changes key or life rarely, and what comes
/// late of the old one costs a derivation.
struct Sender {
    id: KeyId,
    origin: Origin,
    key: LessSafeKey,
}

impl Opener {
    /// An opener that demands a seal of one of the keyring's keys.
    pub fn new(keyring: Arc<Keyring>) -> Opener {
        Opener { opening: Some(Opening { keyring, senders: FxHashMap::default() }) }
    }

    /// An opener that demands that there be no seal.
    pub fn off() -> Opener {
        Opener { opening: None }
    }

    /// Senders whose keys are kept.
    #[cfg(test)]
    pub(super) fn senders_known(&self) -> usize {
        self.opening.as_ref().map_or(0, |opening| opening.senders.len())
    }

    /// Opens with another keyring from now on.
    pub fn use_keyring(&mut self, keyring: Arc<Keyring>) {
        if let Some(opening) = &mut self.opening {
            opening.keyring = keyring;
            opening.senders.clear();
        }
    }

    /// The records, in the clear, of a datagram that begins with `header`. `room` is where they are put if they were encrypted:
    /// it grows to the longest datagram and is used again. The sender is a member, so that what is kept of senders is bounded.
    /// Whether the datagram was received before is not decided here.
    ///
    /// A key that is not known yet is derived, and kept only once it has opened something: whoever forges headers makes nothing
    /// grow, and pushes nothing out.
    ///
    /// # Errors
    /// `Unsealed`, `Sealed`, `KeyUnknown`, `Truncated` or `Tag`.
    pub fn open<'a>(
        &mut self,
        header: &Header,
        datagram: &'a [u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Reject> {
        let (clear, rest) = datagram.split_at_checked(HEADER_BYTES).ok_or(Reject::Truncated)?;
        match (&mut self.opening, header.key) {
            (None, None) => Ok(rest),
            (None, Some(_)) => Err(Reject::Sealed),
            (Some(_), None) => Err(Reject::Unsealed),
            (Some(opening), Some(id)) => opening.open(header, id, clear, rest, room),
        }
    }
}

impl Opening {
    fn open<'a>(
        &mut self,
        header: &Header,
        id: KeyId,
        clear: &[u8],
        sealed: &[u8],
        room: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], Reject> {
        let origin = Origin::of(header);
        let name = (origin.node, origin.numa);
        let known = self.senders.get(&name).filter(|sender| sender.id == id && sender.origin == origin);
        let derived = if known.is_none() { self.keyring.opening_key(id, &origin) } else { None };
        let key = derived.as_ref().or(known.map(|sender| &sender.key)).ok_or(Reject::KeyUnknown)?;
        let length = sealed.len().checked_sub(TAG_BYTES).ok_or(Reject::Truncated)?;
        let (sealed, tag) = sealed.split_at(length);
        if room.len() < length {
            room.resize(length, 0);
        }
        let records = &mut room[..length];
        let nonce = Nonce::assume_unique_for_key(Place::of(header).nonce());
        key.open_separate_gather(nonce, Aad::from(clear), sealed, tag, records).map_err(|_| Reject::Tag)?;
        if let Some(key) = derived {
            if self.senders.len() >= PEERS_MAX && !self.senders.contains_key(&name) {
                // Members come and go; those that are still there cost a derivation each.
                self.senders.clear();
            }
            self.senders.insert(name, Sender { id, origin, key });
        }
        Ok(records)
    }
}
