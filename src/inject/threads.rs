//! Threads of the guest: named, with every signal blocked before they start, so that the host's handlers never run
//! on them.

use std::io;

/// Starts a thread with all signals blocked.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // SAFETY: both sets are initialised by sigfillset and pthread_sigmask before they are read; the calling thread's
    // own mask is restored below.
    let old = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let status = libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status));
        }
        old
    };
    // Demangling recurses: room for it, of which only touched pages cost.
    let result = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(4 << 20)
        .spawn(move || crate::inject::guard::ffi((), body));
    // SAFETY: `old` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    result.map(drop)
}

/// Unix time in nanoseconds, the clock of every table.
pub(crate) fn now_ns() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; CLOCK_REALTIME always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
