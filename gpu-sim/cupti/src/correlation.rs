//! Correlation ids: one counter for the process, an id for every API call. A driver call made by a runtime call shares
//! the runtime call's id, and so does the GPU work that either starts.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use sim_abi::{Scratch, now_ns};

static NEXT: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// Id of the outermost API call under way in this thread, 0 for none.
    static CURRENT: Cell<u32> = const { Cell::new(0) };
}

fn next() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A call begins. Its time is taken only if somebody will want it.
pub(crate) fn enter(scratch: &Scratch, timed: bool) {
    let outer = CURRENT.get();
    let correlation = if outer == 0 { next() } else { outer };
    CURRENT.set(correlation);
    scratch.outermost.set(u32::from(outer == 0));
    scratch.correlation.set(correlation);
    scratch.start_ns.set(if timed { now_ns() } else { 0 });
}

/// The call ends.
pub(crate) fn exit(scratch: &Scratch) {
    if scratch.outermost.get() != 0 {
        CURRENT.set(0);
    }
}

/// The id for work that is being submitted. A call that began before we were attached never got one: it gets one now.
pub(crate) fn current() -> u32 {
    match CURRENT.get() {
        0 => next(),
        current => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_calls_share_an_id_and_the_next_call_has_another() {
        let [runtime, driver, later] = [Scratch::default(), Scratch::default(), Scratch::default()];
        enter(&runtime, true);
        enter(&driver, true);
        assert_eq!(driver.correlation.get(), runtime.correlation.get());
        assert_eq!(current(), runtime.correlation.get());
        exit(&driver);
        assert_eq!(
            current(),
            runtime.correlation.get(),
            "the outer call is still under way"
        );
        exit(&runtime);
        enter(&later, false);
        assert!(runtime.start_ns.get() > 0 && later.start_ns.get() == 0);
        assert_ne!(later.correlation.get(), runtime.correlation.get());
        exit(&later);
        assert_ne!(current(), current(), "outside of calls each has its own");
    }
}
