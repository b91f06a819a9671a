//! Stand-in for the CUDA runtime, `libcudart.so.13`: a thin layer over the driver, as the real one. It opens
//! `libcuda.so.1` itself and takes the driver's functions from `cuGetProcAddress`, so a preloaded library that replaces
//! `cuProfilerStart` does not see the runtime's own calls of it.
//!
//! Kernels are registered as nvcc's code does it: `__cudaRegisterFatBinary`, `__cudaRegisterFunction`.

mod api;
mod driver;
mod kernels;

/// Tells a program that this is the stand-in: a real runtime has no such symbol.
#[unsafe(no_mangle)]
static colonel_sim_cudart: u32 = sim_abi::ABI;
