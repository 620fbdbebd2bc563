//! The ring: items by value from one process to another, one producer and one consumer.
//!
//! All state lies in the file: who takes over an end after its owner's death just attaches. An item that was read but not
//! committed when the consumer died is read again by its successor.

use std::path::Path;

use thiserror::Error;

use super::atomic::{AtomicU64, Ordering};
use super::dirty::DirtyRanges;
use super::header::{FileKind, FileSpec, HEADER_BYTES, HeaderError};
use super::region::{Region, RegionError};
use super::shared::{Mapped, shared_struct};

/// Largest item that a ring can be made for.
pub const ITEM_BYTES_MAX: u64 = 65_536;

const SLOTS_OFFSET: u64 = HEADER_BYTES + 4096;

shared_struct! {
    /// The two indices, each in a cache line of its owner's, and the dirty ranges: a page after the header. Both indices count
    /// up for ever and are taken modulo the number of slots.
    #[repr(C, align(64))]
    struct Control {
        /// Items consumed. Written by the consumer.
        head: AtomicU64,
        reserved0: [AtomicU64; 7],
        /// Items produced. Written by the producer.
        tail: AtomicU64,
        reserved1: [AtomicU64; 7],
        dirty: DirtyRanges,
        reserved2: [AtomicU64; 464],
    }
}

const _: () = {
    assert!(size_of::<Control>() == 4096);
    assert!(std::mem::offset_of!(Control, tail) == 64);
    assert!(std::mem::offset_of!(Control, dirty) == 128);
};

/// Why a ring could not be made or attached.
#[derive(Debug, Error)]
pub enum RingError {
    /// The file itself.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A ring of this shape cannot be.
    #[error(
        "a ring of {slots} slots of {item_bytes} bytes: slots must be a power of two, items 1 to {ITEM_BYTES_MAX} bytes"
    )]
    Shape {
        /// Slots asked for.
        slots: u64,
        /// Bytes of the largest item.
        item_bytes: u64,
    },
}

/// Makes a ring's file: `slots` (a power of two) items of at most `item_bytes`.
///
/// # Errors
/// The shape is wrong, or the file cannot be made.
pub fn create(path: &Path, kind: FileKind, slots: u32, item_bytes: u32) -> Result<(), RingError> {
    Region::create(path, &spec(kind, u64::from(slots), u64::from(item_bytes))?)?;
    Ok(())
}

/// What the file of a ring of this shape is to be.
///
/// # Errors
/// There can be no such ring.
pub fn spec(kind: FileKind, slots: u64, item_bytes: u64) -> Result<FileSpec, RingError> {
    let bytes = file_bytes(slots, item_bytes).ok_or(RingError::Shape { slots, item_bytes })?;
    Ok(FileSpec { kind, geometry: [slots, item_bytes, 0, 0], bytes })
}

/// Bytes of the file of a ring of this shape, before rounding to pages; `None` if there can be no such ring.
pub fn file_bytes(slots: u64, item_bytes: u64) -> Option<u64> {
    let possible = slots.is_power_of_two() && slots <= 1 << 31 && (1..=ITEM_BYTES_MAX).contains(&item_bytes);
    possible.then(|| SLOTS_OFFSET + slots * 8 * slot_words(item_bytes))
}

/// Words of a slot: the item's length in bytes, then the item, up to a whole cache line.
fn slot_words(item_bytes: u64) -> u64 {
    (1 + item_bytes.div_ceil(8)).next_multiple_of(8)
}

/// What both ends see.
struct Ring {
    control: Mapped<Control>,
    words: Mapped<[AtomicU64]>,
    slots: u64,
    slot_words: usize,
    item_bytes: usize,
}

impl Ring {
    fn attach(path: &Path, kind: FileKind) -> Result<Ring, RingError> {
        let region = Region::open(path, kind)?;
        let [slots, item_bytes, ..] = region.header().geometry();
        let needed = spec(kind, slots, item_bytes)?.bytes;
        if needed > region.bytes() {
            let mismatch =
                HeaderError::Geometry { word: "file size", found: region.bytes(), expected: needed };
            return Err(RegionError::Header { path: path.to_owned(), mismatch }.into());
        }
        let slot_words = slot_words(item_bytes);
        Ok(Ring {
            control: Mapped::new(&region, HEADER_BYTES)?,
            words: Mapped::slice(&region, SLOTS_OFFSET, slots * slot_words)?,
            slots,
            slot_words: slot_words as usize,
            item_bytes: item_bytes as usize,
        })
    }

    /// The words of the slot that item number `index` goes to.
    fn slot(&self, index: u64) -> &[AtomicU64] {
        let begin = (index & (self.slots - 1)) as usize * self.slot_words;
        &self.words[begin..begin + self.slot_words]
    }

    /// Items between the two indices; `None` if they make no sense together.
    fn distance(&self, head: u64, tail: u64) -> Option<u64> {
        let distance = tail.wrapping_sub(head);
        (distance <= self.slots).then_some(distance)
    }
}

/// The end that items go in. One process, one thread.
pub struct Producer {
    ring: Ring,
    /// Items produced: this producer's own count; the file's copy is for the consumer and a successor.
    tail: u64,
    /// The consumer's index when it was last read.
    head_seen: u64,
    nonsense: u64,
}

impl Producer {
    /// Takes the producing end of a ring, where its last owner left off.
    ///
    /// # Errors
    /// The file is missing or not such a ring.
    pub fn attach(path: &Path, kind: FileKind) -> Result<Producer, RingError> {
        let ring = Ring::attach(path, kind)?;
        let tail = ring.control.tail.load(Ordering::Relaxed);
        let mut producer = Producer { ring, tail, head_seen: tail, nonsense: 0 };
        producer.refresh_head();
        Ok(producer)
    }

    /// Puts an item in. `false` if the ring is full or the item larger than a slot: then nothing has changed.
    #[inline]
    pub fn try_push(&mut self, item: &[u8]) -> bool {
        self.try_push_parts(item, &[])
    }

    /// Puts in an item that consists of two parts, one after the other.
    #[inline]
    pub fn try_push_parts(&mut self, first: &[u8], second: &[u8]) -> bool {
        let length = first.len() + second.len();
        if length > self.ring.item_bytes || !self.has_room() {
            return false;
        }
        let slot = self.ring.slot(self.tail);
        slot[0].store(length as u64, Ordering::Relaxed);
        store_parts(&slot[1..], first, second);
        self.tail = self.tail.wrapping_add(1);
        // SYNC ring-published: pairs with the acquire load of `Consumer::available`.
        self.ring.control.tail.store(self.tail, Ordering::Release);
        true
    }

    /// Whether one more item has room now.
    #[inline]
    pub fn has_room(&mut self) -> bool {
        let room = |producer: &Producer| producer.tail.wrapping_sub(producer.head_seen) < producer.ring.slots;
        if room(self) {
            return true;
        }
        self.refresh_head();
        room(self)
    }

    /// Reads the consumer's index, once. If it makes no sense the ring counts as full: the consumer puts it right.
    fn refresh_head(&mut self) {
        // SYNC ring-consumed: pairs with the release store of `Consumer::commit`.
        let head = self.ring.control.head.load(Ordering::Acquire);
        if self.ring.distance(head, self.tail).is_some() {
            self.head_seen = head;
        } else {
            self.nonsense += 1;
            self.head_seen = self.tail.wrapping_sub(self.ring.slots);
        }
    }

    /// The ranges to mark when the ring is full.
    pub fn dirty(&self) -> &DirtyRanges {
        &self.ring.control.dirty
    }

    /// Bytes of the largest item.
    pub fn item_bytes(&self) -> usize {
        self.ring.item_bytes
    }

    /// Times that the consumer's index made no sense.
    pub fn nonsense(&self) -> u64 {
        self.nonsense
    }
}

/// The end that items come out of. One process, one thread.
pub struct Consumer {
    ring: Ring,
    /// Items committed: this consumer's own count; the file's copy is for the producer and a successor.
    head: u64,
    /// Items read; those from `head` on come again if they are never committed.
    cursor: u64,
    resynchronised: u64,
    invalid: u64,
}

impl Consumer {
    /// Takes the consuming end of a ring. What its last owner read and did not commit comes again.
    ///
    /// # Errors
    /// The file is missing or not such a ring.
    pub fn attach(path: &Path, kind: FileKind) -> Result<Consumer, RingError> {
        let ring = Ring::attach(path, kind)?;
        let head = ring.control.head.load(Ordering::Relaxed);
        Ok(Consumer { ring, head, cursor: head, resynchronised: 0, invalid: 0 })
    }

    /// Copies the next item into `buffer`, which is at least as long as the ring's largest item, and returns its length.
    /// The item stays in the ring until [`Consumer::commit`].
    ///
    /// An item that says it is longer than any can be, or than `buffer`, is counted and skipped.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        for _ in 0..self.available() {
            let slot = self.ring.slot(self.cursor);
            self.cursor = self.cursor.wrapping_add(1);
            let length = slot[0].load(Ordering::Relaxed);
            if length <= self.ring.item_bytes as u64
                && let Some(item) = buffer.get_mut(..length as usize)
            {
                load_bytes(&slot[1..], item);
                return Some(length as usize);
            }
            self.invalid += 1;
        }
        None
    }

    /// Gives back the slots of all items read so far: they never come again.
    #[inline]
    pub fn commit(&mut self) {
        self.head = self.cursor;
        // SYNC ring-consumed: pairs with the acquire load of `Producer::refresh_head`.
        self.ring.control.head.store(self.head, Ordering::Release);
    }

    /// Goes back to the first item that was not committed.
    pub fn rewind(&mut self) {
        self.cursor = self.head;
    }

    /// Reads the next item and commits it.
    pub fn pop(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let length = self.read(buffer);
        if self.cursor != self.head {
            self.commit();
        }
        length
    }

    /// Items not read yet.
    ///
    /// The producer's index is read once. If it makes no sense together with this end's, whatever lies between them is given
    /// up: this end goes to where the producer says it is.
    #[inline]
    pub fn available(&mut self) -> u64 {
        // SYNC ring-published: pairs with the release store of `Producer::try_push_parts`.
        let tail = self.ring.control.tail.load(Ordering::Acquire);
        let in_ring = self.ring.distance(self.head, tail);
        let unread = self.ring.distance(self.cursor, tail);
        let (Some(_), Some(unread)) = (in_ring, unread) else {
            self.resynchronised += 1;
            self.cursor = tail;
            self.commit();
            return 0;
        };
        if unread == 0 && self.ring.control.head.load(Ordering::Relaxed) != self.head {
            // Somebody wrote into this end's index. The producer may take the ring for full because of it.
            self.ring.control.head.store(self.head, Ordering::Release);
        }
        unread
    }

    /// The ranges that the producer marked while the ring was full.
    pub fn dirty(&self) -> &DirtyRanges {
        &self.ring.control.dirty
    }

    /// Bytes of the largest item.
    pub fn item_bytes(&self) -> usize {
        self.ring.item_bytes
    }

    /// Times that the producer's index made no sense and items may have been given up.
    pub fn resynchronised(&self) -> u64 {
        self.resynchronised
    }

    /// Items skipped because of a length that no item can have.
    pub fn invalid(&self) -> u64 {
        self.invalid
    }
}

/// Writes `first` and then `second` into words, eight bytes each, the last one filled up with zeros.
#[inline]
fn store_parts(words: &[AtomicU64], first: &[u8], second: &[u8]) {
    let (whole, rest) = first.as_chunks::<8>();
    let (first_words, words) = words.split_at(whole.len());
    store_whole(first_words, whole);
    if rest.is_empty() {
        return store_tail(words, second);
    }
    // The word in which the parts meet.
    let mut joint = [0; 8];
    joint[..rest.len()].copy_from_slice(rest);
    let (filler, second) = second.split_at(second.len().min(8 - rest.len()));
    joint[rest.len()..rest.len() + filler.len()].copy_from_slice(filler);
    words[0].store(u64::from_ne_bytes(joint), Ordering::Relaxed);
    store_tail(&words[1..], second);
}

#[inline]
fn store_tail(words: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<8>();
    let (whole_words, words) = words.split_at(whole.len());
    store_whole(whole_words, whole);
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        words[0].store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

#[inline]
fn store_whole(words: &[AtomicU64], chunks: &[[u8; 8]]) {
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
    }
}

/// Fills `bytes` from words.
#[inline]
fn load_bytes(words: &[AtomicU64], bytes: &mut [u8]) {
    let (whole, rest) = bytes.as_chunks_mut::<8>();
    for (chunk, word) in whole.iter_mut().zip(words) {
        *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    if !rest.is_empty() {
        let last = words[whole.len()].load(Ordering::Relaxed).to_ne_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}
