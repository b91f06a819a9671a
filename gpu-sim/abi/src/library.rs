//! How a stand-in finds another: by soname as real programs do, else the file beside itself.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Opens `soname` as the loader finds it, else the newest file `file` near `near` (a file of the same build).
pub fn open(soname: &CStr, file: &str, near: &Path, flags: i32) -> Option<*mut c_void> {
    // SAFETY: opening a library runs its initialisers; the stand-ins have none, and a real one is what was asked for.
    let handle = unsafe { libc::dlopen(soname.as_ptr(), flags) };
    if !handle.is_null() {
        return Some(handle);
    }
    let path = CString::new(beside(near, file)?.into_os_string().into_encoded_bytes()).ok()?;
    // SAFETY: as above.
    let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
    (!handle.is_null()).then_some(handle)
}

/// The newest `file` in the folder of `near`, in its `deps` or above it: cargo may leave a copy in each.
pub fn beside(near: &Path, file: &str) -> Option<PathBuf> {
    let folder = near.parent()?;
    [
        folder.join(file),
        folder.join("deps").join(file),
        folder.join("..").join(file),
    ]
    .into_iter()
    .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
    .max_by_key(|(modified, _)| *modified)
    .map(|(_, path)| path)
}

/// The file that `address` was loaded from.
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the loader only compares the address")]
pub fn file_of(address: *const c_void) -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `info` is a valid place to write to; any address may be asked for.
    if unsafe { libc::dladdr(address, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader gives a C string that lives as long as the library is mapped.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

/// Looks `name` up in `handle`, which came from `dlopen` and is never closed; null if it is not there.
#[expect(clippy::not_unsafe_ptr_arg_deref, reason = "the loader checks its handles")]
pub fn symbol(handle: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a lookup in a handle that is never closed.
    unsafe { libc::dlsym(handle, name.as_ptr()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_file_is_found_from_an_address() {
        let file = file_of(own_file_is_found_from_an_address as *const c_void).unwrap();
        assert_eq!(file.canonicalize().unwrap(), std::env::current_exe().unwrap());
        assert_eq!(
            beside(&file, file.file_name().unwrap().to_str().unwrap()).map(|path| path.exists()),
            Some(true)
        );
        assert_eq!(beside(&file, "no_such_file.so"), None);
    }
}
