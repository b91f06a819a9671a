//! A handle that CUDA is asked about must not be given back meanwhile. No lock is held across CUDA's calls, so who asks
//! says of what, and who gives a handle back waits for that one alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::inject::graphs::Handle;

/// Longest wait of the one who gives it back: an answer takes microseconds.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The handle that is asked about, by one thread at a time.
#[derive(Debug, Default)]
pub(crate) struct Asking(AtomicUsize);

impl Asking {
    /// Asks about a handle that is still known.
    pub(crate) fn about<T>(
        &self,
        handle: Handle,
        is_known: impl FnOnce() -> bool,
        ask: impl FnOnce() -> T,
    ) -> Option<T> {
        // Before the look whether it is known, as the other side forgets it before it looks here.
        self.0.store(handle, Ordering::SeqCst);
        let answer = is_known().then(ask);
        self.0.store(0, Ordering::SeqCst);
        answer
    }

    /// Nobody asks about it any more, once it is forgotten.
    pub(crate) fn wait(&self, handle: Handle) {
        // A program may destroy what it never got.
        self.wait_while(|asked| asked == handle && handle != 0);
    }

    /// Nobody asks about any, once all are forgotten.
    pub(crate) fn wait_for_all(&self) {
        self.wait_while(|asked| asked != 0);
    }

    fn wait_while(&self, is_asked: impl Fn(Handle) -> bool) {
        let started = Instant::now();
        while is_asked(self.0.load(Ordering::SeqCst)) && started.elapsed() < MAX_WAIT {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn nobody_asks_about_no_handle() {
        let started = Instant::now();
        Asking::default().wait(0);
        assert!(started.elapsed() < MAX_WAIT / 2);
    }

    #[test]
    fn what_is_asked_about_is_waited_for_and_nothing_else() {
        let (asking, inside, done) = (Asking::default(), AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                asking.about(
                    7,
                    || true,
                    || {
                        inside.store(true, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(30));
                        done.store(true, Ordering::SeqCst);
                    },
                )
            });
            while !inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            asking.wait(8);
            assert!(!done.load(Ordering::SeqCst));
            asking.wait(7);
            assert!(done.load(Ordering::SeqCst));
            asking.wait_for_all();
        });
        assert_eq!(asking.about(7, || false, || 1), None);
    }
}
