//! Devices, versions, errors, profiler control.

use std::ffi::{CStr, c_char};

use sim_abi::cbid::runtime as cbid;
use sim_abi::trace::give;
use sim_abi::{Status, status};

use super::DOMAIN;
use crate::driver::{self, check, driver, hooks, initialized, ready, remembered};

/// CUDA 13.0.
const VERSION: i32 = 13_000;

sim_abi::api! { hooks(), DOMAIN;
    fn cudaGetDeviceCount[cbid::CUDA_GET_DEVICE_COUNT](count: *mut i32) {
        remembered(initialized().and_then(|driver| check((driver.device_count)(count))))
    }
    fn cudaSetDevice[cbid::CUDA_SET_DEVICE](device: i32) {
        remembered(driver::set_device(device))
    }
    fn cudaGetDevice[cbid::CUDA_GET_DEVICE](device: *mut i32) {
        remembered(give(device, driver::device()))
    }
    fn cudaDeviceGetAttribute[cbid::CUDA_DEVICE_GET_ATTRIBUTE](value: *mut i32, attribute: u32, device: i32) {
        remembered(initialized().and_then(|driver| check((driver.device_attribute)(value, attribute, device))))
    }
    fn cudaDeviceReset[cbid::CUDA_DEVICE_RESET]() {
        remembered(driver::reset())
    }
    fn cudaDeviceSynchronize[cbid::CUDA_DEVICE_SYNCHRONIZE]() {
        remembered(ready().and_then(|driver| check((driver.context_synchronize)())))
    }
    fn cudaProfilerStart[cbid::CUDA_PROFILER_START]() {
        remembered(ready().and_then(|driver| check((driver.profiler_start)())))
    }
    fn cudaProfilerStop[cbid::CUDA_PROFILER_STOP]() {
        remembered(ready().and_then(|driver| check((driver.profiler_stop)())))
    }
    fn cudaDriverGetVersion[cbid::CUDA_DRIVER_GET_VERSION](version: *mut i32) {
        remembered(driver().and_then(|driver| check((driver.version)(version))))
    }
    fn cudaRuntimeGetVersion[cbid::CUDA_RUNTIME_GET_VERSION](version: *mut i32) {
        remembered(give(version, VERSION))
    }
    fn cudaGetLastError[cbid::CUDA_GET_LAST_ERROR]() {
        given(driver::last_error(true))
    }
    fn cudaPeekAtLastError[cbid::CUDA_PEEK_AT_LAST_ERROR]() {
        given(driver::last_error(false))
    }
}

/// The error to return, as the one that a function fails with.
fn given(error: Status) -> Result<(), Status> {
    if error == status::SUCCESS { Ok(()) } else { Err(error) }
}

fn error_text(error: Status) -> (&'static CStr, &'static CStr) {
    match error {
        status::SUCCESS => (c"cudaSuccess", c"no error"),
        status::INVALID_VALUE => (c"cudaErrorInvalidValue", c"invalid argument"),
        status::OUT_OF_MEMORY => (c"cudaErrorMemoryAllocation", c"out of memory"),
        status::NOT_INITIALIZED => (c"cudaErrorInitializationError", c"initialization error"),
        35 => (
            c"cudaErrorInsufficientDriver",
            c"CUDA driver version is insufficient for CUDA runtime version",
        ),
        98 => (c"cudaErrorInvalidDeviceFunction", c"invalid device function"),
        status::NO_DEVICE => (c"cudaErrorNoDevice", c"no CUDA-capable device is detected"),
        status::INVALID_DEVICE => (c"cudaErrorInvalidDevice", c"invalid device ordinal"),
        status::INVALID_HANDLE => (c"cudaErrorInvalidResourceHandle", c"invalid resource handle"),
        status::NOT_READY => (c"cudaErrorNotReady", c"device not ready"),
        status::LAUNCH_FAILED => (c"cudaErrorLaunchFailure", c"unspecified launch failure"),
        status::STREAM_CAPTURE_UNSUPPORTED => (
            c"cudaErrorStreamCaptureUnsupported",
            c"operation not permitted when stream is capturing",
        ),
        _ => (c"cudaErrorUnknown", c"unrecognized error code"),
    }
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorName(error: Status) -> *const c_char {
    error_text(error).0.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn cudaGetErrorString(error: Status) -> *const c_char {
    error_text(error).1.as_ptr()
}
