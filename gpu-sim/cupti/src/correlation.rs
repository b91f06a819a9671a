//! Correlation ids: one counter for the process, an id for every API call. A driver call made by a runtime call shares
//! the runtime call's id, and so does the GPU work that either starts.
//!
//! With CUPTI 13 not for every call, as an H100 showed. Kernel records that were turned on before there was a context
//! leave nothing behind when they are turned off (unless synchronizations stay on); a thread that calls CUDA then takes
//! no more ids, records or not, and all its later work carries the last one. Turned on with a context there, they leave
//! the counting on for good.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sim_abi::{Scratch, now_ns};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Whether calls that nobody subscribed to are passed over, and whether that can't come any more.
static PAUSED: AtomicBool = AtomicBool::new(false);
static KEPT: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Id of the outermost API call under way in this thread, 0 for none.
    static CURRENT: Cell<u32> = const { Cell::new(0) };
    /// The last that this thread took, and whether it is the last for good.
    static LAST: Cell<u32> = const { Cell::new(0) };
    static STUCK: Cell<bool> = const { Cell::new(false) };
}

fn next() -> u32 {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    LAST.set(id);
    id
}

/// Kernel records go on. The thread that asks for it is not passed over any longer.
pub(crate) fn recording(with_context: bool) {
    KEPT.fetch_or(with_context, Ordering::AcqRel);
    PAUSED.store(false, Ordering::Release);
    STUCK.set(false);
}

/// Kernel records are off, and synchronizations, of a CUPTI that passes threads over then.
pub(crate) fn not_recording() {
    PAUSED.store(!KEPT.load(Ordering::Acquire), Ordering::Release);
}

/// A call begins. Its time is taken only if somebody will want it. `subscribed`: somebody is called back for it.
pub(crate) fn enter(scratch: &Scratch, timed: bool, subscribed: bool) {
    if PAUSED.load(Ordering::Relaxed) && !subscribed {
        STUCK.set(true);
    }
    let outer = CURRENT.get();
    let correlation = match outer {
        0 if STUCK.get() && !subscribed => LAST.get(),
        0 => next(),
        outer => outer,
    };
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
        enter(&runtime, true, false);
        enter(&driver, true, false);
        assert_eq!(driver.correlation.get(), runtime.correlation.get());
        assert_eq!(current(), runtime.correlation.get());
        exit(&driver);
        assert_eq!(
            current(),
            runtime.correlation.get(),
            "the outer call is still under way"
        );
        exit(&runtime);
        enter(&later, false, false);
        assert!(runtime.start_ns.get() > 0 && later.start_ns.get() == 0);
        assert_ne!(later.correlation.get(), runtime.correlation.get());
        exit(&later);
        assert_ne!(current(), current(), "outside of calls each has its own");
    }
}
