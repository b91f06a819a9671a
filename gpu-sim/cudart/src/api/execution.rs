//! Launches, stream capture and graphs.

use std::ffi::c_void;

use sim_abi::cbid::runtime as cbid;
use sim_abi::{Status, status};

use super::{DOMAIN, Handle};
use crate::driver::{Driver, check, hooks, ready, remembered};
use crate::kernels;

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

/// `cudaLaunchConfig_t`; its attributes are laid out as the driver's.
#[repr(C)]
struct Config {
    grid: Dim3,
    block: Dim3,
    shared: usize,
    stream: Handle,
    attributes: *const c_void,
    attribute_count: u32,
}

/// `CUlaunchConfig`.
#[repr(C)]
struct DriverConfig {
    grid: Dim3,
    block: Dim3,
    shared: u32,
    stream: Handle,
    attributes: *const c_void,
    attribute_count: u32,
}

fn launch(
    function: *const c_void,
    (grid, block): (Dim3, Dim3),
    shared: usize,
    stream: Handle,
    args: *mut Handle,
) -> Result<(), Status> {
    let driver = ready()?;
    let function = kernels::function(driver, function)?;
    let extra = std::ptr::null_mut();
    check((driver.launch)(
        function,
        grid.x,
        grid.y,
        grid.z,
        block.x,
        block.y,
        block.z,
        shared as u32,
        stream,
        args,
        extra,
    ))
}

fn launch_configured(config: *const Config, function: *const c_void, args: *mut Handle) -> Result<(), Status> {
    // SAFETY: the caller gives a launch configuration or null.
    let config = unsafe { config.as_ref() }.ok_or(status::INVALID_VALUE)?;
    let driver = ready()?;
    let function = kernels::function(driver, function)?;
    let config = DriverConfig {
        grid: config.grid,
        block: config.block,
        shared: config.shared as u32,
        stream: config.stream,
        attributes: config.attributes,
        attribute_count: config.attribute_count,
    };
    check((driver.launch_ex)(
        (&raw const config).cast(),
        function,
        args,
        std::ptr::null_mut(),
    ))
}

sim_abi::api! { hooks(), DOMAIN;
    fn cudaLaunchKernel[cbid::CUDA_LAUNCH_KERNEL](
        func: *const c_void, grid: Dim3, block: Dim3, args: *mut Handle, shared: usize, stream: Handle,
    ) symbol kernels::name(func), {
        remembered(launch(func, (grid, block), shared, stream, args))
    }
    fn cudaLaunchKernelExC[cbid::CUDA_LAUNCH_KERNEL_EX_C](
        config: *const Config, func: *const c_void, args: *mut Handle,
    ) symbol kernels::name(func), {
        remembered(launch_configured(config, func, args))
    }
    fn cudaStreamBeginCapture[cbid::CUDA_STREAM_BEGIN_CAPTURE](stream: Handle, mode: u32) {
        remembered(ready().and_then(|driver| check((driver.begin_capture)(stream, mode))))
    }
    fn cudaStreamBeginCaptureToGraph[cbid::CUDA_STREAM_BEGIN_CAPTURE_TO_GRAPH](
        stream: Handle, graph: Handle, dependencies: *const c_void, data: *const c_void, dependency_count: usize,
        mode: u32,
    ) {
        let begin = |driver: &Driver| {
            (driver.begin_capture_to)(stream, graph, dependencies, data, dependency_count, mode)
        };
        remembered(ready().and_then(|driver| check(begin(driver))))
    }
    fn cudaStreamEndCapture[cbid::CUDA_STREAM_END_CAPTURE](stream: Handle, graph: *mut Handle) {
        remembered(ready().and_then(|driver| check((driver.end_capture)(stream, graph))))
    }
    fn cudaGraphInstantiate[cbid::CUDA_GRAPH_INSTANTIATE](exec: *mut Handle, graph: Handle, flags: u64) {
        remembered(ready().and_then(|driver| check((driver.instantiate)(exec, graph, flags))))
    }
    fn cudaGraphInstantiateWithFlags[cbid::CUDA_GRAPH_INSTANTIATE_WITH_FLAGS](
        exec: *mut Handle, graph: Handle, flags: u64,
    ) {
        remembered(ready().and_then(|driver| check((driver.instantiate)(exec, graph, flags))))
    }
    fn cudaGraphInstantiateWithParams[cbid::CUDA_GRAPH_INSTANTIATE_WITH_PARAMS](
        exec: *mut Handle, graph: Handle, params: Handle,
    ) {
        remembered(ready().and_then(|driver| check((driver.instantiate_with)(exec, graph, params))))
    }
    fn cudaGraphExecUpdate[cbid::CUDA_GRAPH_EXEC_UPDATE](exec: Handle, graph: Handle, result: Handle) {
        remembered(ready().and_then(|driver| check((driver.graph_exec_update)(exec, graph, result))))
    }
    fn cudaGraphCreate[cbid::CUDA_GRAPH_CREATE](graph: *mut Handle, flags: u32) {
        remembered(ready().and_then(|driver| check((driver.graph_create)(graph, flags))))
    }
    fn cudaGraphClone[cbid::CUDA_GRAPH_CLONE](copy: *mut Handle, graph: Handle) {
        remembered(ready().and_then(|driver| check((driver.graph_clone)(copy, graph))))
    }
    fn cudaGraphAddChildGraphNode[cbid::CUDA_GRAPH_ADD_CHILD_GRAPH_NODE](
        node: *mut Handle, graph: Handle, dependencies: *const c_void, dependency_count: usize, child: Handle,
    ) {
        let add = |driver: &Driver| (driver.graph_add_child)(node, graph, dependencies, dependency_count, child);
        remembered(ready().and_then(|driver| check(add(driver))))
    }
    fn cudaGraphLaunch[cbid::CUDA_GRAPH_LAUNCH](exec: Handle, stream: Handle) {
        remembered(ready().and_then(|driver| check((driver.graph_launch)(exec, stream))))
    }
    fn cudaGraphExecDestroy[cbid::CUDA_GRAPH_EXEC_DESTROY](exec: Handle) {
        remembered(ready().and_then(|driver| check((driver.graph_exec_destroy)(exec))))
    }
    fn cudaGraphDestroy[cbid::CUDA_GRAPH_DESTROY](graph: Handle) {
        remembered(ready().and_then(|driver| check((driver.graph_destroy)(graph))))
    }
}
