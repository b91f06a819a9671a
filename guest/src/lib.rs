//! `libcolonel_guest.so`: the entry points, each a guarded line into `colonel::inject`. docs/architecture.md says who
//! calls them.

use std::ffi::{CStr, c_void};

use colonel::inject::entry::{self, GraphCall, Role};

/// Called by the CUDA driver at cuInit, where `CUDA_INJECTION64_PATH` names this library. 1 is success.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjection() -> i32 {
    entry::initialize_injection(cudaProfilerStart as extern "C" fn() -> u32 as *const c_void)
}

/// Called by each library with NVTX at its first use, where `NVTX_INJECTION64_PATH` names this library. 1 is success.
///
/// # Safety
/// `table` is what NVTX passes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn InitializeInjectionNvtx2(table: *const c_void) -> i32 {
    let ours = InitializeInjectionNvtx2 as unsafe extern "C" fn(*const c_void) -> i32 as *const c_void;
    // SAFETY: the caller's promise.
    unsafe { entry::initialize_injection_nvtx(table, ours) }
}

/// Called by each extension of NVTX: passed on to the tool that was set before, if one was. 1 is success.
#[unsafe(no_mangle)]
pub extern "C" fn InitializeInjectionNvtxExtension(module: *mut c_void) -> i32 {
    let ours = InitializeInjectionNvtxExtension as extern "C" fn(*mut c_void) -> i32 as *const c_void;
    entry::initialize_injection_nvtx_extension(module, ours)
}

/// Shadows the runtime's: opens a window, then calls the real one.
#[unsafe(no_mangle)]
pub extern "C" fn cudaProfilerStart() -> u32 {
    entry::cuda_profiler_start()
}

/// Shadows the runtime's: closes the window, then calls the real one.
#[unsafe(no_mangle)]
pub extern "C" fn cudaProfilerStop() -> u32 {
    entry::cuda_profiler_stop()
}

/// Shadows the driver's, as `cudaProfilerStart` does.
#[unsafe(no_mangle)]
pub extern "C" fn cuProfilerStart() -> u32 {
    entry::cu_profiler_start()
}

/// Shadows the driver's, as `cudaProfilerStop` does.
#[unsafe(no_mangle)]
pub extern "C" fn cuProfilerStop() -> u32 {
    entry::cu_profiler_stop()
}

/// Shadows calls of the runtime and the driver that make CUDA graphs, each by what it does.
macro_rules! shadow {
    ($($role:ident: $($name:ident)*;)*) => { $($(
        #[doc = concat!("Shadows `", stringify!($name), "`.")]
        ///
        /// # Safety
        /// As the shadowed function's.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> u32 {
            const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            };
            static CALL: GraphCall = GraphCall::new(NAME, Role::$role);
            // SAFETY: the caller's promise.
            unsafe { CALL.make([a, b, c, d, e, f]) }
        }
    )*)* };
}

shadow! {
    Begin: cudaStreamBeginCapture cudaStreamBeginCapture_ptsz cuStreamBeginCapture_v2 cuStreamBeginCapture_v2_ptsz;
    BeginToGraph: cudaStreamBeginCaptureToGraph cudaStreamBeginCaptureToGraph_ptsz
        cuStreamBeginCaptureToGraph cuStreamBeginCaptureToGraph_ptsz;
    End: cudaStreamEndCapture cudaStreamEndCapture_ptsz cuStreamEndCapture cuStreamEndCapture_ptsz;
    Instantiate: cudaGraphInstantiate cudaGraphInstantiateWithFlags
        cudaGraphInstantiateWithParams cudaGraphInstantiateWithParams_ptsz
        cuGraphInstantiateWithFlags cuGraphInstantiateWithParams cuGraphInstantiateWithParams_ptsz;
    Update: cudaGraphExecUpdate cuGraphExecUpdate_v2;
    AddChild: cudaGraphAddChildGraphNode cuGraphAddChildGraphNode;
    Clone: cudaGraphClone cuGraphClone;
    Destroy: cudaGraphDestroy cuGraphDestroy;
    DestroyExec: cudaGraphExecDestroy cuGraphExecDestroy;
    DestroyStream: cudaStreamDestroy cuStreamDestroy_v2;
    DestroyContext: cuCtxDestroy_v2;
    Reset: cudaDeviceReset cuDevicePrimaryCtxReset_v2;
    Release: cuDevicePrimaryCtxRelease_v2;
}

/// Shadows libc's, by which Python's `os._exit` ends a process: seals what was recorded, then leaves as libc's does.
#[unsafe(no_mangle)]
pub extern "C" fn _exit(status: i32) -> ! {
    entry::exit_now(status)
}
