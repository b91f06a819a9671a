//! What the loop needs of CUDA.

use std::ffi::c_void;

use anyhow::{Result, bail};

/// A stream, graph executable or context: a handle of CUDA's, used by whoever has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle(pub(crate) *mut c_void);

// SAFETY: CUDA's handles may be used from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// Bytes of the token ids copied to the GPU in each step.
pub(crate) const COPY_BYTES: usize = 2_048;
/// Bytes filled in each step.
pub(crate) const FILL_BYTES: usize = 65_536;
/// Bytes copied between GPUs in each step.
pub(crate) const PEER_BYTES: usize = 1 << 20;

/// CUDA, by whichever interface.
pub(crate) trait Gpu: Sync {
    /// Makes the GPU usable by this thread.
    fn bind_thread(&self) -> Result<()>;
    fn create_stream(&self) -> Result<Handle>;
    /// Launches kernel `index` of a step of `count`.
    fn launch(&self, index: usize, count: usize, stream: Handle) -> Result<()>;
    fn copy_in(&self, stream: Handle) -> Result<()>;
    fn copy_peer(&self, stream: Handle) -> Result<()>;
    fn fill(&self, stream: Handle) -> Result<()>;
    fn synchronize(&self, stream: Handle) -> Result<()>;
    fn begin_capture(&self, stream: Handle) -> Result<()>;
    /// Ends the capture and makes what was captured launchable.
    fn end_capture(&self, stream: Handle) -> Result<Handle>;
    fn launch_graph(&self, graph: Handle, stream: Handle) -> Result<()>;
    fn profiler_start(&self) -> Result<()>;
    fn profiler_stop(&self) -> Result<()>;
}

/// The result of a CUDA call as a `Result`.
pub(crate) fn check(function: &str, status: i32) -> Result<()> {
    if status != 0 {
        bail!("`{function}` failed with {status}");
    }
    Ok(())
}
