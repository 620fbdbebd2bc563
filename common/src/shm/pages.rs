//! Huge pages under a process's own memory: for what is read and written all over.

use rustix::mm::{Advice, madvise};

/// Bytes of a huge page, on the machines that have them of this size; advice for others is without effect.
const HUGE_BYTES: usize = 2 << 20;

/// Asks for huge pages under memory that was not touched yet: a table's worth of places looked at in no order would otherwise cost
/// a walk through the page tables each. The kernel may do without.
pub fn prefer_huge<T>(memory: &mut [T]) {
    let range = memory.as_mut_ptr_range();
    let begin = range.start.cast::<u8>();
    let skipped = begin.align_offset(HUGE_BYTES);
    let Some(bytes) = size_of_val(memory).checked_sub(skipped) else { return };
    let whole = bytes - bytes % HUGE_BYTES;
    if whole > 0 {
        let first = begin.wrapping_add(skipped).cast();
        // SAFETY: the pages from `first` on lie within `memory`, which is this process's own and borrowed for the time of the call;
        // the advice changes nothing of what they hold.
        let _ = unsafe { madvise(first, whole, Advice::LinuxHugepage) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_keeps_what_it_holds() {
        for length in [0, 1, 100_000, 3 * HUGE_BYTES + 17] {
            let mut memory = vec![7_u8; length];
            prefer_huge(&mut memory);
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn the_kernel_notes_the_wish() {
        let mut memory = vec![0_u64; 4 * HUGE_BYTES / 8];
        prefer_huge(&mut memory);
        let middle = memory.as_ptr() as usize + 2 * HUGE_BYTES;
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut flags = None;
        let mut is_there = false;
        for line in text.lines() {
            if let Some((first, last)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
                let number = |text| usize::from_str_radix(text, 16).ok();
                if let (Some(first), Some(last)) = (number(first), number(last)) {
                    is_there = (first..last).contains(&middle);
                }
            }
            if is_there && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.to_owned());
            }
        }
        let flags = flags.unwrap();
        let is_known = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert_eq!(flags.split(' ').any(|flag| flag == "hg"), is_known, "{flags}");
    }
}
