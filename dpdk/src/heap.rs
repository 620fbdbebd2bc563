//! The heap of DPDK's shared memory, and what makes it again what it was after a secondary died in it.
//!
//! A secondary allocates while it attaches, never after, and one attaches at a time; the primary allocates nothing after
//! its start. So between two attaches the heap stands still, and its metadata can be copied out ([`HeapImage`]). If the
//! secondary dies inside the heap, at whatever instruction, the copy is put back: what was allocated since is free again,
//! and what was half done is undone. What a secondary that lived to be ready had allocated is known from the difference to
//! the copy ([`SharedHeap::since`]), and is freed when it is dead.
//!
//! The layouts are those of DPDK 22.11's `struct malloc_heap` and `struct malloc_elem` (lib/eal/common/malloc_heap.h,
//! malloc_elem.h, x86-64, without debugging aids); [`SharedConfig::open`](crate::SharedConfig::open) refuses another release.

use std::ptr::NonNull;

use crate::eal::{Eal, ProcessType};
use crate::shared_config::{HEAPS, SharedConfig};

/// 64-bit words of a heap's structure from its lock on: lists of free elements, first and last element, counts.
const HEAP_WORDS: usize = 18;
/// Among them: the first element's address.
const HEAP_FIRST: usize = 14;
/// Bytes that the heap has in all.
const HEAP_BYTES: usize = 17;

/// 64-bit words of an element's header.
const ELEMENT_WORDS: usize = 16;
/// Among them: the addresses of the element before and of the one behind.
const ELEMENT_PREVIOUS: usize = 1;
const ELEMENT_NEXT: usize = 2;
/// State in the low three bits, then whether free memory is not filled with zeros.
const ELEMENT_STATE: usize = 6;
/// The element's bytes, header included.
const ELEMENT_SIZE: usize = 7;

const STATE_MASK: u64 = 7;
const STATE_FREE: u64 = 0;
const DIRTY: u64 = 1 << 3;

/// Most elements of one heap. A primary's has some hundreds.
const ELEMENTS_MAX: usize = 1 << 20;

/// Why the heap cannot be looked at, or not be put right.
#[derive(Debug, thiserror::Error)]
pub enum HeapError {
    /// Elements do not follow each other as they should.
    #[error("DPDK's heap {heap} is broken at element {element}: restart the primary when it suits")]
    Broken {
        /// The heap's number.
        heap: usize,
        /// The number of the element, in the order of addresses.
        element: usize,
    },
    /// Memory was added since the copy was made.
    #[error(
        "DPDK's heap {heap} has {found} bytes and had {expected} before a secondary attached: raise eal.memory_mib, and \
         restart the primary when it suits"
    )]
    Grown {
        /// The heap's number.
        heap: usize,
        /// Bytes now.
        found: u64,
        /// Bytes then.
        expected: u64,
    },
}

/// What of the heaps is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapUse {
    /// Bytes, headers included.
    pub bytes: u64,
    /// Elements.
    pub elements: u64,
}

/// An element's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Element {
    address: usize,
    words: [u64; ELEMENT_WORDS],
}

impl Element {
    fn is_busy(&self) -> bool {
        self.words[ELEMENT_STATE] & STATE_MASK != STATE_FREE
    }

    /// The header as it is put back: free memory may hold anything by then.
    fn marked_dirty(&self) -> [u64; ELEMENT_WORDS] {
        let mut words = self.words;
        if !self.is_busy() {
            words[ELEMENT_STATE] |= DIRTY;
        }
        words
    }
}

/// One heap's metadata.
#[derive(Debug)]
struct OneHeap {
    number: usize,
    words: [u64; HEAP_WORDS],
    elements: Vec<Element>,
}

/// A copy of all heaps' metadata, made while they stood still.
#[derive(Debug)]
pub struct HeapImage {
    heaps: Vec<OneHeap>,
}

impl HeapImage {
    /// What was in use.
    pub fn in_use(&self) -> HeapUse {
        let busy = self.heaps.iter().flat_map(|heap| &heap.elements).filter(|element| element.is_busy());
        busy.fold(HeapUse::default(), |sum, element| HeapUse {
            bytes: sum.bytes + element.words[ELEMENT_SIZE],
            elements: sum.elements + 1,
        })
    }
}

/// Elements that a secondary holds: addresses of their data.
#[derive(Debug, Default)]
pub struct HeapShare {
    data: Vec<usize>,
}

impl HeapShare {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }
}

/// The heaps, as the primary sees them.
#[derive(Debug)]
pub struct SharedHeap {
    config: SharedConfig,
}

impl SharedHeap {
    /// The heaps of the running primary.
    ///
    /// # Panics
    /// This process is a secondary, or uses no shared memory.
    pub fn new(eal: &Eal, config: SharedConfig) -> SharedHeap {
        assert!(eal.process_type() == ProcessType::Primary, "a secondary has no say over the heap");
        SharedHeap { config }
    }

    /// The configuration that the heaps stand in.
    pub fn config(&self) -> &SharedConfig {
        &self.config
    }

    /// Copies the heaps' metadata. Only while no process of the prefix allocates.
    ///
    /// # Errors
    /// [`HeapError::Broken`].
    pub fn image(&self) -> Result<HeapImage, HeapError> {
        let heaps = (0..HEAPS).filter_map(|number| {
            let words = self.heap_words(number);
            (words[HEAP_FIRST] != 0).then(|| Ok(OneHeap { number, words, elements: walk(number, &words)? }))
        });
        Ok(HeapImage { heaps: heaps.collect::<Result<_, _>>()? })
    }

    /// Makes the heaps what they were when the copy was made: what was allocated since is free. Only while no process of the
    /// prefix allocates, and none that lives holds anything which it allocated since.
    ///
    /// # Errors
    /// [`HeapError::Grown`]: nothing was changed.
    pub fn restore(&self, image: &HeapImage) -> Result<(), HeapError> {
        for heap in &image.heaps {
            let (found, expected) = (self.heap_words(heap.number)[HEAP_BYTES], heap.words[HEAP_BYTES]);
            if found != expected {
                return Err(HeapError::Grown { heap: heap.number, found, expected });
            }
        }
        for heap in &image.heaps {
            for element in &heap.elements {
                write_words(element.address, &element.marked_dirty());
            }
            // The first word is the lock's.
            for (word, value) in heap.words.iter().enumerate().skip(1) {
                self.config.heap_word(heap.number, word).store(*value, std::sync::atomic::Ordering::Release);
            }
        }
        Ok(())
    }

    /// What was allocated since the copy was made. Only while no process of the prefix allocates.
    ///
    /// # Errors
    /// [`HeapError::Broken`].
    pub fn since(&self, image: &HeapImage) -> Result<HeapShare, HeapError> {
        let then: std::collections::BTreeSet<usize> = busy_addresses(image).collect();
        let now = self.image()?;
        let new = busy_addresses(&now).filter(|address| !then.contains(address));
        Ok(HeapShare { data: new.map(|address| address + ELEMENT_WORDS * 8).collect() })
    }

    /// Frees what a dead process held. Only while no process of the prefix allocates, and after the locks that the dead left
    /// held were cleared.
    pub fn free(&self, share: HeapShare) {
        for data in share.data {
            // SAFETY: the address is that of an element's data, which was busy and whose owner is dead: freed once, for
            // the share is used up. Nobody else uses the heap, by this method's contract.
            unsafe { dpdk_sys::rte_free(data as *mut std::ffi::c_void) };
        }
    }

    fn heap_words(&self, number: usize) -> [u64; HEAP_WORDS] {
        std::array::from_fn(|word| {
            self.config.heap_word(number, word).load(std::sync::atomic::Ordering::Acquire)
        })
    }
}

fn busy_addresses(image: &HeapImage) -> impl Iterator<Item = usize> {
    let elements = image.heaps.iter().flat_map(|heap| &heap.elements);
    elements.filter(|element| element.is_busy()).map(|element| element.address)
}

/// Reads the headers of a heap's elements, in the order of their addresses.
fn walk(number: usize, heap: &[u64; HEAP_WORDS]) -> Result<Vec<Element>, HeapError> {
    let mut elements: Vec<Element> = Vec::new();
    let (mut at, mut before, mut bytes) = (heap[HEAP_FIRST] as usize, 0, 0_u64);
    while at != 0 {
        let broken = HeapError::Broken { heap: number, element: elements.len() };
        let above = at > before && at.is_multiple_of(64) && elements.len() < ELEMENTS_MAX;
        if !above {
            return Err(broken);
        }
        let words = read_words(at);
        bytes = bytes.saturating_add(words[ELEMENT_SIZE]);
        if words[ELEMENT_PREVIOUS] as usize != before || bytes > heap[HEAP_BYTES] {
            return Err(broken);
        }
        elements.push(Element { address: at, words });
        (before, at) = (at, words[ELEMENT_NEXT] as usize);
    }
    if bytes != heap[HEAP_BYTES] {
        return Err(HeapError::Broken { heap: number, element: elements.len() });
    }
    Ok(elements)
}

/// Reads an element's header.
fn read_words(address: usize) -> [u64; ELEMENT_WORDS] {
    let header = NonNull::new(address as *mut [u64; ELEMENT_WORDS]).expect("the caller has checked it");
    // SAFETY: the address came from the chain of a heap of this process's own EAL, whose memory stays mapped; a header has
    // that many bytes, and it is aligned, which was checked. Nobody writes it meanwhile, by the callers' contract.
    unsafe { header.read_volatile() }
}

/// Writes an element's header.
fn write_words(address: usize, words: &[u64; ELEMENT_WORDS]) {
    let header = NonNull::new(address as *mut [u64; ELEMENT_WORDS]).expect("it was read there");
    // SAFETY: the header was read from there, by `walk`; EAL's memory stays mapped, and nobody else uses the heap now, by
    // the caller's contract.
    unsafe { header.write_volatile(*words) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_config::testing::config_file;

    /// Bytes of the tests' heap.
    const BYTES: u64 = 4096;

    /// Memory of a heap.
    #[repr(align(64))]
    struct Arena([u64; BYTES as usize / 8]);

    impl Arena {
        /// An element of 512 bytes that is in use, and the rest, which is not.
        fn new() -> Box<Arena> {
            let mut arena = Box::new(Arena([0; BYTES as usize / 8]));
            arena.element(0, None, Some(512), 1, 512);
            arena.element(512, Some(0), None, 0, BYTES - 512);
            arena
        }

        fn address(&self) -> u64 {
            self.0.as_ptr() as u64
        }

        fn element(&mut self, at: u64, before: Option<u64>, behind: Option<u64>, state: u64, size: u64) {
            let address = self.address();
            let header = &mut self.0[at as usize / 8..][..ELEMENT_WORDS];
            header[ELEMENT_PREVIOUS] = before.map_or(0, |offset| address + offset);
            header[ELEMENT_NEXT] = behind.map_or(0, |offset| address + offset);
            (header[ELEMENT_STATE], header[ELEMENT_SIZE]) = (state, size);
        }

        /// What a secondary does that takes 256 bytes from the end of the free element.
        fn allocate(&mut self) {
            self.element(512, Some(0), Some(BYTES - 256), 0, BYTES - 768);
            self.element(BYTES - 256, Some(512), None, 1, 256);
        }
    }

    /// The heap in that memory, and the file that it stands in.
    fn heap(arena: &Arena) -> (SharedHeap, tempfile::TempDir) {
        let dir = config_file(&[]);
        let heap = SharedHeap { config: SharedConfig::open(dir.path(), "p").unwrap() };
        for (word, value) in [(HEAP_FIRST, arena.address()), (HEAP_BYTES, BYTES)] {
            heap.config.heap_word(0, word).store(value, std::sync::atomic::Ordering::Relaxed);
        }
        (heap, dir)
    }

    #[test]
    fn what_is_in_use_is_counted() {
        let arena = Arena::new();
        let (heap, _dir) = heap(&arena);
        assert_eq!(heap.image().unwrap().in_use(), HeapUse { bytes: 512, elements: 1 });
    }

    #[test]
    fn what_a_dead_secondary_took_is_free_again_and_known_to_be_dirty() {
        let mut arena = Arena::new();
        let (heap, _dir) = heap(&arena);
        let before = heap.image().unwrap();
        arena.allocate();
        assert_eq!(heap.image().unwrap().in_use(), HeapUse { bytes: 768, elements: 2 });

        heap.restore(&before).unwrap();

        let after = heap.image().unwrap();
        assert_eq!(after.in_use(), before.in_use());
        let states: Vec<u64> = after.heaps[0].elements.iter().map(|it| it.words[ELEMENT_STATE]).collect();
        assert_eq!(states, [1, DIRTY]);
    }

    #[test]
    fn a_change_that_was_cut_in_half_is_undone() {
        let mut arena = Arena::new();
        let (heap, _dir) = heap(&arena);
        let before = heap.image().unwrap();
        // The free element is smaller already, and its rest is not in the chain yet.
        arena.element(512, Some(0), None, 0, BYTES - 768);
        assert!(matches!(heap.image(), Err(HeapError::Broken { heap: 0, element: 2 })));

        heap.restore(&before).unwrap();

        assert_eq!(heap.image().unwrap().in_use(), before.in_use());
    }

    #[test]
    fn what_a_living_secondary_holds_is_the_difference() {
        let mut arena = Arena::new();
        let (heap, _dir) = heap(&arena);
        let before = heap.image().unwrap();
        assert!(heap.since(&before).unwrap().is_empty());
        arena.allocate();
        let share = heap.since(&before).unwrap();
        assert_eq!(share.data, [arena.address() as usize + BYTES as usize - 256 + ELEMENT_WORDS * 8]);
    }

    #[test]
    fn a_heap_that_has_grown_is_left_alone() {
        let arena = Arena::new();
        let (heap, _dir) = heap(&arena);
        let before = heap.image().unwrap();
        heap.config.heap_word(0, HEAP_BYTES).store(BYTES * 2, std::sync::atomic::Ordering::Relaxed);
        let error = heap.restore(&before).unwrap_err();
        assert!(matches!(error, HeapError::Grown { heap: 0, found, expected: BYTES } if found == BYTES * 2));
    }
}
