//! The exported functions. Each makes sure that driver and context are there, calls the driver, and keeps an error for
//! `cudaGetLastError`.

mod device;
mod execution;
mod memory;
mod stream;

use std::ffi::c_void;

/// Callback domain of the runtime's functions.
const DOMAIN: u32 = 2;

/// A stream, event, graph or executable: the driver's own handle.
type Handle = *mut c_void;
