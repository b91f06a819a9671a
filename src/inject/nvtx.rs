//! NVTX: colonel is the injection that libraries with NVTX load. `calls` takes the places of their functions, `events`
//! keeps what is open on each `thread` as a `stack`, `filter` says which ranges open a window, and `outbox` takes what
//! is recorded to the writer.
//!
//! A range is told once, when it ends, and only while a window is open. What is still open as the last window closes
//! is told then (`sweep`). So a push of an armed process writes a name into memory of its own, and nothing else.

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

mod abi;
mod calls;
mod chain;
mod events;
mod filter;
mod outbox;
mod registry;
mod stack;
mod sweep;
mod text;
mod thread;

pub(crate) use abi::GetExportTable;
pub(crate) use calls::{initialize, initialize_extension};
pub(crate) use filter::Filter;
pub(crate) use outbox::{Outbox, push_row, window_of};
pub(crate) use sweep::{open_waiting, start, stop};
pub(crate) use thread::{is_quiet, quietly};

use crate::inject::config::Config;
use crate::inject::entry;
use crate::inject::graphs;
use crate::inject::guest::{Guest, lock};
use crate::inject::nvtx::events::AllStarted;
use crate::inject::nvtx::thread::{Thread, Threads};

/// Grows by one as recording starts and as it stops: odd while ranges are recorded.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// CUPTI's newest correlation id as recording stopped and as it started, each with `KNOWN`.
static EPOCH_MARKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// Grows by one in each fork's child.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// The guest has given up: an epoch that nothing follows.
const HALTED: u64 = u64::MAX - 1;
/// The gate's pattern; never freed.
static FILTER: AtomicPtr<Filter> = AtomicPtr::new(std::ptr::null_mut());
static STATE: AtomicPtr<State> = AtomicPtr::new(std::ptr::null_mut());

const KNOWN: u64 = 1 << 32;

/// Ranges of this process.
#[derive(Debug, Default)]
struct State {
    threads: Threads,
    started: AllStarted,
}

/// Made when first asked for, and never freed; anew in a fork's child.
fn state() -> &'static State {
    // SAFETY: null or a leaked state.
    if let Some(state) = unsafe { STATE.load(Ordering::Acquire).as_ref() } {
        return state;
    }
    let new = Box::into_raw(Box::default());
    match STATE.compare_exchange(std::ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: leaked just now.
        Ok(_) => unsafe { &*new },
        Err(others) => {
            // SAFETY: ours was seen by nobody, and the other thread's is leaked.
            unsafe {
                drop(Box::from_raw(new));
                &*others
            }
        }
    }
}

/// Reads what the gate looks for, once: not at the first push, nor in a fork's child.
fn read_filter() {
    if FILTER.load(Ordering::Acquire).is_null()
        && let Some(filter) = Config::from_environment().and_then(|config| config.ranges)
    {
        // Libraries that come at once read the same.
        FILTER.store(Box::into_raw(Box::new(filter)), Ordering::Release);
    }
}

fn filter() -> Option<&'static Filter> {
    // SAFETY: null or a leaked filter.
    unsafe { FILTER.load(Ordering::Acquire).as_ref() }
}

/// True while ranges are recorded.
fn is_recording(epoch: u64) -> bool {
    epoch % 2 == 1
}

/// Whether a range that ends now is told: not if the sweep at the last window's close has told it already.
fn is_told(epoch: u64, swept: u64) -> bool {
    is_recording(epoch) || (swept < epoch && epoch != HALTED)
}

fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// The newest correlation id, at the cost of a driver call, while ranges are recorded.
fn mark(epoch: u64) -> Option<u32> {
    if !is_recording(epoch) {
        return None;
    }
    let guest = entry::guest().filter(|guest| guest.config.nvtx_marks)?;
    guest.attached.get()?.mark()
}

/// The newest correlation id, where it is of use.
pub(crate) fn newest_id() -> Option<u32> {
    mark(epoch())
}

/// The ranges that the calling thread has open.
pub(crate) fn innermost() -> graphs::Path {
    if !is_in_use() {
        return None;
    }
    thread::with(|thread| lock(&thread.open).stack.innermost()).flatten()
}

/// The calling thread has pushed or popped: nodes that it captures from here on lie in other ranges.
fn ranges_changed(thread: &Thread) {
    if graphs::is_capturing()
        && let Some(guest) = entry::guest()
    {
        let path = lock(&thread.open).stack.innermost();
        guest.graphs.note(guest, &path);
    }
}

/// Stands for the mark of a start before recording started.
fn opening_mark() -> Option<u32> {
    epoch_mark(1)
}

/// Stands for the mark of an end that was not taken, since recording has just started or stopped.
fn newest_mark() -> Option<u32> {
    epoch_mark(epoch())
}

fn epoch_mark(epoch: u64) -> Option<u32> {
    let [stopped, started] = &EPOCH_MARKS;
    let mark = if is_recording(epoch) { started } else { stopped }.load(Ordering::Acquire);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the id")]
    (mark & KNOWN != 0).then_some(mark as u32)
}

fn set_epoch_mark(guest: &Guest, epoch: u64, mark: Option<u32>) {
    let [stopped, started] = &EPOCH_MARKS;
    let place = if is_recording(epoch) { started } else { stopped };
    let mark = mark.filter(|_| guest.config.nvtx_marks);
    place.store(mark.map_or(0, |id| KNOWN | u64::from(id)), Ordering::Release);
}

/// True where the writer has to look for ranges by itself.
pub(crate) fn may_bring_ranges() -> bool {
    is_recording(epoch()) && is_in_use()
}

/// True once a library with NVTX has called us.
fn is_in_use() -> bool {
    !STATE.load(Ordering::Acquire).is_null()
}

/// True once a push may have asked CUPTI for its correlation id.
pub(crate) fn are_marked() -> bool {
    is_in_use() && entry::guest().is_some_and(|guest| guest.config.nvtx_marks)
}

/// The guest gives up: nothing is recorded from here on.
pub(crate) fn halt() {
    EPOCH.store(HALTED, Ordering::Release);
}

/// In a fork's child: ranges that are open are the parent's, and locks in the old state may be held for ever.
pub(crate) fn forget() {
    EPOCH.store(0, Ordering::Release);
    GENERATION.fetch_add(1, Ordering::AcqRel);
    STATE.store(std::ptr::null_mut(), Ordering::Release);
}

/// What could not be had as the program meant it, for the process file.
pub(crate) fn tell_problems(guest: &Guest) {
    if let (true, Some(path)) = (chain::failed(), chain::path()) {
        guest.problem(
            "nvtx_chain",
            format!(
                "`{}`, to which NVTX_INJECTION64_PATH was set, could not be loaded or would not start; its tool saw no \
                 NVTX ranges",
                path.display()
            ),
        );
    }
    let left = calls::left_to_tool();
    if left > 0 {
        guest.count_problem(
            "nvtx_chain_crowded",
            format!(
                "{left} NVTX functions of this process's libraries were left to the other tool of \
                 NVTX_INJECTION64_PATH, which has put different ones into many libraries; their ranges are missing"
            ),
        );
    }
    let cut = text::cut();
    if cut > 0 {
        guest.count_problem(
            "nvtx_names_cut",
            format!("{cut} names of NVTX ranges, domains or strings were cut: they had more than 4096 bytes"),
        );
    }
    let refused = registry::refused();
    if refused > 0 {
        guest.count_problem(
            "nvtx_too_many_names",
            format!(
                "{refused} NVTX domains, strings or categories could not be registered beside the many others; ranges \
                 with these strings have no name"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_while_recorded_and_until_a_sweep_has_told_it() {
        assert!(!is_recording(0) && is_recording(1) && !is_recording(2));
        assert!(is_told(1, 1), "recorded");
        assert!(
            is_told(2, 1) && !is_told(2, 2),
            "the sweep of this stop comes, or has come"
        );
        assert!(
            !is_recording(HALTED) && !is_told(HALTED, 1),
            "nothing once the guest has given up"
        );
    }
}
