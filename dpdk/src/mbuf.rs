//! A packet buffer.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::rte_mbuf;

/// There are fewer free bytes, or fewer bytes of data, than were asked for. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buffer has no room for that")]
pub struct NoRoom;

/// A packet buffer with exactly one owner. Dropping it gives it back to its pool.
///
/// A packet may lie in a chain of segments ([`Mbuf::segments`]); the bytes given out here are the first one's only.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf {
    packet: NonNull<rte_mbuf>,
}

// SAFETY: an Mbuf is the only owner of its buffer, and nothing in a buffer belongs to a thread. (Whose thread may give
// buffers back to a SingleThread pool is that pool's contract.)
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes over a buffer.
    ///
    /// # Safety
    /// `packet` is a valid buffer with reference count 1, and the caller gives up the only ownership of it.
    pub(crate) unsafe fn from_raw(packet: NonNull<rte_mbuf>) -> Self {
        Self { packet }
    }

    /// Gives up the ownership without freeing.
    pub(crate) fn into_raw(self) -> *mut rte_mbuf {
        ManuallyDrop::new(self).packet.as_ptr()
    }

    /// The buffer's header.
    #[inline]
    fn header(&self) -> &rte_mbuf {
        // SAFETY: the buffer is valid and owned by `self`, so nobody writes its header while `self` is borrowed.
        unsafe { self.packet.as_ref() }
    }

    /// The bytes of the first segment.
    #[inline]
    pub fn data(&self) -> &[u8] {
        let header = self.header();
        let (start, length) = (header.data_off, header.data_len);
        // SAFETY: a buffer's data offset lies inside it (libdpdk's invariant).
        let start = unsafe { header.buf_addr.cast::<u8>().add(usize::from(start)) };
        // SAFETY: `data_len` bytes from the data offset lie inside the buffer (libdpdk's invariant), are initialised
        // memory of the pool, and are only read while `self` is borrowed.
        unsafe { slice::from_raw_parts(start, usize::from(length)) }
    }

    /// The bytes of the first segment, to be changed in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let header = self.header();
        let (start, length) = (header.data_off, header.data_len);
        // SAFETY: a buffer's data offset lies inside it (libdpdk's invariant).
        let start = unsafe { header.buf_addr.cast::<u8>().add(usize::from(start)) };
        // SAFETY: as in `data`, and `self` is the buffer's only owner and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(start, usize::from(length)) }
    }

    /// Segments of the packet, at least 1.
    #[inline]
    pub fn segments(&self) -> u16 {
        self.header().nb_segs
    }

    /// Bytes of the whole packet, all segments.
    #[inline]
    pub fn packet_len(&self) -> u32 {
        self.header().pkt_len
    }

    /// The port that received it; 65535 if none did.
    #[inline]
    pub fn port(&self) -> u16 {
        self.header().port
    }

    /// Free bytes behind the data of the first segment.
    #[inline]
    pub fn tailroom(&self) -> u16 {
        // SAFETY: the buffer is valid and owned by `self`.
        unsafe { dpdk_sys::baton_mbuf_tailroom(self.packet.as_ptr()) }
    }

    /// Copies bytes behind the packet's last one.
    ///
    /// # Errors
    /// [`NoRoom`] if the last segment has too few free bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let length = u16::try_from(bytes.len()).map_err(|_| NoRoom)?;
        // SAFETY: the buffer is valid and owned by `self`; the call checks the room.
        let start = unsafe { dpdk_sys::baton_mbuf_append(self.packet.as_ptr(), length) };
        let start = NonNull::new(start).ok_or(NoRoom)?;
        // SAFETY: the call returned the start of `length` bytes that now belong to the packet; `bytes` is another memory.
        unsafe { start.as_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Copies bytes before the packet's first one, into the headroom (128 bytes in a fresh buffer).
    ///
    /// # Errors
    /// [`NoRoom`] if the headroom is smaller.
    pub fn prepend(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let length = u16::try_from(bytes.len()).map_err(|_| NoRoom)?;
        // SAFETY: the buffer is valid and owned by `self`; the call checks the room.
        let start = unsafe { dpdk_sys::baton_mbuf_prepend(self.packet.as_ptr(), length) };
        let start = NonNull::new(start).ok_or(NoRoom)?;
        // SAFETY: the call returned the start of `length` bytes that now belong to the packet; `bytes` is another memory.
        unsafe { start.as_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    /// Cuts bytes off the packet's start.
    ///
    /// # Errors
    /// [`NoRoom`] if the first segment has fewer.
    pub fn strip_front(&mut self, length: u16) -> Result<(), NoRoom> {
        // SAFETY: the buffer is valid and owned by `self`; the call checks the length.
        let start = unsafe { dpdk_sys::baton_mbuf_adjust(self.packet.as_ptr(), length) };
        if start.is_null() { Err(NoRoom) } else { Ok(()) }
    }

    /// Cuts bytes off the packet's end.
    ///
    /// # Errors
    /// [`NoRoom`] if the last segment has fewer.
    pub fn strip_back(&mut self, length: u16) -> Result<(), NoRoom> {
        // SAFETY: the buffer is valid and owned by `self`; the call checks the length.
        let code = unsafe { dpdk_sys::baton_mbuf_trim(self.packet.as_ptr(), length) };
        if code < 0 { Err(NoRoom) } else { Ok(()) }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: `self` is the buffer's only owner, and is gone after this.
        unsafe { dpdk_sys::baton_mbuf_free(self.packet.as_ptr()) }
    }
}
