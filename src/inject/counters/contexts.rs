//! Which devices this process works on: those whose primary context is alive. What it sees and leaves to others is not
//! sampled, since a device has one session of counters.

use std::ffi::{c_int, c_uint};

use libloading::os::unix::Library;

type Status = c_int;

/// `CU_STREAM_CAPTURE_MODE_RELAXED`.
const CAPTURE_MODE_RELAXED: c_int = 2;

/// The functions of the mapped libcuda that tell.
pub(super) struct Contexts {
    count: unsafe extern "C" fn(*mut c_int) -> Status,
    get: unsafe extern "C" fn(*mut c_int, c_int) -> Status,
    state: unsafe extern "C" fn(c_int, *mut c_uint, *mut c_int) -> Status,
}

impl Contexts {
    /// For the calling thread.
    pub(super) fn of_mapped_driver() -> Option<Contexts> {
        // SAFETY: takes the copy that is mapped, or none; symbols of these names in libcuda have these types.
        unsafe {
            let library = Library::open(Some("libcuda.so.1"), libc::RTLD_LAZY | libc::RTLD_NOLOAD).ok()?;
            let contexts = Contexts {
                count: *library.get(b"cuDeviceGetCount\0").ok()?,
                get: *library.get(b"cuDeviceGet\0").ok()?,
                state: *library.get(b"cuDevicePrimaryCtxGetState\0").ok()?,
            };
            // What CUPTI does on this thread must not spoil a capture of the program's, on another one, of mode global.
            let exchange =
                library.get::<unsafe extern "C" fn(*mut c_int) -> Status>(b"cuThreadExchangeStreamCaptureMode\0");
            if let Ok(exchange) = exchange {
                let mut mode = CAPTURE_MODE_RELAXED;
                exchange(&raw mut mode);
            }
            std::mem::forget(library);
            Some(contexts)
        }
    }

    /// Ordinals of the devices with one.
    pub(super) fn devices(&self) -> Vec<u32> {
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
