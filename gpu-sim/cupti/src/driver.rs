//! The stand-in driver, as seen from here: found by its soname among the mapped libraries, entered by its hooks.

use std::ffi::{CString, c_void};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use cupti_sys::constants::{API_VERSION_13_0, ERROR_NOT_INITIALIZED, ERROR_UNKNOWN};
use sim_abi::{ABI, HOOKS_SYMBOL, Hooks, Resource, library, state};

use crate::tracer::TRACER;
use crate::version::api_version;

/// The driver's hooks, None as long as no stand-in driver is mapped.
pub(crate) fn hooks() -> Option<&'static Hooks> {
    static HOOKS: OnceLock<&'static Hooks> = OnceLock::new();
    if let Some(hooks) = HOOKS.get() {
        return Some(hooks);
    }
    let hooks = find()?;
    Some(HOOKS.get_or_init(|| hooks))
}

fn find() -> Option<&'static Hooks> {
    // SAFETY: only takes a handle to a library that is there already.
    let handle = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    let door: *mut c_void = library::symbol(handle, &CString::new(HOOKS_SYMBOL).ok()?);
    if door.is_null() {
        return None;
    }
    // SAFETY: the stand-in driver exports it with this signature.
    let door: extern "C" fn() -> *const Hooks = unsafe { std::mem::transmute(door) };
    // SAFETY: a static of a library that is never closed; its first field says whether the rest is as we know it.
    unsafe { door().as_ref() }.filter(|hooks| hooks.abi == ABI)
}

/// The driver, initialised (or just being so), with us hooked into it; else the error that the version played gives.
pub(crate) fn attach() -> Result<&'static Hooks, u32> {
    let usable = |hooks: &&Hooks| {
        matches!(
            hooks.state.load(Ordering::Acquire),
            state::INITIALIZING | state::INITIALIZED
        )
    };
    let hooks = hooks().filter(usable).ok_or_else(not_initialized)?;
    hooks.tracer.store((&raw const TRACER).cast_mut(), Ordering::Release);
    Ok(hooks)
}

/// Whether a context exists.
pub(crate) fn has_context() -> bool {
    extern "C" fn found(_: &Resource, user: *mut c_void) {
        // SAFETY: the flag below.
        unsafe { *user.cast::<bool>() = true };
    }
    let mut any = false;
    if let Some(hooks) = hooks() {
        (hooks.visit)(found, (&raw mut any).cast());
    }
    any
}

/// Unhooks us.
pub(crate) fn detach(hooks: &Hooks) {
    hooks.tracer.store(std::ptr::null_mut(), Ordering::Release);
}

/// What calls give before the driver is there.
pub(crate) fn not_initialized() -> u32 {
    if api_version() < API_VERSION_13_0 {
        ERROR_NOT_INITIALIZED
    } else {
        ERROR_UNKNOWN
    }
}
