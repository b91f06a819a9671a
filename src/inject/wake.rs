//! Waking the steward: an eventfd that any thread of the host may write to without waiting.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::inject::descriptors;

/// Wakes the steward from any thread, without waiting.
#[derive(Debug)]
pub(crate) struct Wake {
    pub(crate) event: OwnedFd,
    /// A window closed since the last look.
    pub(crate) drain: AtomicBool,
    /// The process ends.
    pub(crate) finish: AtomicBool,
    /// When that was first asked for.
    finish_asked: OnceLock<Instant>,
    /// The steward is done.
    pub(crate) finished: AtomicBool,
}

impl Wake {
    /// An eventfd of our own, closed on exec.
    pub(crate) fn new() -> io::Result<Wake> {
        // SAFETY: a plain system call; the descriptor is owned by nobody else.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            descriptors::above_standard(OwnedFd::from_raw_fd(fd))?
        };
        Ok(Wake {
            event,
            drain: AtomicBool::new(false),
            finish: AtomicBool::new(false),
            finish_asked: OnceLock::new(),
            finished: AtomicBool::new(false),
        })
    }

    /// Something changed.
    pub(crate) fn steward(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight valid bytes; a full counter means that it is awake anyway.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// A window closed: what it launched is still to come.
    pub(crate) fn steward_to_drain(&self) {
        self.drain.store(true, Ordering::Release);
        self.steward();
    }

    /// Asks the steward to finish and waits for it, `limit` at most. So does every further call: whoever of several
    /// threads came back first would end the process before the records are sealed. The limit counts from the first.
    pub(crate) fn finish(&self, limit: Duration) {
        let started = *self.finish_asked.get_or_init(Instant::now);
        self.finish.store(true, Ordering::Release);
        self.steward();
        while !self.finished.load(Ordering::Acquire) && started.elapsed() < limit {
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Takes the wake-ups that led here.
    pub(crate) fn clear(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: eight valid bytes.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}
