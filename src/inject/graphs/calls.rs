//! The calls of CUDA that make graphs, shadowed: each calls the real one and returns what that returns. What they tell
//! of graphs is kept beside.

use std::ffi::CStr;

use crate::inject::entry;
use crate::inject::graphs::captures::PER_THREAD;
use crate::inject::graphs::{Handle, Path};
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
        let stream = match words[0] {
            0 if self.is_per_thread => PER_THREAD,
            stream => stream,
        };
        let ended = kept_quiet(None, || match self.role {
            Role::End | Role::DestroyStream => guest.graphs.captures.take(stream),
            Role::Destroy => {
                guest.graphs.forget(words[0]);
                None
            }
            Role::DestroyExec => {
                guest.graphs.forget_exec(guest, words[0]);
                None
            }
            _ => None,
        });
        // SAFETY: the caller's promise.
        let status = unsafe { self.real.call_with(words) };
        if status == 0 {
            let ranges = match self.role {
                Role::Begin | Role::BeginToGraph => guard::ffi(None, nvtx::innermost),
                _ => None,
            };
            kept_quiet((), || {
                if let (Role::End, Some(ended)) = (self.role, ended) {
                    // SAFETY: the call has succeeded, so it wrote there.
                    let graph = unsafe { given(words[1]) };
                    guest.graphs.captured(guest, graph, ended.into_notes());
                } else {
                    // SAFETY: as above.
                    unsafe { self.succeeded(guest, stream, words, ranges) };
                }
            });
        }
        status
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
            Role::End | Role::Destroy | Role::DestroyExec | Role::DestroyStream => {}
        }
    }
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
