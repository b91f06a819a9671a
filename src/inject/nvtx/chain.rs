//! Another tool's injection, whose place colonel has taken: it is loaded all the same, and called first.

use std::ffi::{CStr, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use libloading::os::unix::Library;

use crate::inject::nvtx::abi::{GetExportTable, Initialize, InitializeExtension};
use crate::schema::env;

static LIBRARY: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
static FAILED: AtomicBool = AtomicBool::new(false);

/// Where the launcher found another tool's injection.
pub(crate) fn path() -> Option<PathBuf> {
    std::env::var_os(env::NVTX_CHAIN)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// True where that tool could not be loaded, or would not start.
pub(crate) fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Has the tool replace a library's functions. `ours`: our own entry, which an odd setting may lead back to.
pub(crate) fn initialize(table: GetExportTable, ours: *const c_void) -> bool {
    let Some(path) = path() else { return false };
    let entry = symbol(&path, c"InitializeInjectionNvtx2");
    if entry.is_null() || std::ptr::eq(entry, ours) {
        FAILED.store(true, Ordering::Relaxed);
        return false;
    }
    // SAFETY: the function that NVTX itself would call, with what NVTX passes.
    let started = unsafe { std::mem::transmute::<*mut c_void, Initialize>(entry)(Some(table)) } != 0;
    FAILED.fetch_or(!started, Ordering::Relaxed);
    started
}

/// Passes an extension of NVTX on to the tool; true if the tool wants it.
pub(crate) fn initialize_extension(module: *mut c_void, ours: *const c_void) -> bool {
    let Some(path) = path() else { return false };
    let entry = symbol(&path, c"InitializeInjectionNvtxExtension");
    if entry.is_null() || std::ptr::eq(entry, ours) {
        return false;
    }
    // SAFETY: the function that NVTX itself would call, with what NVTX passes.
    unsafe { std::mem::transmute::<*mut c_void, InitializeExtension>(entry)(module) != 0 }
}

/// No lock is held: the library's own constructors may use NVTX, too. Threads that load it at once get the same copy.
fn symbol(path: &std::path::Path, name: &CStr) -> *mut c_void {
    let mut library = LIBRARY.load(Ordering::Acquire);
    if library.is_null() {
        // SAFETY: NVTX itself would load it, in the same way.
        let Ok(loaded) = (unsafe { Library::open(Some(path), libc::RTLD_LAZY) }) else {
            return std::ptr::null_mut();
        };
        library = loaded.into_raw();
        LIBRARY.store(library, Ordering::Release);
    }
    // SAFETY: a library that is never unloaded.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}
