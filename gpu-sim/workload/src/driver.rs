//! CUDA by the driver alone, found by handle: what a program with a static libcudart looks like from outside.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;

use anyhow::Result;

use crate::args::Decode;
use crate::gpu::{COPY_BYTES, FILL_BYTES, Gpu, Handle, PEER_BYTES, check};
use crate::kernels::{KERNELS, of_step};
use crate::symbols::{Symbols, functions};

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: *mut c_void,
    attributes: *const Attribute,
    attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
struct Attribute {
    id: u32,
    pad: u32,
    value: [u32; 16],
}

/// `CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION`.
const CLUSTER_DIMENSION: u32 = 4;
/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`.
const THREAD_LOCAL: u32 = 1;

functions! {
    /// The driver's functions.
    Functions {
        init: "cuInit"(u32);
        primary_context: "cuDevicePrimaryCtxRetain"(*mut *mut c_void, i32);
        set_current: "cuCtxSetCurrent"(*mut c_void);
        alloc: "cuMemAlloc_v2"(*mut u64, usize);
        stream_create: "cuStreamCreate"(*mut *mut c_void, u32);
        module_load: "cuModuleLoadData"(*mut *mut c_void, *const c_void);
        module_function: "cuModuleGetFunction"(*mut *mut c_void, *mut c_void, *const c_char);
        launch_ex: "cuLaunchKernelEx"(*const Config, *mut c_void, *mut *mut c_void, *mut *mut c_void);
        copy: "cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, *mut c_void);
        copy_peer: "cuMemcpyPeerAsync"(u64, *mut c_void, u64, *mut c_void, usize, *mut c_void);
        fill: "cuMemsetD8Async"(u64, u8, usize, *mut c_void);
        synchronize: "cuStreamSynchronize"(*mut c_void);
        begin_capture: "cuStreamBeginCapture_v2"(*mut c_void, u32);
        end_capture: "cuStreamEndCapture"(*mut c_void, *mut *mut c_void);
        instantiate: "cuGraphInstantiateWithFlags"(*mut *mut c_void, *mut c_void, u64);
        launch_graph: "cuGraphLaunch"(*mut c_void, *mut c_void);
        profiler_start: "cuProfilerStart"();
        profiler_stop: "cuProfilerStop"();
    }
}

/// The driver, with memory for the loop.
pub(crate) struct Driver {
    functions: Functions,
    kernels: Vec<Handle>,
    context: Handle,
    peer_context: Handle,
    host: Box<[u8]>,
    device: u64,
    peer: u64,
}

impl Driver {
    pub(crate) fn open(args: &Decode) -> Result<Driver> {
        let symbols = Symbols::open(c"libcuda.so.1", "libsim_cuda.so", c"colonel_sim_hooks", libc::RTLD_NOW)?;
        let functions = Functions::find(symbols)?;
        check("cuInit", (functions.init)(0))?;
        let (peer_context, peer) = if args.peer {
            alloc(&functions, 1, PEER_BYTES)?
        } else {
            (Handle(null_mut()), 0)
        };
        let (context, device) = alloc(&functions, 0, FILL_BYTES.max(PEER_BYTES))?;
        let kernels = load_kernels(&functions)?;
        Ok(Driver {
            functions,
            kernels,
            context,
            peer_context,
            host: vec![0; COPY_BYTES].into(),
            device,
            peer,
        })
    }
}

/// Makes the primary context of `device` current and allocates there.
fn alloc(functions: &Functions, device: i32, bytes: usize) -> Result<(Handle, u64)> {
    let (mut context, mut address) = (null_mut(), 0);
    check(
        "cuDevicePrimaryCtxRetain",
        (functions.primary_context)(&raw mut context, device),
    )?;
    check("cuCtxSetCurrent", (functions.set_current)(context))?;
    check("cuMemAlloc", (functions.alloc)(&raw mut address, bytes))?;
    Ok((Handle(context), address))
}

fn load_kernels(functions: &Functions) -> Result<Vec<Handle>> {
    let mut module = null_mut();
    check(
        "cuModuleLoadData",
        (functions.module_load)(&raw mut module, c"".as_ptr().cast()),
    )?;
    let function = |name: *const c_char| {
        let mut function = null_mut();
        check(
            "cuModuleGetFunction",
            (functions.module_function)(&raw mut function, module, name),
        )?;
        Ok(Handle(function))
    };
    KERNELS.iter().map(|kernel| function(kernel.name.as_ptr())).collect()
}

impl Gpu for Driver {
    fn bind_thread(&self) -> Result<()> {
        check("cuCtxSetCurrent", (self.functions.set_current)(self.context.0))
    }

    fn create_stream(&self) -> Result<Handle> {
        let mut stream = null_mut();
        check(
            "cuStreamCreate",
            (self.functions.stream_create)(&raw mut stream, NON_BLOCKING),
        )?;
        Ok(Handle(stream))
    }

    fn launch(&self, index: usize, count: usize, stream: Handle) -> Result<()> {
        let index = of_step(index, count);
        let kernel = &KERNELS[index];
        let mut value = [0; 16];
        value[..3].copy_from_slice(&kernel.cluster);
        let attribute = Attribute {
            id: CLUSTER_DIMENSION,
            pad: 0,
            value,
        };
        let config = Config {
            grid: kernel.grid,
            block: kernel.block,
            shared: kernel.shared,
            stream: stream.0,
            attributes: &raw const attribute,
            attribute_count: u32::from(kernel.cluster != [0; 3]),
        };
        let function = self.kernels[index].0;
        let status = (self.functions.launch_ex)(&raw const config, function, null_mut(), null_mut());
        check("cuLaunchKernelEx", status)
    }

    fn copy_in(&self, stream: Handle) -> Result<()> {
        let status = (self.functions.copy)(self.device, self.host.as_ptr().cast(), COPY_BYTES, stream.0);
        check("cuMemcpyHtoDAsync", status)
    }

    fn copy_peer(&self, stream: Handle) -> Result<()> {
        let contexts = (self.peer_context.0, self.context.0);
        let status = (self.functions.copy_peer)(self.peer, contexts.0, self.device, contexts.1, PEER_BYTES, stream.0);
        check("cuMemcpyPeerAsync", status)
    }

    fn fill(&self, stream: Handle) -> Result<()> {
        check(
            "cuMemsetD8Async",
            (self.functions.fill)(self.device, 0, FILL_BYTES, stream.0),
        )
    }

    fn synchronize(&self, stream: Handle) -> Result<()> {
        check("cuStreamSynchronize", (self.functions.synchronize)(stream.0))
    }

    fn begin_capture(&self, stream: Handle) -> Result<()> {
        check(
            "cuStreamBeginCapture",
            (self.functions.begin_capture)(stream.0, THREAD_LOCAL),
        )
    }

    fn end_capture(&self, stream: Handle) -> Result<Handle> {
        let (mut graph, mut exec) = (null_mut(), null_mut());
        check(
            "cuStreamEndCapture",
            (self.functions.end_capture)(stream.0, &raw mut graph),
        )?;
        check(
            "cuGraphInstantiateWithFlags",
            (self.functions.instantiate)(&raw mut exec, graph, 0),
        )?;
        Ok(Handle(exec))
    }

    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        check("cuGraphLaunch", (self.functions.launch_graph)(graph.0, stream.0))
    }

    fn profiler_start(&self) -> Result<()> {
        check("cuProfilerStart", (self.functions.profiler_start)())
    }

    fn profiler_stop(&self) -> Result<()> {
        check("cuProfilerStop", (self.functions.profiler_stop)())
    }
}
