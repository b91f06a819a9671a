//! What the stand-ins libcuda, libcudart and libcupti share: the private interface over which they meet in one process
//! (the real ones use undocumented tables for this), the names of the API functions they play, and how they find each
//! other's files. Each library is loaded by itself, so all that crosses is `#[repr(C)]` and reached through
//! [`HOOKS_SYMBOL`], never through a global symbol.

pub mod cbid;
pub mod library;
pub mod trace;
pub mod truth;

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32};

/// Exported by the stand-in libcuda: `extern "C" fn() -> *const Hooks`.
pub const HOOKS_SYMBOL: &str = "colonel_sim_hooks";
/// Changes with any change of the structs here: libraries of two builds must not meet.
pub const ABI: u32 = 1;

/// Result of a driver or runtime call; both number their errors alike where they share them.
pub type Status = i32;
/// The result codes that the stand-ins give.
pub mod status {
    #![expect(missing_docs, reason = "named as in cuda.h, less the prefix CUDA_ERROR_")]
    use super::Status;
    pub const SUCCESS: Status = 0;
    pub const INVALID_VALUE: Status = 1;
    pub const OUT_OF_MEMORY: Status = 2;
    pub const NOT_INITIALIZED: Status = 3;
    pub const NO_DEVICE: Status = 100;
    pub const INVALID_DEVICE: Status = 101;
    pub const INVALID_CONTEXT: Status = 201;
    pub const INVALID_HANDLE: Status = 400;
    pub const ILLEGAL_STATE: Status = 401;
    pub const NOT_FOUND: Status = 500;
    pub const NOT_READY: Status = 600;
    pub const LAUNCH_FAILED: Status = 719;
    pub const STREAM_CAPTURE_UNSUPPORTED: Status = 900;
    pub const STREAM_CAPTURE_INVALIDATED: Status = 901;
    pub const GRAPH_EXEC_UPDATE_FAILURE: Status = 910;
}

/// Values of [`Hooks::state`].
pub mod state {
    /// `cuInit` was not called.
    pub const UNINITIALIZED: u32 = 0;
    /// `cuInit` runs: injected libraries are being initialised.
    pub const INITIALIZING: u32 = 1;
    /// `cuInit` succeeded.
    pub const INITIALIZED: u32 = 2;
    /// Child of a process that had initialised the driver before it forked: CUDA is of no use here.
    pub const FORKED: u32 = 3;
}

/// What the stand-in libcuda shows to the other two.
#[repr(C)]
pub struct Hooks {
    /// Must equal [`ABI`].
    pub abi: u32,
    /// One of [`state`].
    pub state: AtomicU32,
    /// Set by libcupti once it traces; null as long as nobody does, which is the fast path.
    pub tracer: AtomicPtr<Tracer>,
    /// Not 0: every launch fails from now on, as after `cuptiFinalize` of CUPTI 13 with a graph in place.
    pub poisoned: AtomicU32,
    /// Number of graph executables that exist.
    pub graph_execs: AtomicU32,
    /// The context current to this thread, or null.
    pub current_context: extern "C" fn() -> *mut c_void,
    /// Visits each context and each of its streams, the null stream first, as [`Resource`]s of creation.
    pub visit: extern "C" fn(visitor: extern "C" fn(&Resource, *mut c_void), user: *mut c_void),
    /// Number of devices.
    pub device_count: extern "C" fn() -> u32,
    /// `cuDeviceGetAttribute` without a trace; 0 for an unknown attribute.
    pub device_attribute: extern "C" fn(attribute: u32) -> i32,
    /// Name of the device, UUID of device `ordinal`, memory in bytes.
    pub device_identity: extern "C" fn(ordinal: u32, uuid: &mut [u8; 16], memory: &mut u64) -> *const c_char,
}

/// What libcupti lets itself be told. Called on the thread that makes the CUDA call, with no lock of libcuda held.
#[repr(C)]
pub struct Tracer {
    /// An API call begins.
    pub enter: extern "C" fn(&ApiCall),
    /// The same API call ends.
    pub exit: extern "C" fn(&ApiCall, Status),
    /// Work was given to the GPU.
    pub submitted: extern "C" fn(&Submission),
    /// The host waited for the GPU, or a stream was told to wait for an event.
    pub synchronized: extern "C" fn(&Synchronization),
    /// Something was created or is about to be destroyed.
    pub resource: extern "C" fn(&Resource),
}

/// One call of a driver or runtime function.
#[repr(C)]
pub struct ApiCall {
    /// `CUPTI_CB_DOMAIN_DRIVER_API` (1) or `CUPTI_CB_DOMAIN_RUNTIME_API` (2).
    pub domain: u32,
    /// Callback id of the function.
    pub cbid: u32,
    /// Name of the function.
    pub name: *const c_char,
    /// The arguments, in order, laid out as a C struct.
    pub params: *const c_void,
    /// Name of the kernel if this is a launch, else null.
    pub symbol: *const c_char,
    /// The tracer's own, kept from enter to exit.
    pub scratch: Scratch,
}

/// What a tracer keeps during one call.
#[repr(C)]
#[derive(Default)]
pub struct Scratch {
    /// When the call began.
    pub start_ns: Cell<u64>,
    /// The word that CUPTI lends a subscriber from enter to exit.
    pub correlation_data: Cell<u64>,
    /// Correlation id of the call.
    pub correlation: Cell<u32>,
    /// 1 if the call is not nested in another one.
    pub outermost: Cell<u32>,
}

/// Work for one stream: one operation, or all operations of a graph launch.
#[repr(C)]
pub struct Submission {
    /// The operations, in the order they run.
    pub ops: *const Op,
    /// How many.
    pub count: usize,
    /// Unix time in nanoseconds from which the operations' offsets count.
    pub base_ns: u64,
    /// Device, context and stream that run it.
    pub device: u32,
    /// See `device`.
    pub context: u32,
    /// See `device`.
    pub stream: u32,
    /// Id of the graph executable, 0 without a graph.
    pub graph_exec: u32,
}

/// Kinds of [`Op`].
pub mod op {
    /// A kernel.
    pub const KERNEL: u32 = 0;
    /// A copy within a device or between host and device.
    pub const MEMCPY: u32 = 1;
    /// A copy between devices.
    pub const MEMCPY_PEER: u32 = 2;
    /// A fill.
    pub const MEMSET: u32 = 3;
}

/// One operation of the GPU. Immutable once made: a graph hands out the same array at each launch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Op {
    /// One of [`op`].
    pub kind: u32,
    /// Launch priority of the stream.
    pub priority: i32,
    /// Begin, relative to the submission's base.
    pub offset_ns: u64,
    /// How long it runs.
    pub duration_ns: u64,
    /// Node of the graph executable, its id in the upper 32 bits; 0 without a graph.
    pub graph_node: u64,
    /// Node of the captured graph; 0 without a graph.
    pub source_node: u64,
    /// Id of the captured graph; 0 without a graph.
    pub source_graph: u32,
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: u32,
    /// The kernel, null for all else.
    pub kernel: *const Kernel,
    /// Launch configuration.
    pub grid: [u32; 3],
    /// See `grid`.
    pub block: [u32; 3],
    /// See `grid`; zeros without clusters.
    pub cluster: [u32; 3],
    /// Value of a fill.
    pub value: u32,
    /// Bytes copied or filled.
    pub bytes: u64,
    /// `CUpti_ActivityMemcpyKind` of a copy.
    pub copy_kind: u8,
    /// `CUpti_ActivityMemoryKind` of the source.
    pub src_kind: u8,
    /// `CUpti_ActivityMemoryKind` of the destination.
    pub dst_kind: u8,
    /// Devices and contexts of a peer copy.
    pub src_device: u32,
    /// See `src_device`.
    pub src_context: u32,
    /// See `src_device`.
    pub dst_device: u32,
    /// See `src_device`.
    pub dst_context: u32,
}

impl Op {
    /// An operation with every field zero.
    pub const EMPTY: Op = Op {
        kind: op::KERNEL,
        priority: 0,
        offset_ns: 0,
        duration_ns: 0,
        graph_node: 0,
        source_node: 0,
        source_graph: 0,
        dynamic_shared: 0,
        kernel: std::ptr::null(),
        grid: [0; 3],
        block: [0; 3],
        cluster: [0; 3],
        value: 0,
        bytes: 0,
        copy_kind: 0,
        src_kind: 0,
        dst_kind: 0,
        src_device: 0,
        src_context: 0,
        dst_device: 0,
        dst_context: 0,
    };
}

// SAFETY: the one pointer leads to a `Kernel`, which is never changed and never freed.
unsafe impl Send for Op {}
// SAFETY: as above.
unsafe impl Sync for Op {}

/// What is known of a kernel before it is launched. Never freed, so that names in records stay valid.
#[repr(C)]
pub struct Kernel {
    /// Mangled name.
    pub name: *const c_char,
    /// Counts up from 1 in the order of `cuModuleGetFunction`.
    pub id: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory in bytes.
    pub static_shared: u32,
    /// Local memory of a thread in bytes.
    pub local: u32,
}

// SAFETY: the name is never changed and never freed.
unsafe impl Sync for Kernel {}
// SAFETY: as above.
unsafe impl Send for Kernel {}

/// Kinds of [`Synchronization`], numbered as `CUpti_ActivitySynchronizationType`.
pub mod sync {
    /// `cuEventSynchronize`.
    pub const EVENT: u32 = 1;
    /// `cuStreamWaitEvent`.
    pub const STREAM_WAIT_EVENT: u32 = 2;
    /// `cuStreamSynchronize`.
    pub const STREAM: u32 = 3;
    /// `cuCtxSynchronize`.
    pub const CONTEXT: u32 = 4;
}

/// A wait that is over.
#[repr(C)]
pub struct Synchronization {
    /// One of [`sync`].
    pub kind: u32,
    /// Context.
    pub context: u32,
    /// Stream, `u32::MAX` if none.
    pub stream: u32,
    /// Event, `u32::MAX` if none.
    pub event: u32,
    /// Unix nanoseconds.
    pub start_ns: u64,
    /// Unix nanoseconds.
    pub end_ns: u64,
}

/// Something created, or about to be destroyed. Unused fields are zero.
#[repr(C)]
pub struct Resource {
    /// `CUpti_CallbackIdResource`.
    pub cbid: u32,
    /// Ids.
    pub device: u32,
    /// See `device`.
    pub context_id: u32,
    /// Id of the stream; of the null stream when a context is created.
    pub stream_id: u32,
    /// Priority of the stream.
    pub priority: i32,
    /// `CUpti_ActivityStreamFlag` of the stream.
    pub stream_flag: u32,
    /// Handles, as the API gives them.
    pub context: *mut c_void,
    /// See `context`.
    pub stream: *mut c_void,
    /// See `context`.
    pub graph: *mut c_void,
    /// The graph that `graph` was cloned from.
    pub original_graph: *mut c_void,
    /// See `context`.
    pub node: *mut c_void,
    /// The node that `node` was cloned from.
    pub original_node: *mut c_void,
    /// `CUgraphNodeType` of the node.
    pub node_type: u32,
    /// Id of the executable.
    pub graph_exec_id: u32,
    /// See `context`.
    pub graph_exec: *mut c_void,
}

impl Resource {
    /// A resource callback with every other field empty.
    pub fn of(cbid: u32) -> Resource {
        let null = std::ptr::null_mut();
        Resource {
            cbid,
            device: 0,
            context_id: 0,
            stream_id: 0,
            priority: 0,
            stream_flag: 0,
            context: null,
            stream: null,
            graph: null,
            original_graph: null,
            node: null,
            original_node: null,
            node_type: 0,
            graph_exec_id: 0,
            graph_exec: null,
        }
    }
}

/// What every handle of the stand-in driver points to first, so that libcupti can tell its id.
#[repr(C)]
pub struct Header {
    /// Which kind of object: see [`magic`].
    pub magic: u32,
    /// The device of a context; 0 for all else.
    pub device: u32,
    /// The id that CUPTI shows.
    pub id: u64,
}

/// Values of [`Header::magic`].
pub mod magic {
    #![expect(missing_docs, reason = "one for each kind of handle")]
    pub const CONTEXT: u32 = 0xC0_1001;
    pub const STREAM: u32 = 0xC0_1002;
    pub const EVENT: u32 = 0xC0_1003;
    pub const MODULE: u32 = 0xC0_1004;
    pub const FUNCTION: u32 = 0xC0_1005;
    pub const GRAPH: u32 = 0xC0_1006;
    pub const GRAPH_EXEC: u32 = 0xC0_1007;
    pub const GRAPH_NODE: u32 = 0xC0_1008;
}

/// Unix time in nanoseconds, the clock of all timestamps (and of CUPTI's on Linux).
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
