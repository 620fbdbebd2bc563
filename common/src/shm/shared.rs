//! What may live in memory shared between processes, and a handle to such a value.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use zerocopy::{FromBytes, IntoBytes};

use super::region::{Region, RegionError};

/// A type whose values may live in memory that other processes write at any time.
///
/// The supertraits prove that every bit pattern is a value and that there is no padding.
///
/// # Safety
/// The type is `repr(C)` or an atomic, of a fixed size, and made of atomics only: no pointer or reference, and no plain
/// integer, for another process may write it while a reference to it exists here.
pub unsafe trait Shared: FromBytes + IntoBytes + Sync {}

// SAFETY: an atomic.
unsafe impl Shared for AtomicU16 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicU32 {}
// SAFETY: an atomic.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an atomic with another way to its value while a model runs.
#[cfg(loom)]
unsafe impl Shared for super::atomic::AtomicU32 {}
// SAFETY: as above.
#[cfg(loom)]
unsafe impl Shared for super::atomic::AtomicU64 {}
// SAFETY: nothing but such values, one after the other.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Declares a struct, all of whose fields are [`Shared`], as [`Shared`] itself. Its `repr` is given, `repr(C)` or stricter.
macro_rules! shared_struct {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $name:ident {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty,)+
        }
    ) => {
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes)]
        $(#[$attribute])*
        $visibility struct $name {
            $($(#[$field_attribute])* $field: $type,)+
        }

        const _: () = {
            const fn is_shared<T: $crate::shm::shared::Shared>() {}
            $(is_shared::<$type>();)+
        };

        // SAFETY: every field is shared, as the lines above had the compiler check, so there are only atomics; that the
        // layout is fixed, has no padding and takes any bytes is what `FromBytes` and `IntoBytes` check.
        unsafe impl $crate::shm::shared::Shared for $name {}
    };
}
pub(crate) use shared_struct;

/// A shared value, and the mapping that it lies in: the mapping stays for as long as the handle does.
pub struct Mapped<T: ?Sized> {
    value: NonNull<T>,
    _region: Arc<Region>,
}

impl<T: Shared> Mapped<T> {
    /// The value at `offset` bytes into `region`.
    ///
    /// # Errors
    /// The value does not lie in the region, or not aligned.
    pub fn new(region: &Arc<Region>, offset: u64) -> Result<Mapped<T>, RegionError> {
        Ok(Mapped { value: NonNull::from(region.at::<T>(offset)?), _region: Arc::clone(region) })
    }
}

impl<T: Shared> Mapped<[T]> {
    /// The `count` values from `offset` bytes into `region`.
    ///
    /// # Errors
    /// The values do not all lie in the region, or not aligned.
    pub fn slice(region: &Arc<Region>, offset: u64, count: u64) -> Result<Mapped<[T]>, RegionError> {
        Ok(Mapped { value: NonNull::from(region.slice::<T>(offset, count)?), _region: Arc::clone(region) })
    }
}

impl<T: ?Sized> Deref for Mapped<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `value` was made from a reference into the region's mapping in `new` or `slice`, and `_region` keeps that
        // mapping in place; nobody makes a unique reference into it.
        unsafe { self.value.as_ref() }
    }
}

// SAFETY: it is a reference to a `Sync` value and an `Arc` of a region, which is `Send` and `Sync`.
unsafe impl<T: ?Sized + Sync> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Mapped<T> {}
