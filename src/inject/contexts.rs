//! Which CUDA contexts there are, as far as the mapped driver tells.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;

use libloading::os::unix::Library;

type Status = c_int;

/// The functions of the mapped libcuda that tell.
pub(crate) struct Contexts {
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    state: unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> Status,
    current: unsafe extern "C" fn(*mut *mut c_void) -> Status,
}

/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const CAPTURE_MODE_RELAXED: c_int = 2;

/// What CUPTI does on the calling thread, one of ours, must not spoil a capture of the program's, on another one, of mode
/// global.
pub(crate) fn relax_captures() {
    // SAFETY: takes the copy that is mapped, or none; a symbol of this name in libcuda has this type.
    unsafe {
        let library = Library::open(Some("libcuda.so.1"), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if let Ok(library) = library
            && let Ok(exchange) =
                library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"cuThreadExchangeStreamCaptureMode\0")
        {
            let mut mode = CAPTURE_MODE_RELAXED;
            exchange(&raw mut mode);
        }
    }
}

/// Whether the calling thread has a context, or a device its primary one. Others are not known.
pub(crate) fn is_any_known() -> bool {
    Contexts::of_mapped_driver().is_some_and(|contexts| contexts.is_current() || !contexts.devices().is_empty())
}

impl Contexts {
    pub(crate) fn of_mapped_driver() -> Option<Contexts> {
        // SAFETY: takes the copy that is mapped, or none; symbols of these names in libcuda have these types.
        unsafe {
            let library = Library::open(Some("libcuda.so.1"), libc::RTLD_LAZY | libc::RTLD_NOLOAD).ok()?;
            let contexts = Contexts {
                count: *library.get(b"cuDeviceGetCount\0").ok()?,
                get: *library.get(b"cuDeviceGet\0").ok()?,
                state: *library.get(b"cuDevicePrimaryCtxGetState\0").ok()?,
                current: *library.get(b"cuCtxGetCurrent\0").ok()?,
            };
            std::mem::forget(library);
            Some(contexts)
        }
    }

    fn is_current(&self) -> bool {
        let mut context = ptr::null_mut();
        // SAFETY: the place lives through the call.
        unsafe { (self.current)(&raw mut context) == 0 && !context.is_null() }
    }

    /// Ordinals of the devices with a primary one.
    pub(crate) fn devices(&self) -> Vec<u32> {
        let mut count = 0;
        // SAFETY: the place lives through the call.
        if unsafe { (self.count)(&raw mut count) } != 0 {
            return Vec::new();
        }
        (0..count)
            .filter(|ordinal| self.is_active(*ordinal))
            .map(c_int::cast_unsigned)
            .collect()
    }

    fn is_active(&self, ordinal: c_int) -> bool {
        let (mut device, mut flags, mut active) = (0, 0, 0);
        // SAFETY: every place lives through its call.
        unsafe {
            (self.get)(&raw mut device, ordinal) == 0
                && (self.state)(device, &raw mut flags, &raw mut active) == 0
                && active != 0
        }
    }
}
