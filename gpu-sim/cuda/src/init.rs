//! `cuInit`: once a process, and once a fork too late. Loads the library named by `CUDA_INJECTION64_PATH` and calls its
//! `InitializeInjection`, as the driver does in every process that initialises CUDA; if that fails, nobody is told.

use std::ffi::{CString, c_void};
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicI32, Ordering};

use sim_abi::{Resource, Status, library, state, status};

use crate::device;
use crate::hooks::{self, HOOKS};

const CU_INIT_FINISHED: u32 = 5;

/// The thread that is inside `cuInit`.
static INITIALIZER: AtomicI32 = AtomicI32::new(0);

/// `OK` once `cuInit` has run or while it runs on this very thread (an injected library may call the driver).
pub(crate) fn ensure_initialized() -> Result<(), Status> {
    match HOOKS.state.load(Ordering::Acquire) {
        state::INITIALIZED => Ok(()),
        state::INITIALIZING if INITIALIZER.load(Ordering::Acquire) == thread_id() => Ok(()),
        _ => Err(status::NOT_INITIALIZED),
    }
}

pub(crate) fn initialize() -> Result<(), Status> {
    loop {
        match HOOKS.state.load(Ordering::Acquire) {
            state::INITIALIZED => return Ok(()),
            state::FORKED => return Err(status::NOT_INITIALIZED),
            state::INITIALIZING if INITIALIZER.load(Ordering::Acquire) == thread_id() => return Ok(()),
            state::INITIALIZING => std::thread::yield_now(),
            _ if device::count() == 0 => return Err(status::NO_DEVICE),
            now => {
                let begun = HOOKS
                    .state
                    .compare_exchange(now, state::INITIALIZING, Ordering::AcqRel, Ordering::Acquire);
                if begun.is_ok() {
                    first_time();
                    return Ok(());
                }
            }
        }
    }
}

fn first_time() {
    INITIALIZER.store(thread_id(), Ordering::Release);
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::pthread_atfork(None, None, Some(mark_forked)) };
    inject();
    HOOKS.state.store(state::INITIALIZED, Ordering::Release);
    hooks::resource(&Resource::of(CU_INIT_FINISHED));
}

extern "C" fn mark_forked() {
    HOOKS.state.store(state::FORKED, Ordering::Release);
}

fn inject() {
    let Some(path) = std::env::var_os("CUDA_INJECTION64_PATH") else {
        return;
    };
    let Ok(path) = CString::new(path.into_vec()) else {
        return;
    };
    // SAFETY: whoever set the variable wants this library's initialisers run.
    let injected = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    if injected.is_null() {
        return;
    }
    let entry: *mut c_void = library::symbol(injected, c"InitializeInjection");
    if entry.is_null() {
        return;
    }
    // SAFETY: NVIDIA's documented signature of this entry point.
    let entry: extern "C" fn() -> i32 = unsafe { std::mem::transmute(entry) };
    entry();
}

fn thread_id() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}
