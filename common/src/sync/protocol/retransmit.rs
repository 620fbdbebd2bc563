//! The retransmission ring: the last datagrams of the change stream, in shared memory, for peers that missed one.
//!
//! ```text
//! slot:  sequence (u64; 0 while it is written) | bytes (u64) | the datagram, in whole words
//! ```
//!
//! Sequence number `s` lies in slot `s mod slots`. One writer. A successor reads what its predecessor left: a slot whose number
//! is not the one asked for, or whose length cannot be, is none.

use std::sync::atomic::{AtomicU64, Ordering};

/// Datagrams that can be sent again.
pub const RETRANSMIT_SLOTS: u64 = 512;

/// Words of a slot for datagrams of at most this many bytes.
pub const fn slot_words(datagram_bytes_max: usize) -> u64 {
    2 + (datagram_bytes_max as u64).div_ceil(8)
}

/// Words of a whole ring.
pub const fn ring_words(datagram_bytes_max: usize) -> u64 {
    RETRANSMIT_SLOTS * slot_words(datagram_bytes_max)
}

/// The ring over its words, wherever they lie.
pub struct RetransmitRing<'a> {
    words: &'a [AtomicU64],
    slot_words: usize,
}

impl<'a> RetransmitRing<'a> {
    /// The ring in these words; as many slots as they have room for, none if it is too little.
    pub fn new(words: &'a [AtomicU64], datagram_bytes_max: usize) -> RetransmitRing<'a> {
        RetransmitRing { words, slot_words: slot_words(datagram_bytes_max) as usize }
    }

    fn slot(&self, sequence: u64) -> Option<&'a [AtomicU64]> {
        let slots = (self.words.len() / self.slot_words) as u64;
        let at = sequence.checked_rem(slots)? as usize * self.slot_words;
        self.words.get(at..at + self.slot_words)
    }

    /// Keeps a datagram. One that is longer than a slot is not kept: then nobody can have it again.
    pub fn keep(&self, sequence: u64, datagram: &[u8]) {
        let Some([number, length, body @ ..]) = self.slot(sequence) else { return };
        if datagram.len() > body.len() * 8 {
            return;
        }
        number.store(0, Ordering::Relaxed);
        length.store(datagram.len() as u64, Ordering::Relaxed);
        for (word, bytes) in body.iter().zip(datagram.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::Relaxed);
        }
        // Last, and a release: killed before it, the slot is none.
        number.store(sequence, Ordering::Release);
    }

    /// Copies a datagram into `buffer`, if it is still here.
    pub fn copy(&self, sequence: u64, buffer: &mut Vec<u8>) -> bool {
        let Some([number, length, body @ ..]) = self.slot(sequence) else { return false };
        let bytes = length.load(Ordering::Relaxed) as usize;
        if sequence == 0 || number.load(Ordering::Acquire) != sequence || bytes > body.len() * 8 {
            return false;
        }
        buffer.clear();
        for word in &body[..bytes.div_ceil(8)] {
            buffer.extend_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        buffer.truncate(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<AtomicU64> {
        (0..ring_words(100)).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn the_last_datagrams_are_kept_and_older_ones_are_not() {
        let words = words();
        let ring = RetransmitRing::new(&words, 100);
        for sequence in 1..=RETRANSMIT_SLOTS + 1 {
            ring.keep(sequence, &vec![sequence as u8; sequence as usize % 101]);
        }
        let mut buffer = Vec::new();
        assert!(!ring.copy(1, &mut buffer), "its slot is another's");
        for sequence in 2..=RETRANSMIT_SLOTS + 1 {
            assert!(ring.copy(sequence, &mut buffer));
            assert_eq!(buffer, vec![sequence as u8; sequence as usize % 101]);
        }
        assert!(!ring.copy(RETRANSMIT_SLOTS + 2, &mut buffer));
    }

    #[test]
    fn a_successor_finds_what_was_kept() {
        let words = words();
        RetransmitRing::new(&words, 100).keep(7, b"hello");
        let mut buffer = Vec::new();
        assert!(RetransmitRing::new(&words, 100).copy(7, &mut buffer));
        assert_eq!(buffer, b"hello");
    }

    #[test]
    fn nonsense_and_too_long_datagrams_are_none() {
        let words = words();
        let ring = RetransmitRing::new(&words, 100);
        ring.keep(3, &[1; 105]);
        let mut buffer = Vec::new();
        assert!(!ring.copy(3, &mut buffer) && !ring.copy(0, &mut buffer));
        words[3 * slot_words(100) as usize].store(3, Ordering::Relaxed);
        words[3 * slot_words(100) as usize + 1].store(u64::MAX, Ordering::Relaxed);
        assert!(!ring.copy(3, &mut buffer));
        assert!(!RetransmitRing::new(&[], 100).copy(1, &mut buffer));
    }
}
