//! Error numbers of libdpdk.

use std::ffi::CStr;
use std::fmt;

/// An error number as libdpdk returns it: an `errno`, or one of its own from 1000 on. Always positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RteError(pub i32);

impl RteError {
    /// What the last failed call of this thread left in `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: no precondition; it reads a thread-local integer.
        Self(unsafe { dpdk_sys::baton_errno() })
    }

    /// Turns a return value that is negative on failure into a result.
    pub(crate) fn check(code: i32) -> Result<(), Self> {
        if code < 0 { Err(Self(-code)) } else { Ok(()) }
    }

    /// Whether the driver just does not offer the operation (ENOTSUP, ENOSYS).
    pub fn is_unsupported(self) -> bool {
        self.0 == libc::ENOTSUP || self.0 == libc::ENOSYS
    }
}

impl fmt::Display for RteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: any integer is allowed; the result is a NUL-terminated string in a buffer of this thread.
        let text = unsafe { dpdk_sys::rte_strerror(self.0) };
        // SAFETY: rte_strerror never returns null, and nothing writes its buffer before the next call in this thread.
        let text = unsafe { CStr::from_ptr(text) };
        write!(f, "{} (error {})", text.to_string_lossy(), self.0)
    }
}

impl std::error::Error for RteError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_text_and_number() {
        assert_eq!(RteError(libc::ENODEV).to_string(), "No such device (error 19)");
    }

    #[test]
    fn only_negative_codes_are_errors() {
        assert_eq!(RteError::check(0), Ok(()));
        assert_eq!(RteError::check(3), Ok(()));
        assert_eq!(RteError::check(-22), Err(RteError(22)));
    }
}
