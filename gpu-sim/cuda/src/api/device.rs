//! Initialisation, version, devices, errors, entry points, profiler control.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::OnceLock;

use sim_abi::cbid::driver as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, library, status};

use super::DOMAIN;
use crate::device;
use crate::hooks::HOOKS;
use crate::init::{ensure_initialized, initialize};

/// CUDA 13.0.
const VERSION: i32 = 13_000;

fn known(ordinal: i32) -> Result<u32, Status> {
    ensure_initialized()?;
    u32::try_from(ordinal)
        .ok()
        .filter(|ordinal| *ordinal < device::count())
        .ok_or(status::INVALID_DEVICE)
}

fn give_uuid(uuid: *mut [u8; 16], ordinal: i32) -> Result<(), Status> {
    let ordinal = known(ordinal)?;
    give(uuid, device::uuid(ordinal))
}

sim_abi::api! { Some(&HOOKS), DOMAIN;
    fn cuInit[cbid::CU_INIT](flags: u32) {
        if flags == 0 { initialize() } else { Err(status::INVALID_VALUE) }
    }
    fn cuDriverGetVersion[cbid::CU_DRIVER_GET_VERSION](version: *mut i32) {
        give(version, VERSION)
    }
    fn cuDeviceGetCount[cbid::CU_DEVICE_GET_COUNT](count: *mut i32) {
        ensure_initialized()?;
        give(count, device::count() as i32)
    }
    fn cuDeviceGet[cbid::CU_DEVICE_GET](device: *mut i32, ordinal: i32) {
        let ordinal = known(ordinal)?;
        give(device, ordinal as i32)
    }
    fn cuDeviceGetName[cbid::CU_DEVICE_GET_NAME](name: *mut c_char, len: i32, dev: i32) {
        known(dev)?;
        let room = usize::try_from(len).ok().filter(|room| *room > 0 && !name.is_null());
        let bytes = device::NAME.to_bytes();
        let kept = bytes.len().min(room.ok_or(status::INVALID_VALUE)? - 1);
        // SAFETY: the caller has `len` bytes there; `kept` and the NUL fit.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), name.cast(), kept);
            name.add(kept).write(0);
        }
        Ok(())
    }
    fn cuDeviceGetAttribute[cbid::CU_DEVICE_GET_ATTRIBUTE](value: *mut i32, attribute: u32, dev: i32) {
        known(dev)?;
        give(value, device::attribute(attribute).ok_or(status::INVALID_VALUE)?)
    }
    fn cuDeviceGetUuid[cbid::CU_DEVICE_GET_UUID](uuid: *mut [u8; 16], dev: i32) {
        give_uuid(uuid, dev)
    }
    fn cuDeviceGetUuid_v2[cbid::CU_DEVICE_GET_UUID_V2](uuid: *mut [u8; 16], dev: i32) {
        give_uuid(uuid, dev)
    }
    fn cuDeviceTotalMem_v2[cbid::CU_DEVICE_TOTAL_MEM_V2](bytes: *mut usize, dev: i32) {
        known(dev)?;
        give(bytes, device::MEMORY_BYTES as usize)
    }
    fn cuProfilerStart[cbid::CU_PROFILER_START]() {
        ensure_initialized()
    }
    fn cuProfilerStop[cbid::CU_PROFILER_STOP]() {
        ensure_initialized()
    }
    fn cuGetErrorName[cbid::CU_GET_ERROR_NAME](error: Status, text: *mut *const c_char) {
        give(text, error_text(error)?.0.as_ptr())
    }
    fn cuGetErrorString[cbid::CU_GET_ERROR_STRING](error: Status, text: *mut *const c_char) {
        give(text, error_text(error)?.1.as_ptr())
    }
}

fn error_text(error: Status) -> Result<(&'static CStr, &'static CStr), Status> {
    Ok(match error {
        status::SUCCESS => (c"CUDA_SUCCESS", c"no error"),
        status::INVALID_VALUE => (c"CUDA_ERROR_INVALID_VALUE", c"invalid argument"),
        status::OUT_OF_MEMORY => (c"CUDA_ERROR_OUT_OF_MEMORY", c"out of memory"),
        status::NOT_INITIALIZED => (c"CUDA_ERROR_NOT_INITIALIZED", c"initialization error"),
        status::NO_DEVICE => (c"CUDA_ERROR_NO_DEVICE", c"no CUDA-capable device is detected"),
        status::INVALID_DEVICE => (c"CUDA_ERROR_INVALID_DEVICE", c"invalid device ordinal"),
        status::INVALID_CONTEXT => (c"CUDA_ERROR_INVALID_CONTEXT", c"invalid device context"),
        status::INVALID_HANDLE => (c"CUDA_ERROR_INVALID_HANDLE", c"invalid resource handle"),
        status::ILLEGAL_STATE => (
            c"CUDA_ERROR_ILLEGAL_STATE",
            c"the operation cannot be performed in the present state",
        ),
        status::NOT_FOUND => (c"CUDA_ERROR_NOT_FOUND", c"named symbol not found"),
        status::NOT_READY => (c"CUDA_ERROR_NOT_READY", c"device not ready"),
        status::LAUNCH_FAILED => (c"CUDA_ERROR_LAUNCH_FAILED", c"unspecified launch failure"),
        status::STREAM_CAPTURE_UNSUPPORTED => (
            c"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
            c"operation not permitted when stream is capturing",
        ),
        status::STREAM_CAPTURE_INVALIDATED => (
            c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
            c"operation failed due to a previous error during capture",
        ),
        _ => return Err(status::INVALID_VALUE),
    })
}

/// This library's own handle: a look-up in it finds our functions, not those of a preloaded library.
fn own_handle() -> Option<*mut c_void> {
    static HANDLE: OnceLock<usize> = OnceLock::new();
    let handle = *HANDLE.get_or_init(|| {
        let path = library::file_of(own_handle as *const c_void).map(|path| path.into_os_string().into_encoded_bytes());
        let Some(path) = path.and_then(|path| CString::new(path).ok()) else {
            return 0;
        };
        // SAFETY: the library is loaded: this only takes a handle to it.
        unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) as usize }
    });
    (handle != 0).then_some(handle as *mut c_void)
}

/// The newest version of the function `name`, as headers of CUDA 13 would pick it.
fn entry_point(name: &CStr) -> Option<*mut c_void> {
    let handle = own_handle()?;
    ["_v4", "_v3", "_v2", ""]
        .into_iter()
        .filter_map(|suffix| CString::new([name.to_bytes(), suffix.as_bytes()].concat()).ok())
        .map(|name| library::symbol(handle, &name))
        .find(|address| !address.is_null())
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress_v2(
    symbol: *const c_char,
    address: *mut *mut c_void,
    _version: i32,
    _flags: u64,
    found: *mut u32,
) -> Status {
    give_entry_point(symbol, address, found)
}

fn give_entry_point(symbol: *const c_char, address: *mut *mut c_void, found: *mut u32) -> Status {
    let entry = if symbol.is_null() {
        None
    } else {
        // SAFETY: not null, and the caller gives a C string.
        entry_point(unsafe { CStr::from_ptr(symbol) })
    };
    let missing = u32::from(entry.is_none()); // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    if !found.is_null() {
        // SAFETY: not null, and the caller's to write to.
        unsafe { found.write(missing) };
    }
    match give(address, entry.unwrap_or(std::ptr::null_mut())) {
        Ok(()) if missing == 0 => status::SUCCESS,
        Ok(()) => status::NOT_FOUND,
        Err(error) => error,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuGetProcAddress(symbol: *const c_char, address: *mut *mut c_void, _version: i32, _flags: u64) -> Status {
    give_entry_point(symbol, address, std::ptr::null_mut())
}
