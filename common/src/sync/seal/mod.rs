//! The seal on datagrams: AES-256-GCM over the records, with the header in the clear and authenticated too.
//!
//! ```text
//! header, in the clear, names the key | records, encrypted in place | tag, 16 bytes
//! ```
//!
//! Nobody uses a key of the [key file](crate::config::KeyFile) itself: each sender derives one for itself and its boot epoch
//! (`keyring`). A nonce is what the header says of addressee, stream and sequence number (`place`). So a nonce comes twice
//! under one key only if a sender gives a number twice within a boot epoch: `docs/sealing.md` goes through the ways in which that
//! could come about, and why none of them does.
//!
//! Sealing makes no datagram new: whether one was received before is [`PeerState::accept`](super::state::PeerState::accept)'s
//! to say, and only after it was opened.

#[cfg(test)]
mod golden;
mod keyring;
mod opener;
mod place;
mod sealer;
#[cfg(test)]
mod tests;

pub use keyring::{FINGERPRINT_BYTES, Keyring, fingerprint};
pub use opener::Opener;
pub use sealer::{SealError, Sealer};

/// Bytes of the tag at the end of a sealed datagram.
pub const TAG_BYTES: usize = 16;
