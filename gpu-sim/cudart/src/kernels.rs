//! Kernels as nvcc's code registers them: a host address stands for the device function. The driver's function is
//! looked up at the first launch, as with CUDA's lazy loading.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Mutex, PoisonError};

use sim_abi::Status;

use crate::driver::{Driver, check};

/// `cudaErrorInvalidDeviceFunction`.
const INVALID_DEVICE_FUNCTION: Status = 98;

struct Registered {
    name: &'static CStr,
    /// The driver's function, once it was looked up.
    function: Option<usize>,
}

static KERNELS: Mutex<Option<HashMap<usize, Registered>>> = Mutex::new(None);

thread_local! {
    /// What this thread has launched before: saves the lock.
    static KNOWN: RefCell<HashMap<usize, usize>> = RefCell::new(HashMap::new());
}

fn with_kernels<R>(use_them: impl FnOnce(&mut HashMap<usize, Registered>) -> R) -> R {
    use_them(
        KERNELS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_default(),
    )
}

/// Called by nvcc's code before `main` for each embedded binary.
#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFatBinary(binary: *const c_void) -> *mut *mut c_void {
    Box::into_raw(Box::new(binary.cast_mut()))
}

#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFatBinaryEnd(_handle: *mut *mut c_void) {}

/// What nvcc's code calls when the program ends. Nothing to give back: kernels are kept for late records.
#[unsafe(no_mangle)]
extern "C" fn __cudaUnregisterFatBinary(_handle: *mut *mut c_void) {}

/// Called by nvcc's code before `main` for each kernel: `host_function` is what `cudaLaunchKernel` will name.
#[unsafe(no_mangle)]
extern "C" fn __cudaRegisterFunction(
    _handle: *mut *mut c_void,
    host_function: *const c_void,
    _device_function: *mut c_char,
    device_name: *const c_char,
    _thread_limit: i32,
    _thread: *mut c_void,
    _block: *mut c_void,
    _block_size: *mut c_void,
    _grid_size: *mut c_void,
    _warp_size: *mut i32,
) {
    if device_name.is_null() {
        return;
    }
    // SAFETY: not null, and nvcc's code gives a C string.
    let name: &'static CStr = Box::leak(CString::from(unsafe { CStr::from_ptr(device_name) }).into_boxed_c_str());
    with_kernels(|kernels| kernels.insert(host_function as usize, Registered { name, function: None }));
}

/// Name of a registered kernel, or null.
pub(crate) fn name(host_function: *const c_void) -> *const c_char {
    with_kernels(|kernels| {
        kernels
            .get(&(host_function as usize))
            .map_or(std::ptr::null(), |known| known.name.as_ptr())
    })
}

/// The driver's function for a registered kernel.
pub(crate) fn function(driver: &Driver, host_function: *const c_void) -> Result<*mut c_void, Status> {
    let key = host_function as usize;
    if let Some(known) = KNOWN.with_borrow(|known| known.get(&key).copied()) {
        return Ok(known as *mut c_void);
    }
    let (name, found) = with_kernels(|kernels| kernels.get(&key).map(|kernel| (kernel.name, kernel.function)))
        .ok_or(INVALID_DEVICE_FUNCTION)?;
    let function = match found {
        Some(function) => function,
        None => {
            // Two threads may both get here: the first one's function is the kernel's.
            let looked_up = look_up(driver, name)? as usize;
            with_kernels(|kernels| {
                kernels
                    .get_mut(&key)
                    .map(|kernel| *kernel.function.get_or_insert(looked_up))
            })
            .ok_or(INVALID_DEVICE_FUNCTION)?
        }
    };
    KNOWN.with_borrow_mut(|known| known.insert(key, function));
    Ok(function as *mut c_void)
}

fn look_up(driver: &Driver, name: &CStr) -> Result<*mut c_void, Status> {
    let (mut module, mut function) = (std::ptr::null_mut(), std::ptr::null_mut());
    check((driver.module_load)(&raw mut module, std::ptr::null()))?;
    check((driver.module_function)(&raw mut function, module, name.as_ptr()))?;
    Ok(function)
}
