//! The border to foreign code: nothing unwinds out, and the host's errno is what it was.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);
static QUIET: Once = Once::new();

/// Runs `body` for a foreign caller; a panic becomes `fallback` and is counted.
pub(crate) fn ffi<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    // SAFETY: errno's location is valid for the calling thread.
    let errno = unsafe { *libc::__errno_location() };
    let result = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            // Dropping a payload may itself panic.
            std::mem::forget(payload);
            fallback
        }
    };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    result
}

/// Makes panics of this library silent: its copy of std is its own, so the host's hooks are untouched.
pub(crate) fn quiet_panics() {
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// Panics caught so far; each is a bug of ours, told in the process file.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_the_fallback_and_errno_survives() {
        // SAFETY: errno of this thread.
        unsafe { *libc::__errno_location() = libc::EAGAIN };
        let before = panics();
        let value = ffi(7, || {
            // SAFETY: errno of this thread.
            unsafe { *libc::__errno_location() = libc::EIO };
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert_eq!(value, 7);
        assert!(panics() > before);
        // SAFETY: errno of this thread.
        assert_eq!(unsafe { *libc::__errno_location() }, libc::EAGAIN);
    }
}
