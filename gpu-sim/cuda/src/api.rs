//! The exported functions, grouped as in NVIDIA's documentation. Each checks its arguments and calls inwards; none
//! calls another exported one, which a preloaded library might have replaced.

mod context;
mod device;
mod execution;
mod graph;
mod memory;
mod stream;

/// Callback domain of the driver's functions.
const DOMAIN: u32 = 1;
