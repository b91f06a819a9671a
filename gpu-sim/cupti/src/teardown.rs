//! libcupti's own exit handlers, which it registers as it is loaded: once they ran, the real one does not survive calls
//! that touch its records. Handlers run last registered first, so a client that registered its own before libcupti was
//! loaded makes its last flush too late.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::faults::say;

static TORN_DOWN: AtomicBool = AtomicBool::new(false);

/// Run by the loader. Unit tests are linked with the same code, but are no libcupti.
#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = {
    extern "C" fn register() {
        // SAFETY: the handler stays mapped until it has run: closing the library runs it, too.
        unsafe { libc::atexit(tear_down) };
    }
    register
};

/// What a call is the first to make is torn down sooner than the library: before the handlers of clients that registered
/// theirs between.
pub(crate) fn tear_down_sooner() {
    static DONE: std::sync::Once = std::sync::Once::new();
    DONE.call_once(|| {
        // SAFETY: as above.
        unsafe { libc::atexit(tear_down) };
    });
}

extern "C" fn tear_down() {
    TORN_DOWN.store(true, Ordering::Release);
}

/// Dies as the real library does if it is torn down.
pub(crate) fn die_if_torn_down(function: &str) {
    if !TORN_DOWN.load(Ordering::Acquire) {
        return;
    }
    say(&format!("gpu-sim: {function} after libcupti was torn down\n"));
    // A fault comes to threads that have its signal blocked, too.
    // SAFETY: a set of signals of this frame's, made empty before it is used.
    unsafe {
        let mut fault: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut fault);
        libc::sigaddset(&raw mut fault, libc::SIGSEGV);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const fault, std::ptr::null_mut());
    }
    // A handler that returns meets the fault again, as it would at a bad address.
    loop {
        // SAFETY: no preconditions.
        unsafe { libc::raise(libc::SIGSEGV) };
    }
}
