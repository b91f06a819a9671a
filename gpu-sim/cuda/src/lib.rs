//! Stand-in for the CUDA driver, `libcuda.so.1`: see gpu-sim/README.md for what it plays.
//!
//! - `init`: `cuInit` and what the driver does in it for injected libraries
//! - `hooks`: the door through which the stand-in libcupti looks in
//! - `device`: the GPU's properties; `kernel`: the properties of a kernel, from its name
//! - `timeline`: when the GPU does what
//! - `objects`: what the handles point to; `capture`: stream capture and graphs
//! - `submit`: work on its way to a stream
//! - `api`: the exported functions, thin
//!
//! Nothing is computed and no memory is moved. No lock is held while another library is called.

mod api;
mod capture;
mod device;
mod hooks;
mod init;
mod kernel;
mod objects;
mod submit;
mod timeline;
