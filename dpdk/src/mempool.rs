//! Pools of packet buffers.

use std::ffi::{CString, c_int};
use std::ptr::NonNull;

use dpdk_sys::rte_mempool;

use crate::burst::Burst;
use crate::eal::Eal;
use crate::error::RteError;
use crate::mbuf::Mbuf;

/// Why a pool is not there.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// A name holds a NUL byte.
    #[error("the pool name {0:?} holds a NUL byte")]
    Name(String),
    /// libdpdk could not create it.
    #[error(
        "cannot create pool {name} of {count} buffers on NUMA node {socket}; give DPDK more memory if it is memory"
    )]
    Create {
        /// The pool's name.
        name: String,
        /// How many buffers were asked for.
        count: u32,
        /// The NUMA node, -1 for any.
        socket: i32,
        /// What libdpdk said.
        source: RteError,
    },
    /// No pool has that name.
    #[error("no pool named {name}; the primary creates it at its start")]
    Lookup {
        /// The name that was looked for.
        name: String,
        /// What libdpdk said.
        source: RteError,
    },
}

/// How a pool keeps its free buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolOps {
    /// `ring_mp_mc`: any number of threads. A process that is killed inside it can block the others for ever.
    MultiThread,
    /// `ring_sp_sc`: one thread at a time allocates and frees, all users of the pool counted, RX queues included. A
    /// killed process can harm nobody else. Use it without cache.
    SingleThread,
}

impl PoolOps {
    /// The name under which libdpdk knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MultiThread => "ring_mp_mc",
            Self::SingleThread => "ring_sp_sc",
        }
    }
}

/// What a pool is made of.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Buffers; a power of two minus one wastes no memory.
    pub count: u32,
    /// Buffers cached per lcore, at most 512 and at most `count` / 1.5; 0 for [`PoolOps::SingleThread`].
    pub cache: u32,
    /// Bytes for a packet in each buffer; headroom comes on top.
    pub data_bytes: u16,
    /// NUMA node, -1 for any.
    pub socket: i32,
    /// How free buffers are kept.
    pub ops: PoolOps,
}

/// A pool of packet buffers. It lives as long as the primary: a handle's drop does nothing.
///
/// # Ownership
/// A [`PoolOps::MultiThread`] pool may be used by every thread. A [`PoolOps::SingleThread`] one belongs to a single
/// thread of a single process: only that thread may allocate from it, poll an RX queue that fills from it, or drop its
/// buffers. The primary creates the pool of a secondary's RX queue so, and never touches it after the port's start.
#[derive(Clone, Debug)]
pub struct Mempool {
    pool: NonNull<rte_mempool>,
}

// SAFETY: a pool is in shared memory and is never freed; MultiThread pools are thread-safe, and SingleThread ones are
// used by one thread by the contract above.
unsafe impl Send for Mempool {}
// SAFETY: as for Send.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Creates a pool. Only before traffic runs: it allocates from EAL's heap.
    ///
    /// # Errors
    /// [`MempoolError::Create`] if the name is taken, too long (24 bytes) or memory is short.
    pub fn create(_eal: &Eal, name: &str, config: &PoolConfig) -> Result<Self, MempoolError> {
        let c_name = CString::new(name).map_err(|_| MempoolError::Name(name.to_owned()))?;
        let ops = CString::new(config.ops.name()).expect("a constant without NUL");
        let failed = |source| MempoolError::Create {
            name: name.to_owned(),
            count: config.count,
            socket: config.socket,
            source,
        };
        let headroom = dpdk_sys::RTE_PKTMBUF_HEADROOM as u16;
        let room = config.data_bytes.checked_add(headroom).ok_or_else(|| failed(RteError(libc::EINVAL)))?;
        // SAFETY: EAL is initialised, by `_eal`; both strings are NUL-terminated and are copied.
        let pool = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create_by_ops(
                c_name.as_ptr(),
                config.count,
                config.cache,
                0,
                room,
                config.socket as c_int,
                ops.as_ptr(),
            )
        };
        NonNull::new(pool).map(|pool| Self { pool }).ok_or_else(|| failed(RteError::last()))
    }

    /// Finds a pool that the primary created. In a secondary only right after its start: it takes a shared lock.
    ///
    /// # Errors
    /// [`MempoolError::Lookup`] if there is none of that name.
    pub fn lookup(_eal: &Eal, name: &str) -> Result<Self, MempoolError> {
        let c_name = CString::new(name).map_err(|_| MempoolError::Name(name.to_owned()))?;
        // SAFETY: EAL is initialised, by `_eal`; the string is NUL-terminated and only read.
        let pool = unsafe { dpdk_sys::rte_mempool_lookup(c_name.as_ptr()) };
        NonNull::new(pool)
            .map(|pool| Self { pool })
            .ok_or_else(|| MempoolError::Lookup { name: name.to_owned(), source: RteError::last() })
    }

    /// Buffers of the pool, free or not.
    pub fn capacity(&self) -> u32 {
        // SAFETY: the pool is valid for the life of the process; the number is written at its creation only.
        unsafe { (*self.pool.as_ptr()).populated_size }
    }

    /// Free buffers, caches included. A snapshot.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool is valid for the life of the process; the call only reads counters.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }

    /// Buffers that somebody holds, descriptors of RX queues included. A snapshot.
    pub fn in_use(&self) -> u32 {
        // SAFETY: the pool is valid for the life of the process; the call only reads counters.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.pool.as_ptr()) }
    }

    /// Takes an empty buffer; `None` if there is none.
    #[inline]
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool is a valid packet pool; the shim resets the buffer.
        let packet = unsafe { dpdk_sys::baton_mbuf_alloc(self.pool.as_ptr()) };
        // SAFETY: a buffer that was just allocated has no other owner.
        NonNull::new(packet).map(|packet| unsafe { Mbuf::from_raw(packet) })
    }

    /// Takes a buffer and copies a packet into it; `None` if there is no buffer, or the packet does not fit into one.
    pub fn alloc_with(&self, packet: &[u8]) -> Option<Mbuf> {
        let mut buffer = self.alloc()?;
        buffer.append(packet).ok()?;
        Some(buffer)
    }

    /// Adds `count` empty buffers to a burst: all of them, or none and `false` if pool or burst have not as many.
    #[inline]
    pub fn alloc_burst<const N: usize>(&self, burst: &mut Burst<N>, count: usize) -> bool {
        let (free, room) = burst.free_slots();
        if count > room {
            return false;
        }
        // SAFETY: `free` has room for `count` pointers, checked; the pool is a valid packet pool.
        let code = unsafe { dpdk_sys::baton_mbuf_alloc_bulk(self.pool.as_ptr(), free, count as u32) };
        if code != 0 {
            return false;
        }
        // SAFETY: the call succeeded, so it wrote `count` buffers that nobody else owns.
        unsafe { burst.grow(count) };
        true
    }

    /// The raw pool, for queue setup.
    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.pool.as_ptr()
    }
}
