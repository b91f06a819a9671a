//! CUDA by the runtime, as most programs use it. Kernels are registered as code from nvcc does it before `main`.

use std::ffi::{c_char, c_void};
use std::ptr::{null, null_mut};

use anyhow::Result;

use crate::args::{Decode, Resolve};
use crate::gpu::{COPY_BYTES, FILL_BYTES, Gpu, Handle, PEER_BYTES, check};
use crate::kernels::{KERNELS, of_step};
use crate::symbols::{Symbols, functions};

/// `dim3`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Dim3([u32; 3]);

/// `cudaLaunchConfig_t`.
#[repr(C)]
pub(crate) struct Config {
    grid: Dim3,
    block: Dim3,
    shared: usize,
    stream: *mut c_void,
    attributes: *const Attribute,
    attribute_count: u32,
}

/// `cudaLaunchAttribute`.
#[repr(C)]
struct Attribute {
    id: u32,
    pad: u32,
    value: [u32; 16],
}

/// `cudaLaunchAttributeClusterDimension`.
const CLUSTER_DIMENSION: u32 = 4;
/// `cudaStreamNonBlocking`.
const NON_BLOCKING: u32 = 1;
/// `cudaMemcpyHostToDevice`.
const TO_DEVICE: u32 = 1;
/// `cudaStreamCaptureModeThreadLocal`.
const THREAD_LOCAL: u32 = 1;

functions! {
    /// The runtime's functions.
    Functions {
        set_device: "cudaSetDevice"(i32);
        malloc: "cudaMalloc"(*mut *mut c_void, usize);
        stream_create: "cudaStreamCreateWithFlags"(*mut *mut c_void, u32);
        launch: "cudaLaunchKernel"(*const c_void, Dim3, Dim3, *mut *mut c_void, usize, *mut c_void);
        launch_ex: "cudaLaunchKernelExC"(*const Config, *const c_void, *mut *mut c_void);
        copy: "cudaMemcpyAsync"(*mut c_void, *const c_void, usize, u32, *mut c_void);
        copy_peer: "cudaMemcpyPeerAsync"(*mut c_void, i32, *const c_void, i32, usize, *mut c_void);
        fill: "cudaMemsetAsync"(*mut c_void, i32, usize, *mut c_void);
        synchronize: "cudaStreamSynchronize"(*mut c_void);
        begin_capture: "cudaStreamBeginCapture"(*mut c_void, u32);
        end_capture: "cudaStreamEndCapture"(*mut c_void, *mut *mut c_void);
        instantiate: "cudaGraphInstantiate"(*mut *mut c_void, *mut c_void, u64);
        launch_graph: "cudaGraphLaunch"(*mut c_void, *mut c_void);
        profiler_start: "cudaProfilerStart"();
        profiler_stop: "cudaProfilerStop"();
    }
}

type RegisterFatBinary = extern "C" fn(*const c_void) -> *mut *mut c_void;
type RegisterFunction = extern "C" fn(
    *mut *mut c_void,
    *const c_void,
    *mut c_char,
    *const c_char,
    i32,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut i32,
);

/// The runtime, with memory for the loop.
pub(crate) struct Runtime {
    functions: Functions,
    host: Box<[u8]>,
    device: Handle,
    peer: Handle,
}

impl Runtime {
    pub(crate) fn open(args: &Decode) -> Result<Runtime> {
        let flags = if args.resolve == Resolve::Global {
            libc::RTLD_GLOBAL
        } else {
            libc::RTLD_LOCAL
        };
        let library = Symbols::open(
            c"libcudart.so.13",
            "libsim_cudart.so",
            c"colonel_sim_cudart",
            libc::RTLD_NOW | flags,
        )?;
        register_kernels(library)?;
        let functions = Functions::find(if args.resolve == Resolve::Global {
            Symbols::global()
        } else {
            library
        })?;
        let peer = if args.peer {
            alloc(&functions, 1, PEER_BYTES)?
        } else {
            Handle(null_mut())
        };
        let device = alloc(&functions, 0, FILL_BYTES.max(PEER_BYTES))?;
        Ok(Runtime {
            functions,
            host: vec![0; COPY_BYTES].into(),
            device,
            peer,
        })
    }
}

fn alloc(functions: &Functions, device: i32, bytes: usize) -> Result<Handle> {
    check("cudaSetDevice", (functions.set_device)(device))?;
    let mut address = null_mut();
    check("cudaMalloc", (functions.malloc)(&raw mut address, bytes))?;
    Ok(Handle(address))
}

/// The address that stands for a kernel, as that of its host function does in code from nvcc.
fn host_function(kernel: usize) -> *const c_void {
    (&raw const KERNELS[kernel]).cast()
}

fn register_kernels(library: Symbols) -> Result<()> {
    // SAFETY: the signatures of these functions in NVIDIA's headers.
    let (register_binary, register_function) = unsafe {
        (
            std::mem::transmute::<*mut c_void, RegisterFatBinary>(library.find("__cudaRegisterFatBinary")?),
            std::mem::transmute::<*mut c_void, RegisterFunction>(library.find("__cudaRegisterFunction")?),
        )
    };
    let binary = register_binary(null());
    for (index, kernel) in KERNELS.iter().enumerate() {
        let name = kernel.name.as_ptr();
        let none = null_mut();
        let warp = null_mut();
        register_function(
            binary,
            host_function(index),
            name.cast_mut(),
            name,
            -1,
            none,
            none,
            none,
            none,
            warp,
        );
    }
    Ok(())
}

impl Gpu for Runtime {
    fn bind_thread(&self) -> Result<()> {
        check("cudaSetDevice", (self.functions.set_device)(0))
    }

    fn create_stream(&self) -> Result<Handle> {
        let mut stream = null_mut();
        check(
            "cudaStreamCreateWithFlags",
            (self.functions.stream_create)(&raw mut stream, NON_BLOCKING),
        )?;
        Ok(Handle(stream))
    }

    fn launch(&self, index: usize, count: usize, stream: Handle) -> Result<()> {
        let index = of_step(index, count);
        let (kernel, function) = (&KERNELS[index], host_function(index));
        let (grid, block, shared) = (Dim3(kernel.grid), Dim3(kernel.block), kernel.shared as usize);
        if kernel.cluster == [0; 3] {
            let status = (self.functions.launch)(function, grid, block, null_mut(), shared, stream.0);
            return check("cudaLaunchKernel", status);
        }
        let mut value = [0; 16];
        value[..3].copy_from_slice(&kernel.cluster);
        let attribute = Attribute {
            id: CLUSTER_DIMENSION,
            pad: 0,
            value,
        };
        let attributes = &raw const attribute;
        let config = Config {
            grid,
            block,
            shared,
            stream: stream.0,
            attributes,
            attribute_count: 1,
        };
        check(
            "cudaLaunchKernelExC",
            (self.functions.launch_ex)(&raw const config, function, null_mut()),
        )
    }

    fn copy_in(&self, stream: Handle) -> Result<()> {
        let host = self.host.as_ptr().cast();
        let status = (self.functions.copy)(self.device.0, host, COPY_BYTES, TO_DEVICE, stream.0);
        check("cudaMemcpyAsync", status)
    }

    fn copy_peer(&self, stream: Handle) -> Result<()> {
        let status = (self.functions.copy_peer)(self.peer.0, 1, self.device.0, 0, PEER_BYTES, stream.0);
        check("cudaMemcpyPeerAsync", status)
    }

    fn fill(&self, stream: Handle) -> Result<()> {
        check(
            "cudaMemsetAsync",
            (self.functions.fill)(self.device.0, 0, FILL_BYTES, stream.0),
        )
    }

    fn synchronize(&self, stream: Handle) -> Result<()> {
        check("cudaStreamSynchronize", (self.functions.synchronize)(stream.0))
    }

    fn begin_capture(&self, stream: Handle) -> Result<()> {
        check(
            "cudaStreamBeginCapture",
            (self.functions.begin_capture)(stream.0, THREAD_LOCAL),
        )
    }

    fn end_capture(&self, stream: Handle) -> Result<Handle> {
        let (mut graph, mut exec) = (null_mut(), null_mut());
        check(
            "cudaStreamEndCapture",
            (self.functions.end_capture)(stream.0, &raw mut graph),
        )?;
        check(
            "cudaGraphInstantiate",
            (self.functions.instantiate)(&raw mut exec, graph, 0),
        )?;
        Ok(Handle(exec))
    }

    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()> {
        check("cudaGraphLaunch", (self.functions.launch_graph)(graph.0, stream.0))
    }

    fn profiler_start(&self) -> Result<()> {
        check("cudaProfilerStart", (self.functions.profiler_start)())
    }

    fn profiler_stop(&self) -> Result<()> {
        check("cudaProfilerStop", (self.functions.profiler_stop)())
    }
}
