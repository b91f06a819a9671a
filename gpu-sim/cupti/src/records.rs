//! The records, built in the newest layout and written as far as the version played knows it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use cupti_sys::constants::*;
use cupti_sys::layouts::{Strides, has_field};
use cupti_sys::records::*;
use sim_abi::{ApiCall, Hooks, Kernel as SimKernel, Op, Resource, Submission, now_ns};

use crate::attributes::thread_id;
use crate::buffers::{Writer, lock};
use crate::faults::faults;
use crate::version::api_version;

/// Channels of an H100 as seen there: any small number does.
const COMPUTE_CHANNEL: u32 = 13;
const COPY_CHANNEL: u32 = 15;

/// Bytes of a record of each kind in the version played.
pub(crate) fn strides() -> &'static Strides {
    static STRIDES: OnceLock<Strides> = OnceLock::new();
    STRIDES.get_or_init(|| Strides::new(api_version()))
}

/// Where the end lies in the records of all GPU operations.
pub(crate) const END: Range<usize> = offset_of!(Kernel, end)..offset_of!(Kernel, end) + 8;
const _: () = assert!(END.start == offset_of!(Memcpy, end) && END.start == offset_of!(MemcpyPeer, end));
const _: () = assert!(END.start == offset_of!(Memset, end));
/// Where a kernel's record has its end once more.
pub(crate) const COMPLETED: Range<usize> = offset_of!(Kernel, completed)..offset_of!(Kernel, completed) + 8;

/// Visits the records of a buffer: kind and bytes.
pub(crate) fn each(mut records: &mut [u8], mut visit: impl FnMut(u32, &mut [u8])) {
    while let Some(kind) = records.first_chunk().map(|kind| u32::from_ne_bytes(*kind)) {
        let Some((record, rest)) = strides().get(kind).and_then(|size| records.split_at_mut_checked(size)) else {
            return;
        };
        visit(kind, record);
        records = rest;
    }
}

/// How much later than its end a GPU operation's record is finished.
pub(crate) fn late_ns() -> u64 {
    faults().late_ms.unwrap_or(0) * 1_000_000
}

/// Writes the first bytes of `record`, as many as the version played has.
#[inline]
pub(crate) fn push<R: Record>(writer: &mut Writer<'_>, kind: u32, record: &R, ready_at: u64) {
    if let Some(size) = strides().get(kind) {
        writer.push(&record.as_bytes()[..size], ready_at);
    }
}

/// Where and when an operation ran.
pub(crate) struct Place<'a> {
    pub(crate) submission: &'a Submission,
    pub(crate) correlation: u32,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

pub(crate) fn kernel(op: &Op, place: &Place<'_>, kind: u32) -> Kernel {
    static NEXT_GRID: AtomicI64 = AtomicI64::new(1);
    // SAFETY: operations of this kind carry a kernel, which is never freed.
    let kernel = unsafe { &*op.kernel };
    let [grid, block] = [op.grid, op.block].map(|sides| sides.map(|side| side as i32));
    Kernel {
        kind,
        registers_per_thread: kernel.registers as u16,
        start: place.start,
        end: place.end,
        completed: place.end,
        device_id: place.submission.device,
        context_id: place.submission.context,
        stream_id: place.submission.stream,
        grid_x: grid[0],
        grid_y: grid[1],
        grid_z: grid[2],
        block_x: block[0],
        block_y: block[1],
        block_z: block[2],
        static_shared_memory: kernel.static_shared as i32,
        dynamic_shared_memory: op.dynamic_shared as i32,
        local_memory_per_thread: kernel.local,
        local_memory_total: kernel.local * 132 * 2_048,
        local_memory_total_v2: u64::from(kernel.local) * 132 * 2_048,
        correlation_id: place.correlation,
        grid_id: NEXT_GRID.fetch_add(1, Ordering::Relaxed),
        name: name(kernel),
        launch_type: LAUNCH_REGULAR as u8,
        shared_memory_executed: (kernel.static_shared + op.dynamic_shared + 1_024).next_power_of_two(),
        graph_node_id: op.graph_node,
        graph_id: place.submission.graph_exec,
        channel_id: COMPUTE_CHANNEL,
        channel_type: CHANNEL_COMPUTE,
        cluster_x: op.cluster[0],
        cluster_y: op.cluster[1],
        cluster_z: op.cluster[2],
        priority: op.priority,
        source_graph_id: op.source_graph,
        source_graph_node_id: op.source_node,
        ..Kernel::zeroed()
    }
}

/// The name to show: the kernel's own, unless a fault spoils it.
fn name(kernel: &SimKernel) -> *const c_char {
    static RECORDS: AtomicU64 = AtomicU64::new(0);
    if every(&RECORDS, faults().bad_name) {
        return c"_ZN4cut\xFF\xFEkernel".as_ptr();
    }
    if faults().mangled && kernel.id.is_multiple_of(2) {
        cut_name(kernel)
    } else {
        kernel.name
    }
}

/// The first two thirds of a mangled name, which no longer demangle; another name as it is.
fn cut_name(kernel: &SimKernel) -> *const c_char {
    static CUT: Mutex<Option<HashMap<u32, CString>>> = Mutex::new(None);
    let mut cut = lock(&CUT);
    let name = cut.get_or_insert_default().entry(kernel.id).or_insert_with(|| {
        // SAFETY: the stand-in driver's kernels have a C string for a name, which is never freed.
        let name = unsafe { CStr::from_ptr(kernel.name) }.to_bytes();
        let kept = if name.starts_with(b"_Z") {
            name.len() * 2 / 3
        } else {
            name.len()
        };
        CString::new(&name[..kept]).unwrap_or_default()
    });
    // Not moved when the map grows, and never removed.
    name.as_ptr()
}

/// Counts, and says whether this is one of each `period`; never without a period.
pub(crate) fn every(counter: &AtomicU64, period: Option<u64>) -> bool {
    period.is_some_and(|period| (counter.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(period))
}

pub(crate) fn memcpy(op: &Op, place: &Place<'_>) -> Memcpy {
    Memcpy {
        kind: KIND_MEMCPY,
        copy_kind: op.copy_kind,
        src_kind: op.src_kind,
        dst_kind: op.dst_kind,
        flags: FLAG_MEMCPY_ASYNC as u8,
        bytes: op.bytes,
        start: place.start,
        end: place.end,
        device_id: place.submission.device,
        context_id: place.submission.context,
        stream_id: place.submission.stream,
        correlation_id: place.correlation,
        graph_node_id: op.graph_node,
        graph_id: place.submission.graph_exec,
        channel_id: COPY_CHANNEL,
        channel_type: CHANNEL_ASYNC_MEMCPY,
        copy_count: 1,
        source_graph_id: op.source_graph,
        source_graph_node_id: op.source_node,
        ..Memcpy::zeroed()
    }
}

pub(crate) fn memcpy_peer(op: &Op, place: &Place<'_>) -> MemcpyPeer {
    MemcpyPeer {
        kind: KIND_MEMCPY2,
        copy_kind: op.copy_kind,
        src_kind: op.src_kind,
        dst_kind: op.dst_kind,
        flags: FLAG_MEMCPY_ASYNC as u8,
        bytes: op.bytes,
        start: place.start,
        end: place.end,
        device_id: place.submission.device,
        context_id: place.submission.context,
        stream_id: place.submission.stream,
        src_device_id: op.src_device,
        src_context_id: op.src_context,
        dst_device_id: op.dst_device,
        dst_context_id: op.dst_context,
        correlation_id: place.correlation,
        graph_node_id: op.graph_node,
        graph_id: place.submission.graph_exec,
        channel_id: COPY_CHANNEL,
        channel_type: CHANNEL_ASYNC_MEMCPY,
        ..MemcpyPeer::zeroed()
    }
}

pub(crate) fn memset(op: &Op, place: &Place<'_>) -> Memset {
    Memset {
        kind: KIND_MEMSET,
        value: op.value,
        bytes: op.bytes,
        start: place.start,
        end: place.end,
        device_id: place.submission.device,
        context_id: place.submission.context,
        stream_id: place.submission.stream,
        correlation_id: place.correlation,
        flags: FLAG_MEMSET_ASYNC as u16,
        memory_kind: u16::from(op.dst_kind),
        graph_node_id: op.graph_node,
        graph_id: place.submission.graph_exec,
        channel_id: COMPUTE_CHANNEL,
        channel_type: CHANNEL_COMPUTE,
        source_graph_id: op.source_graph,
        source_graph_node_id: op.source_node,
        ..Memset::zeroed()
    }
}

/// A call that has just returned.
pub(crate) fn api(call: &ApiCall, kind: u32, result: i32) -> Api {
    Api {
        kind,
        cbid: call.cbid,
        start: call.scratch.start_ns.get(),
        end: now_ns(),
        process_id: std::process::id(),
        thread_id: thread_id(),
        correlation_id: call.scratch.correlation.get(),
        return_value: result as u32,
    }
}

pub(crate) fn synchronization(event: &sim_abi::Synchronization, correlation: u32) -> Synchronization {
    Synchronization {
        kind: KIND_SYNCHRONIZATION,
        sync_type: event.kind,
        start: event.start_ns,
        end: event.end_ns,
        correlation_id: correlation,
        context_id: event.context,
        stream_id: event.stream,
        cuda_event_id: event.event,
        ..Synchronization::zeroed()
    }
}

pub(crate) fn overhead(overhead_kind: u32, start: u64, end: u64) -> Overhead {
    Overhead {
        kind: KIND_OVERHEAD,
        overhead_kind,
        object_kind: OBJECT_PROCESS,
        object_id: ObjectId([std::process::id(), 0, 0]),
        start,
        end,
        ..Overhead::zeroed()
    }
}

pub(crate) fn context(resource: &Resource) -> Context {
    Context {
        kind: KIND_CONTEXT,
        context_id: resource.context_id,
        device_id: resource.device,
        compute_api_kind: 1, // CUDA
        null_stream_id: resource.stream_id as u16,
        // Padding before 12.5, which the real one leaves zero.
        num_multiprocessors: if has_field(KIND_CONTEXT, "numMultiprocessors", api_version()) {
            132
        } else {
            0
        },
        process_id: u64::from(std::process::id()),
        ..Context::zeroed()
    }
}

pub(crate) fn stream(resource: &Resource, correlation: u32) -> Stream {
    Stream {
        kind: KIND_STREAM,
        context_id: resource.context_id,
        stream_id: resource.stream_id,
        priority: resource.priority as u32,
        flag: resource.stream_flag,
        correlation_id: correlation,
    }
}

pub(crate) fn device(hooks: &Hooks, ordinal: u32) -> Device {
    let (mut uuid, mut memory) = ([0; 16], 0);
    let name = (hooks.device_identity)(ordinal, &mut uuid, &mut memory);
    let attribute = |id| (hooks.device_attribute)(id) as u32;
    let bandwidth = 2 * u64::from(attribute(36)) * u64::from(attribute(37)) / 8;
    Device {
        kind: KIND_DEVICE,
        flags: FLAG_DEVICE_CONCURRENT_KERNELS,
        global_memory_bandwidth: bandwidth,
        global_memory_size: memory,
        constant_memory_size: attribute(9),
        l2_cache_size: attribute(38),
        num_threads_per_warp: attribute(10),
        core_clock_rate: attribute(13),
        num_memcpy_engines: attribute(40),
        num_multiprocessors: attribute(16),
        max_warps_per_multiprocessor: attribute(39) / attribute(10).max(1),
        max_blocks_per_multiprocessor: attribute(106),
        max_shared_memory_per_multiprocessor: attribute(81),
        max_registers_per_multiprocessor: attribute(82),
        max_registers_per_block: attribute(12),
        max_shared_memory_per_block: attribute(8),
        max_threads_per_block: attribute(1),
        max_block_dim_x: attribute(2),
        max_block_dim_y: attribute(3),
        max_block_dim_z: attribute(4),
        max_grid_dim_x: attribute(5),
        max_grid_dim_y: attribute(6),
        max_grid_dim_z: attribute(7),
        compute_capability_major: attribute(75),
        compute_capability_minor: attribute(76),
        id: ordinal,
        ecc_enabled: attribute(32),
        uuid,
        // SAFETY: a C string of the driver's; the client frees the copy.
        name: unsafe { libc::strdup(name) },
        is_cuda_visible: 1,
        num_tpcs: attribute(16) / 2,
        ..Device::zeroed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_each_period_and_none_without() {
        let counter = AtomicU64::new(0);
        let hits: Vec<_> = (0..6).map(|_| every(&counter, Some(3))).collect();
        assert_eq!(hits, [false, false, true, false, false, true]);
        assert!(!every(&counter, None));
    }

    #[test]
    fn a_graph_kernel_carries_its_graph_and_node() {
        let sim = SimKernel {
            name: c"gemm".as_ptr(),
            id: 1,
            registers: 96,
            static_shared: 1_024,
            local: 0,
        };
        let op = Op {
            graph_node: 5 << 32 | 7,
            source_node: 4 << 32 | 7,
            source_graph: 4,
            ..Op::EMPTY
        };
        let op = Op {
            kernel: &raw const sim,
            grid: [1, 2, 3],
            block: [128, 1, 1],
            ..op
        };
        let submission = Submission {
            ops: &raw const op,
            count: 1,
            base_ns: 0,
            device: 1,
            context: 2,
            stream: 13,
            graph_exec: 5,
        };
        let place = Place {
            submission: &submission,
            correlation: 77,
            start: 10,
            end: 20,
        };

        let record = kernel(&op, &place, KIND_CONCURRENT_KERNEL);
        assert_eq!(u64::from(record.graph_id), record.graph_node_id >> 32);
        assert_eq!(
            (record.grid_y, record.block_x, record.registers_per_thread),
            (2, 128, 96)
        );
        assert_eq!((record.device_id, record.context_id, record.stream_id), (1, 2, 13));
        assert_eq!((record.start, record.end, record.correlation_id), (10, 20, 77));
        assert!(kernel(&op, &place, KIND_CONCURRENT_KERNEL).grid_id > record.grid_id);
    }
}
