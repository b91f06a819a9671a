//! The object that made a thread's last call, and which CUDA runtime it means: where there are several, most calls come from
//! the same one.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{Ordering, compiler_fence};

/// An object and its runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastCaller {
    /// Objects that had been loaded then. With others it may be another that lies there.
    pub(crate) loads: u64,
    pub(crate) begin: usize,
    pub(crate) end: usize,
    /// Where the runtime lies.
    pub(crate) runtime: usize,
    /// It was linked against this runtime.
    pub(crate) is_linked: bool,
}

impl LastCaller {
    /// Where the caller's object is this one.
    pub(crate) fn holds(&self, loads: u64, caller: usize) -> bool {
        self.loads == loads && (self.begin..self.end).contains(&caller)
    }

    pub(crate) fn new(loads: u64, Range { start, end }: Range<usize>, runtime: usize, is_linked: bool) -> LastCaller {
        LastCaller {
            loads,
            begin: start,
            end,
            runtime,
            is_linked,
        }
    }
}

/// A signal handler may come between any two of its parts, and make a call itself.
struct Kept {
    /// Odd while it is written.
    version: Cell<u64>,
    last: Cell<Option<LastCaller>>,
}

thread_local! {
    static KEPT: Kept = const { Kept { version: Cell::new(0), last: Cell::new(None) } };
}

/// That of the calling thread.
pub(crate) fn get() -> Option<LastCaller> {
    KEPT.with(|kept| {
        let version = kept.version.get();
        compiler_fence(Ordering::SeqCst);
        let last = kept.last.get();
        compiler_fence(Ordering::SeqCst);
        last.filter(|_| version % 2 == 0 && version == kept.version.get())
    })
}

/// Keeps it for the calling thread, unless this comes over another that does.
pub(crate) fn set(last: LastCaller) {
    KEPT.with(|kept| {
        let version = kept.version.get();
        if version % 2 == 0 {
            kept.version.set(version + 1);
            compiler_fence(Ordering::SeqCst);
            kept.last.set(Some(last));
            compiler_fence(Ordering::SeqCst);
            kept.version.set(version + 2);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_is_kept_and_what_is_half_written_is_nothing() {
        let last = |begin| LastCaller::new(7, begin..begin + 10, 1, true);
        assert_eq!(get(), None);
        set(last(100));
        set(last(200));
        assert_eq!(get(), Some(last(200)));
        assert!(last(200).holds(7, 209) && !last(200).holds(7, 210) && !last(200).holds(8, 209));
        // As a signal handler finds it that came over `set`.
        KEPT.with(|kept| kept.version.set(kept.version.get() + 1));
        assert_eq!(get(), None);
        set(last(300));
        KEPT.with(|kept| kept.version.set(kept.version.get() + 1));
        assert_eq!(get(), Some(last(200)));
    }
}
