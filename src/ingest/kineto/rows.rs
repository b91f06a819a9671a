//! Events become rows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::annotations::{Annotation, LaunchPaths};
use super::events::{Event, Head};
use crate::schema::manifest::ProcessId;
use crate::schema::names::short_name;
use crate::schema::tables::{
    ApiCallRow, ApiCallsBuilder, DeviceRow, DevicesBuilder, KernelRow, KernelsBuilder, MemcpyRow, MemcpysBuilder,
    MemsetRow, MemsetsBuilder, NvtxRangeRow, NvtxRangesBuilder, SynchronizationRow, SynchronizationsBuilder,
};
use crate::session::{Recorder, Rows, SessionError};

/// The rows of a trace that were not written yet.
pub(super) struct Collected<'a> {
    head: &'a Head,
    paths: LaunchPaths<'a>,
    process: ProcessId,
    window: u32,
    kernels: Rows<KernelsBuilder>,
    memcpys: Rows<MemcpysBuilder>,
    memsets: Rows<MemsetsBuilder>,
    syncs: Rows<SynchronizationsBuilder>,
    calls: Rows<ApiCallsBuilder>,
    lost: BTreeMap<&'static str, u64>,
}

/// What all work of a GPU has.
struct Work {
    start_ns: i64,
    end_ns: i64,
    device_id: u32,
    context_id: u32,
    stream_id: u32,
    correlation_id: u32,
    graph_id: Option<u32>,
    graph_node_id: Option<u64>,
}

impl<'a> Collected<'a> {
    pub(super) fn new(head: &'a Head, paths: LaunchPaths<'a>, process: ProcessId, window: u32) -> Self {
        Self {
            head,
            paths,
            process,
            window,
            kernels: Rows::default(),
            memcpys: Rows::default(),
            memsets: Rows::default(),
            syncs: Rows::default(),
            calls: Rows::default(),
            lost: BTreeMap::new(),
        }
    }

    pub(super) fn event(&mut self, recorder: &mut Recorder, event: &Event) -> Result<(), SessionError> {
        if !event.has_row() {
            return Ok(());
        }
        let table = match event.cat.as_str() {
            "kernel" => "kernels",
            "gpu_memcpy" => "memcpys",
            "gpu_memset" => "memsets",
            "cuda_sync" => "synchronizations",
            _ => "api_calls",
        };
        // A start before 1970 or a negative length is no time.
        let Some(work) = self.work(event) else {
            *self.lost.entry(table).or_default() += 1;
            return Ok(());
        };
        match table {
            "kernels" => self.kernel(recorder, event, &work),
            "memcpys" => self.memcpy(recorder, event, &work),
            "memsets" => self.memset(recorder, event, &work),
            "synchronizations" => self.synchronization(recorder, event, &work),
            _ => self.call(recorder, event, &work),
        }
    }

    /// Writes what is left. Tells how many events of each table had no time.
    pub(super) fn finish(self, recorder: &mut Recorder) -> Result<BTreeMap<&'static str, u64>, SessionError> {
        self.kernels.finish(recorder)?;
        self.memcpys.finish(recorder)?;
        self.memsets.finish(recorder)?;
        self.syncs.finish(recorder)?;
        self.calls.finish(recorder)?;
        Ok(self.lost)
    }

    /// The GPUs. What Kineto does not tell is 0, and occupancy is then unknown.
    pub(super) fn devices(&self, recorder: &mut Recorder) -> Result<(), SessionError> {
        let mut rows = Rows::<DevicesBuilder>::default();
        for device in &self.head.devices {
            let row = DeviceRow {
                pid: self.process.pid,
                device_id: device.id,
                name: &device.name,
                uuid: None,
                compute_major: device.compute_major,
                compute_minor: device.compute_minor,
                sm_count: device.num_sms,
                max_threads_per_sm: device.max_threads_per_multiprocessor,
                max_blocks_per_sm: 0,
                registers_per_sm: device.regs_per_multiprocessor,
                shared_bytes_per_sm: device.shared_mem_per_multiprocessor,
                reserved_shared_bytes_per_block: 0,
                warp_size: device.warp_size,
                l2_bytes: 0,
                memory_bytes: device.total_global_mem,
                memory_bandwidth_bytes_per_s: None,
                clock_khz: 0,
            };
            rows.push(recorder, self.process, row)?;
        }
        rows.finish(recorder)
    }

    /// The ranges.
    pub(super) fn ranges<'b>(
        &mut self,
        recorder: &mut Recorder,
        annotations: impl Iterator<Item = &'b Annotation>,
    ) -> Result<(), SessionError> {
        let mut rows = Rows::<NvtxRangesBuilder>::default();
        for range in annotations {
            let start_ns = self.head.unix_ns(range.start_us);
            let end_ns = range.end_us.map(|end| self.head.unix_ns(end));
            if start_ns <= 0 || end_ns.is_some_and(|end_ns| end_ns < start_ns) {
                *self.lost.entry("nvtx_ranges").or_default() += 1;
                continue;
            }
            let row = NvtxRangeRow {
                pid: self.process.pid,
                thread_id: range.thread_id,
                domain: range.domain.as_deref(),
                name: &range.name,
                category: None,
                payload: None,
                kind: "push_pop",
                depth: range.depth,
                path: &range.path,
                start_ns,
                end_ns,
                start_correlation_id: None,
                end_correlation_id: None,
                window: self.window,
            };
            rows.push(recorder, self.process, row)?;
        }
        rows.finish(recorder)
    }

    fn work(&self, event: &Event) -> Option<Work> {
        let small = |name: &str| u32::try_from(event.args[name].as_u64().unwrap_or(0)).unwrap_or(0);
        let start_ns = self.head.unix_ns(event.ts);
        // Not from the end, so that lengths are exact.
        let length_ns = (event.dur_us()? * 1000.0).round() as i64;
        let end_ns = start_ns.checked_add(length_ns)?;
        let graph_id = Some(small("graph id")).filter(|&id| id != 0);
        (start_ns > 0 && end_ns >= start_ns).then(|| Work {
            start_ns,
            end_ns,
            device_id: small("device"),
            context_id: small("context"),
            stream_id: small("stream"),
            correlation_id: small("correlation"),
            graph_id,
            graph_node_id: event.args["graph node id"].as_u64().filter(|_| graph_id.is_some()),
        })
    }

    fn kernel(&mut self, recorder: &mut Recorder, event: &Event, work: &Work) -> Result<(), SessionError> {
        let name = event.name.as_str().unwrap_or("unknown");
        let axis = |which: &str, axis: usize| {
            let size = event.args[which][axis].as_i64().unwrap_or(1);
            i32::try_from(size).unwrap_or(i32::MAX)
        };
        let number = |name: &str| u32::try_from(event.args[name].as_u64().unwrap_or(0)).unwrap_or(0);
        let row = KernelRow {
            pid: self.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            name,
            short_name: short_name(name),
            mangled_name: name,
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            correlation_id: work.correlation_id,
            graph_id: work.graph_id,
            graph_node_id: work.graph_node_id,
            grid_x: axis("grid", 0),
            grid_y: axis("grid", 1),
            grid_z: axis("grid", 2),
            block_x: axis("block", 0),
            block_y: axis("block", 1),
            block_z: axis("block", 2),
            cluster_x: 0,
            cluster_y: 0,
            cluster_z: 0,
            registers_per_thread: number("registers per thread"),
            // Kineto gives the sum of both.
            static_shared_bytes: 0,
            dynamic_shared_bytes: number("shared memory"),
            local_bytes_per_thread: 0,
            priority: event.args["priority"]
                .as_i64()
                .and_then(|value| i32::try_from(value).ok()),
            window: self.window,
            nvtx_path: self.paths.of(work.correlation_id),
            launch_nvtx_path: self.paths.of(work.correlation_id),
            layer: None,
            layer_source: None,
            waves: None,
            theoretical_occupancy_pct: None,
        };
        self.kernels.push(recorder, self.process, row)
    }

    /// `Memcpy HtoD (Pinned -> Device)`.
    fn memcpy(&mut self, recorder: &mut Recorder, event: &Event, work: &Work) -> Result<(), SessionError> {
        let name = event.name.as_str().unwrap_or_default();
        let copy_kind = name.split(' ').nth(1).unwrap_or("unknown");
        let (src, dst) = in_brackets(name).split_once(" -> ").unwrap_or_default();
        let row = MemcpyRow {
            pid: self.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            copy_kind,
            src_kind: &memory_kind(src),
            dst_kind: &memory_kind(dst),
            bytes: event.args["bytes"].as_u64().unwrap_or(0),
            is_async: None,
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            src_device_id: None,
            dst_device_id: None,
            correlation_id: work.correlation_id,
            graph_id: work.graph_id,
            graph_node_id: work.graph_node_id,
            window: self.window,
        };
        self.memcpys.push(recorder, self.process, row)
    }

    fn memset(&mut self, recorder: &mut Recorder, event: &Event, work: &Work) -> Result<(), SessionError> {
        let row = MemsetRow {
            pid: self.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            value: 0,
            bytes: event.args["bytes"].as_u64().unwrap_or(0),
            memory_kind: &memory_kind(in_brackets(event.name.as_str().unwrap_or_default())),
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            correlation_id: work.correlation_id,
            graph_id: work.graph_id,
            graph_node_id: work.graph_node_id,
            window: self.window,
        };
        self.memsets.push(recorder, self.process, row)
    }

    fn synchronization(&mut self, recorder: &mut Recorder, event: &Event, work: &Work) -> Result<(), SessionError> {
        // `Stream Sync`, or `Stream Synchronize`.
        let kind = event.args["cuda_sync_kind"].as_str().unwrap_or_default();
        let sync_kind = match kind.split_once(" Sync").map_or(kind, |(of, _)| of) {
            "Event" => "event",
            "Stream Wait Event" => "stream_wait_event",
            "Stream" => "stream",
            "Context" => "context",
            _ => "unknown",
        };
        // An id that is none is -1. Under `stream`, what colonel exports would count as work of the GPU.
        let id = |name: &str| event.args[name].as_u64().and_then(|id| u32::try_from(id).ok());
        let stream = id("stream").or_else(|| id("sync stream"));
        let row = SynchronizationRow {
            pid: self.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            sync_kind,
            context_id: work.context_id,
            stream_id: stream.filter(|_| sync_kind != "context"),
            event_id: id("wait_on_cuda_event_id"),
            correlation_id: work.correlation_id,
            window: self.window,
        };
        self.syncs.push(recorder, self.process, row)
    }

    fn call(&mut self, recorder: &mut Recorder, event: &Event, work: &Work) -> Result<(), SessionError> {
        let thread = event.tid.as_ref().and_then(Value::as_u64).unwrap_or(0);
        let row = ApiCallRow {
            pid: self.process.pid,
            thread_id: u32::try_from(thread).unwrap_or(u32::MAX),
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            api: if event.cat == "cuda_driver" {
                "driver"
            } else {
                "runtime"
            },
            name: event.name.as_str().unwrap_or("unknown"),
            cbid: u32::try_from(event.args["cbid"].as_u64().unwrap_or(0)).unwrap_or(0),
            correlation_id: work.correlation_id,
            return_value: 0,
            window: self.window,
        };
        self.calls.push(recorder, self.process, row)
    }
}

fn in_brackets(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    inner.map_or("", |(inner, _)| inner)
}

/// `Device Static` is our `device_static`.
fn memory_kind(kind: &str) -> String {
    match kind {
        "" => "unknown".to_owned(),
        kind => kind.to_lowercase().replace(' ', "_"),
    }
}
