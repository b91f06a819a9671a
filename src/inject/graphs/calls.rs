//! The calls of CUDA that make graphs, shadowed: each calls the real one and returns what that returns. What they tell
//! of graphs is kept beside.

use std::ffi::CStr;
use std::sync::Arc;

use crate::inject::entry;
use crate::inject::graphs::captures::{Capture, PER_THREAD};
use crate::inject::graphs::{Execs, Handle, Path};
use crate::inject::guard;
use crate::inject::guest::Guest;
use crate::inject::nvtx;
use crate::inject::preload::Shadowed;

/// Arguments of a call. All are of the size of a word and none has more than six, in any version of CUDA: so six are
/// passed on, those that the call does not have as they came.
type Words = [usize; 6];

/// What a call does, by its arguments.
#[derive(Debug, Clone, Copy)]
pub enum Role {
    /// `(stream, …)`
    Begin,
    /// `(stream, graph, …)`
    BeginToGraph,
    /// `(stream, graph out)`
    End,
    /// `(exec out, graph, …)`
    Instantiate,
    /// `(exec, graph, …)`
    Update,
    /// `(node out, graph, dependencies, their number, child)`
    AddChild,
    /// `(graph out, graph)`
    Clone,
    /// `(graph)`
    Destroy,
    /// `(exec)`
    DestroyExec,
    /// `(stream)`
    DestroyStream,
    /// `(context)`
    DestroyContext,
    /// `(device)`, or nothing
    Reset,
    /// `(device)`
    Release,
}

/// One shadowed call.
#[derive(Debug)]
pub struct GraphCall {
    real: Shadowed,
    role: Role,
    /// The null stream is the thread's own: its name ends in `_ptsz`.
    is_per_thread: bool,
}

impl GraphCall {
    /// The function of this name: of the runtime if it begins with `cuda`, else of the driver.
    pub const fn new(name: &'static CStr, role: Role) -> GraphCall {
        let bytes = name.to_bytes();
        GraphCall {
            real: match bytes {
                [b'c', b'u', b'd', b'a', ..] => Shadowed::of_runtime(name),
                _ => Shadowed::of_driver(name),
            },
            role,
            is_per_thread: matches!(bytes, [.., b'_', b'p', b't', b's', b'z']),
        }
    }

    /// The host makes the call.
    ///
    /// # Safety
    /// The arguments are those of the function of this name.
    pub unsafe fn make(&self, words: [usize; 6]) -> u32 {
        let guest = entry::guest().filter(|guest| guest.config.trace_nvtx);
        let Some(guest) = guest else {
            // SAFETY: the caller's promise.
            return unsafe { self.real.call_with(words) };
        };
        // SAFETY: as above.
        unsafe { self.watched(guest, words) }
    }

    /// # Safety
    /// As of `make`.
    pub(super) unsafe fn watched(&self, guest: &Guest, words: Words) -> u32 {
        let graphs = &guest.graphs;
        if nvtx::is_quiet() {
            // Noted both before handles may go and after what others noted meanwhile.
            graphs.unseen.note();
            // SAFETY: the caller's promise.
            let status = unsafe { self.real.call_with(words) };
            graphs.unseen.note();
            return status;
        }
        let stream = match words[0] {
            0 if self.is_per_thread => PER_THREAD,
            stream => stream,
        };
        let unseen = kept_quiet(0, || graphs.settle(guest));
        let before = kept_quiet(Before::Nothing, || self.before(guest, stream, words[0]));
        // SAFETY: the caller's promise.
        let status = unsafe { self.real.call_with(words) };
        let ranges = match self.role {
            Role::Begin | Role::BeginToGraph => guard::ffi(None, nvtx::innermost),
            _ => None,
        };
        // A handler may have ended what the call made: CUDA is not asked about that.
        let may_ask = || graphs.unseen.calls() == unseen;
        kept_quiet((), || match before {
            // Also one that failed.
            Before::Releasing(execs) => graphs.released(guest, device(words[0]), execs),
            _ if !may_ask() => {}
            Before::Ended(ended) if status == 0 => {
                // SAFETY: the call has succeeded, so it wrote there.
                let graph = unsafe { given(words[1]) };
                graphs.captured(guest, graph, ended.into_notes());
            }
            // SAFETY: as above.
            Before::Nothing if status == 0 => unsafe { self.succeeded(guest, stream, words, ranges) },
            Before::Ended(_) | Before::Nothing => {}
        });
        kept_quiet(0, || graphs.settle_since(guest, unseen));
        status
    }

    /// What must be done before the call.
    fn before(&self, guest: &Guest, stream: Handle, first: Handle) -> Before {
        let graphs = &guest.graphs;
        match self.role {
            Role::End => return graphs.captures.take(stream).map_or(Before::Nothing, Before::Ended),
            Role::Release => return Before::Releasing(graphs.withhold()),
            Role::DestroyStream => drop(graphs.captures.take(stream)),
            Role::Destroy => graphs.forget(first),
            Role::DestroyExec => graphs.forget_exec(guest, first),
            Role::DestroyContext => graphs.forget_context(first),
            Role::Reset => drop(graphs.forget_all()),
            _ => {}
        }
        Before::Nothing
    }

    /// # Safety
    /// The call has succeeded with these arguments.
    unsafe fn succeeded(&self, guest: &Guest, stream: Handle, words: Words, ranges: Path) {
        let [first, second, .., fifth, _] = words;
        // SAFETY: where the first argument is a place for a result, the call wrote there.
        let result = || unsafe { given(first) };
        let graphs = &guest.graphs;
        match self.role {
            Role::Begin => graphs.begin(stream, None, ranges),
            Role::BeginToGraph => graphs.begin(stream, Some(second), ranges),
            Role::Instantiate => graphs.instantiated(guest, result(), second),
            Role::Update => graphs.updated(guest, first, second),
            Role::AddChild => graphs.added(guest, second, result(), fifth),
            Role::Clone => graphs.copied(guest, second, result(), None),
            _ => {}
        }
    }
}

/// What is kept from before a call.
enum Before {
    Nothing,
    Ended(Arc<Capture>),
    Releasing(Execs),
}

/// A `CUdevice`, an int, as a word whose upper half is anything.
fn device(word: usize) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the int")]
    let lower = word as u32;
    lower.cast_signed()
}

/// Our part of a call: a signal handler that makes NVTX's calls meanwhile must not wait for locks that are held here.
fn kept_quiet<T>(otherwise: T, act: impl FnOnce() -> T + std::panic::UnwindSafe) -> T {
    guard::ffi(otherwise, || nvtx::quietly(act))
}

/// What a call gave.
///
/// # Safety
/// `place` is null or holds a handle.
unsafe fn given(place: usize) -> Handle {
    let place = std::ptr::with_exposed_provenance::<Handle>(place);
    // SAFETY: the caller's promise.
    unsafe { place.as_ref() }.copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_part_of_a_call_keeps_nvtx_out_and_no_panic_in() {
        assert!(!nvtx::is_quiet());
        let inner = kept_quiet(false, || kept_quiet(false, nvtx::is_quiet) && nvtx::is_quiet());
        assert!(inner, "also after an inner one");
        assert!(!nvtx::is_quiet());
        let failed = kept_quiet(7, || std::panic::resume_unwind(Box::new("on purpose")));
        assert_eq!(failed, 7);
        assert!(!nvtx::is_quiet(), "also after a panic");
    }

    #[test]
    fn a_device_is_the_lower_half_of_its_word() {
        assert_eq!(device(0xdead_beef_0000_0003), 3);
        assert_eq!(device(usize::MAX), -1);
    }
}
