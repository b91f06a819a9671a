//! The driver under the runtime: its functions, found by handle, and the lazy set-up that every runtime call may start.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use sim_abi::{ABI, HOOKS_SYMBOL, Hooks, Status, library, status};

/// `cudaErrorInsufficientDriver`: no driver, or not one that this runtime can use.
const INSUFFICIENT_DRIVER: Status = 35;

type Handle = *mut c_void;
type GetProcAddress = extern "C" fn(*const c_char, *mut *mut c_void, i32, u64, *mut u32) -> Status;

macro_rules! functions {
    ($( $name:ident: $symbol:literal fn($($arg:ty),*); )*) => {
        /// The functions of the driver that the runtime calls.
        pub(crate) struct Driver {
            hooks: Option<&'static Hooks>,
            $( pub(crate) $name: extern "C" fn($($arg),*) -> Status, )*
        }

        impl Driver {
            fn load() -> Option<Driver> {
                let near = library::file_of(Driver::load as *const c_void)?;
                let handle = library::open(c"libcuda.so.1", "libsim_cuda.so", &near, libc::RTLD_NOW)?;
                let find = library::symbol(handle, c"cuGetProcAddress_v2");
                if find.is_null() {
                    return None;
                }
                // SAFETY: the signature of this function in cuda.h.
                let find: GetProcAddress = unsafe { std::mem::transmute(find) };
                Some(Driver {
                    hooks: hooks_of(handle),
                    $( $name: {
                        let mut address = std::ptr::null_mut();
                        let name = concat!($symbol, "\0").as_ptr().cast();
                        if find(name, &raw mut address, 13_000, 0, std::ptr::null_mut()) != status::SUCCESS {
                            return None;
                        }
                        // SAFETY: the signature of this function in cuda.h.
                        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn($($arg),*) -> Status>(address) }
                    }, )*
                })
            }
        }
    };
}

functions! {
    init: "cuInit" fn(u32);
    version: "cuDriverGetVersion" fn(*mut i32);
    device_count: "cuDeviceGetCount" fn(*mut i32);
    device_attribute: "cuDeviceGetAttribute" fn(*mut i32, u32, i32);
    primary_context: "cuDevicePrimaryCtxRetain" fn(*mut Handle, i32);
    reset: "cuDevicePrimaryCtxReset" fn(i32);
    set_current: "cuCtxSetCurrent" fn(Handle);
    get_current: "cuCtxGetCurrent" fn(*mut Handle);
    context_synchronize: "cuCtxSynchronize" fn();
    stream_create: "cuStreamCreateWithPriority" fn(*mut Handle, u32, i32);
    stream_destroy: "cuStreamDestroy" fn(Handle);
    stream_synchronize: "cuStreamSynchronize" fn(Handle);
    stream_wait_event: "cuStreamWaitEvent" fn(Handle, Handle, u32);
    event_create: "cuEventCreate" fn(*mut Handle, u32);
    event_destroy: "cuEventDestroy" fn(Handle);
    event_record: "cuEventRecord" fn(Handle, Handle);
    event_synchronize: "cuEventSynchronize" fn(Handle);
    event_query: "cuEventQuery" fn(Handle);
    module_load: "cuModuleLoadData" fn(*mut Handle, *const c_void);
    module_function: "cuModuleGetFunction" fn(*mut Handle, Handle, *const c_char);
    launch: "cuLaunchKernel" fn(Handle, u32, u32, u32, u32, u32, u32, u32, Handle, *mut Handle, *mut Handle);
    launch_ex: "cuLaunchKernelEx" fn(*const c_void, Handle, *mut Handle, *mut Handle);
    alloc: "cuMemAlloc" fn(*mut u64, usize);
    free: "cuMemFree" fn(u64);
    copy: "cuMemcpyAsync" fn(u64, u64, usize, Handle);
    copy_to_device: "cuMemcpyHtoDAsync" fn(u64, *const c_void, usize, Handle);
    copy_to_host: "cuMemcpyDtoHAsync" fn(*mut c_void, u64, usize, Handle);
    copy_peer: "cuMemcpyPeerAsync" fn(u64, Handle, u64, Handle, usize, Handle);
    fill: "cuMemsetD8Async" fn(u64, u8, usize, Handle);
    begin_capture: "cuStreamBeginCapture" fn(Handle, u32);
    begin_capture_to: "cuStreamBeginCaptureToGraph"
        fn(Handle, Handle, *const c_void, *const c_void, usize, u32);
    end_capture: "cuStreamEndCapture" fn(Handle, *mut Handle);
    instantiate: "cuGraphInstantiateWithFlags" fn(*mut Handle, Handle, u64);
    instantiate_with: "cuGraphInstantiateWithParams" fn(*mut Handle, Handle, Handle);
    graph_exec_update: "cuGraphExecUpdate" fn(Handle, Handle, Handle);
    graph_create: "cuGraphCreate" fn(*mut Handle, u32);
    graph_clone: "cuGraphClone" fn(*mut Handle, Handle);
    graph_add_child: "cuGraphAddChildGraphNode" fn(*mut Handle, Handle, *const c_void, usize, Handle);
    graph_launch: "cuGraphLaunch" fn(Handle, Handle);
    graph_exec_destroy: "cuGraphExecDestroy" fn(Handle);
    graph_destroy: "cuGraphDestroy" fn(Handle);
    profiler_start: "cuProfilerStart" fn();
    profiler_stop: "cuProfilerStop" fn();
}

/// The stand-in driver's door; None for a driver of another build.
fn hooks_of(handle: *mut c_void) -> Option<&'static Hooks> {
    let door = library::symbol(handle, &CString::new(HOOKS_SYMBOL).ok()?);
    if door.is_null() {
        return None;
    }
    // SAFETY: the stand-in driver exports it with this signature.
    let door: extern "C" fn() -> *const Hooks = unsafe { std::mem::transmute(door) };
    // SAFETY: a static of a library that is never closed; its first field says whether the rest is as we know it.
    unsafe { door().as_ref() }.filter(|hooks| hooks.abi == ABI)
}

/// The driver, loaded by the first call.
pub(crate) fn driver() -> Result<&'static Driver, Status> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    DRIVER.get_or_init(Driver::load).as_ref().ok_or(INSUFFICIENT_DRIVER)
}

/// Where the runtime's calls are announced.
pub(crate) fn hooks() -> Option<&'static Hooks> {
    driver().ok()?.hooks
}

thread_local! {
    static DEVICE: Cell<i32> = const { Cell::new(0) };
    static READY: Cell<bool> = const { Cell::new(false) };
    static LAST_ERROR: Cell<Status> = const { Cell::new(status::SUCCESS) };
}

/// A driver call's result as a `Result`.
pub(crate) fn check(result: Status) -> Result<(), Status> {
    if result == status::SUCCESS { Ok(()) } else { Err(result) }
}

/// The driver, initialised, but perhaps without a context.
pub(crate) fn initialized() -> Result<&'static Driver, Status> {
    let driver = driver()?;
    check((driver.init)(0))?;
    Ok(driver)
}

/// The driver with a context current to this thread: the primary one of the thread's device, unless the program made
/// another one current itself.
pub(crate) fn ready() -> Result<&'static Driver, Status> {
    let driver = driver()?;
    if READY.get() {
        return Ok(driver);
    }
    check((driver.init)(0))?;
    let mut current = std::ptr::null_mut();
    check((driver.get_current)(&raw mut current))?;
    if current.is_null() {
        check((driver.set_current)(primary_context(driver, DEVICE.get())?))?;
    }
    READY.set(true);
    Ok(driver)
}

pub(crate) fn primary_context(driver: &Driver, device: i32) -> Result<Handle, Status> {
    let mut context = std::ptr::null_mut();
    check((driver.primary_context)(&raw mut context, device))?;
    Ok(context)
}

/// `cudaSetDevice`: makes the device's primary context current at once, as the runtime does since CUDA 12.
pub(crate) fn set_device(device: i32) -> Result<(), Status> {
    let driver = initialized()?;
    check((driver.set_current)(primary_context(driver, device)?))?;
    DEVICE.set(device);
    READY.set(true);
    Ok(())
}

/// `cudaDeviceReset`: the next call makes the context anew.
pub(crate) fn reset() -> Result<(), Status> {
    let driver = initialized()?;
    check((driver.reset)(DEVICE.get()))?;
    READY.set(false);
    check((driver.set_current)(std::ptr::null_mut()))
}

pub(crate) fn device() -> i32 {
    DEVICE.get()
}

/// Keeps an error for `cudaGetLastError`.
pub(crate) fn remembered(result: Result<(), Status>) -> Result<(), Status> {
    if let Err(error) = result {
        LAST_ERROR.set(error);
    }
    result
}

/// The last error; `reset` forgets it.
pub(crate) fn last_error(reset: bool) -> Status {
    let error = LAST_ERROR.get();
    if reset {
        LAST_ERROR.set(status::SUCCESS);
    }
    error
}
