//! Threads of the guest: named, with every signal blocked before they start, so that the host's handlers never run
//! on them.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Ids of our threads, as the kernel and as pthread number them: CUPTI gives either. No lock, for the sake of forks; a
/// child of a child of a child forgets the oldest.
static OWN: [AtomicU32; 16] = [const { AtomicU32::new(0) }; 16];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Threads of the guest in this process and, harmlessly, in those it was forked from.
pub(crate) fn own() -> [u32; 16] {
    std::array::from_fn(|index| OWN.get(index).map_or(0, |id| id.load(Ordering::Relaxed)))
}

fn remember_this_thread() {
    // SAFETY: neither call takes anything or can fail.
    let (kernel, pthread) = unsafe { (libc::gettid(), libc::pthread_self()) };
    // CUPTI has 32 bits for it.
    for id in [kernel.cast_unsigned(), pthread as u32] {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % OWN.len();
        if let Some(slot) = OWN.get(index) {
            slot.store(id, Ordering::Relaxed);
        }
    }
}

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
        .spawn(move || {
            crate::inject::guard::ffi((), || {
                remember_this_thread();
                body();
            })
        });
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
