//! Records to rows: one builder a table, what is no row counted as lost.

use std::collections::BTreeMap;

use cupti_sys::constants::*;
use cupti_sys::names;
use cupti_sys::records::{
    Api, Context, KERNEL_PRIORITY_SINCE, Kernel, Memcpy, MemcpyPeer, Memset, Overhead, Stream, Synchronization, View,
};

use crate::inject::decode::Sink;
use crate::inject::kernels::{Kernels, Launch, Signature};
use crate::inject::losses::{Losses, Reason};
use crate::inject::names::Names;
use crate::inject::windows::WindowFinder;
use crate::schema::columns::TableBuilder;
use crate::schema::tables::*;

/// Rows of every table that come from activity records.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) kernels: Kernels,
    pub(crate) memcpys: MemcpysBuilder,
    pub(crate) memsets: MemsetsBuilder,
    pub(crate) synchronizations: SynchronizationsBuilder,
    pub(crate) api_calls: ApiCallsBuilder,
    pub(crate) overheads: OverheadsBuilder,
    pub(crate) contexts: ContextsBuilder,
    pub(crate) streams: StreamsBuilder,
    pub(crate) nvtx_ranges: NvtxRangesBuilder,
    pub(crate) graph_ranges: GraphRangesBuilder,
}

impl Rows {
    /// Rows collected since the last seal, all tables.
    pub(crate) fn len(&self) -> usize {
        self.kernels.len()
            + self.memcpys.len()
            + self.memsets.len()
            + self.synchronizations.len()
            + self.api_calls.len()
            + self.overheads.len()
            + self.contexts.len()
            + self.streams.len()
            + self.nvtx_ranges.len()
            + self.graph_ranges.len()
    }
}

/// Looks up an API function's name; asked once a function.
pub(crate) type ApiName = fn(domain: u32, cbid: u32) -> Option<String>;

/// What turns records into rows.
#[derive(Debug)]
pub(crate) struct Converter<'a> {
    pub(crate) pid: u32,
    pub(crate) api_version: u32,
    /// Added to CUPTI's timestamps to give Unix time.
    pub(crate) clock_offset_ns: i64,
    pub(crate) rows: &'a mut Rows,
    pub(crate) names: &'a mut Names,
    pub(crate) api_names: &'a mut BTreeMap<(u32, u32), String>,
    pub(crate) api_name: ApiName,
    pub(crate) windows: &'a WindowFinder,
    pub(crate) losses: &'a Losses,
    pub(crate) received: &'a mut BTreeMap<&'static str, u64>,
    pub(crate) outside_windows: &'a mut u64,
    /// Start of the latest kernel among those, Unix ns.
    pub(crate) latest_outside_ns: &'a mut i64,
    /// Threads of the guest, whose calls are not the program's.
    pub(crate) own_threads: &'a [u32],
    /// Ranges are marked by the same call as windows are; which of them is whose can't be told.
    pub(crate) marks_ranges: bool,
}

/// A record's place in time, checked.
struct Placed {
    start_ns: i64,
    end_ns: i64,
    window: u32,
}

impl Converter<'_> {
    /// A record with a zero or reversed timestamp is no row but a loss; one outside every window is neither.
    fn place(&mut self, table: &'static str, start: u64, end: u64, correlation_id: u32) -> Option<Placed> {
        if start == TIMESTAMP_UNKNOWN || end < start {
            // Its launch says whether it would have been a row.
            match self.windows.find(correlation_id, crate::inject::threads::now_ns()) {
                Some(_) => self.losses.add(table, Reason::InvalidTimestamp, Some(1)),
                None => *self.outside_windows += 1,
            }
            return None;
        }
        let start_ns = start.cast_signed().saturating_add(self.clock_offset_ns);
        let end_ns = end.cast_signed().saturating_add(self.clock_offset_ns);
        let Some(window) = self.windows.find(correlation_id, start_ns) else {
            *self.outside_windows += 1;
            if table == "kernels" {
                *self.latest_outside_ns = start_ns.max(*self.latest_outside_ns);
            }
            return None;
        };
        self.receive(table);
        Some(Placed {
            start_ns,
            end_ns,
            window,
        })
    }

    fn receive(&mut self, table: &'static str) {
        *self.received.entry(table).or_default() += 1;
    }
}

fn graph(graph_id: u32, graph_node_id: u64) -> (Option<u32>, Option<u64>) {
    let in_graph = graph_node_id != 0;
    (in_graph.then_some(graph_id), in_graph.then_some(graph_node_id))
}

impl Sink for Converter<'_> {
    fn kernel(&mut self, record: View<'_, Kernel>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("kernels", record.start(), record.end(), correlation_id) else {
            return;
        };
        // SAFETY: CUPTI's names are zero-terminated and outlive the buffer that points to them.
        let name = unsafe { self.names.resolve(record.name()) };
        let graph_node_id = record.graph_node_id();
        let launch = Launch {
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            correlation_id,
            graph_node_id,
            window: placed.window,
        };
        let signature = Signature {
            name,
            device_id: record.device_id(),
            context_id: record.context_id(),
            stream_id: record.stream_id(),
            graph_id: if graph_node_id == 0 { 0 } else { record.graph_id() },
            grid: [record.grid_x(), record.grid_y(), record.grid_z()],
            block: [record.block_x(), record.block_y(), record.block_z()],
            cluster: [record.cluster_x(), record.cluster_y(), record.cluster_z()],
            registers_per_thread: u32::from(record.registers_per_thread()),
            static_shared_bytes: record.static_shared_memory().cast_unsigned(),
            dynamic_shared_bytes: record.dynamic_shared_memory().cast_unsigned(),
            local_bytes_per_thread: record.local_memory_per_thread(),
            priority: (self.api_version >= KERNEL_PRIORITY_SINCE).then(|| record.priority()),
        };
        self.rows.kernels.push(launch, signature);
    }

    fn memcpy(&mut self, record: View<'_, Memcpy>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("memcpys", record.start(), record.end(), correlation_id) else {
            return;
        };
        let (graph_id, graph_node_id) = graph(record.graph_id(), record.graph_node_id());
        self.rows.memcpys.push(MemcpyRow {
            pid: self.pid,
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            copy_kind: names::memcpy_kind_name(record.copy_kind()),
            src_kind: names::memory_kind_name(record.src_kind().into()),
            dst_kind: names::memory_kind_name(record.dst_kind().into()),
            bytes: record.bytes(),
            is_async: Some(u32::from(record.flags()) & FLAG_MEMCPY_ASYNC != 0),
            device_id: record.device_id(),
            context_id: record.context_id(),
            stream_id: record.stream_id(),
            src_device_id: None,
            dst_device_id: None,
            correlation_id,
            graph_id,
            graph_node_id,
            window: placed.window,
        });
    }

    fn memcpy_peer(&mut self, record: View<'_, MemcpyPeer>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("memcpys", record.start(), record.end(), correlation_id) else {
            return;
        };
        let (graph_id, graph_node_id) = graph(record.graph_id(), record.graph_node_id());
        self.rows.memcpys.push(MemcpyRow {
            pid: self.pid,
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            copy_kind: names::memcpy_kind_name(record.copy_kind()),
            src_kind: names::memory_kind_name(record.src_kind().into()),
            dst_kind: names::memory_kind_name(record.dst_kind().into()),
            bytes: record.bytes(),
            is_async: Some(u32::from(record.flags()) & FLAG_MEMCPY_ASYNC != 0),
            device_id: record.device_id(),
            context_id: record.context_id(),
            stream_id: record.stream_id(),
            src_device_id: Some(record.src_device_id()),
            dst_device_id: Some(record.dst_device_id()),
            correlation_id,
            graph_id,
            graph_node_id,
            window: placed.window,
        });
    }

    fn memset(&mut self, record: View<'_, Memset>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("memsets", record.start(), record.end(), correlation_id) else {
            return;
        };
        let (graph_id, graph_node_id) = graph(record.graph_id(), record.graph_node_id());
        self.rows.memsets.push(MemsetRow {
            pid: self.pid,
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            value: record.value(),
            bytes: record.bytes(),
            memory_kind: names::memory_kind_name(record.memory_kind()),
            device_id: record.device_id(),
            context_id: record.context_id(),
            stream_id: record.stream_id(),
            correlation_id,
            graph_id,
            graph_node_id,
            window: placed.window,
        });
    }

    fn synchronization(&mut self, record: View<'_, Synchronization>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("synchronizations", record.start(), record.end(), correlation_id) else {
            return;
        };
        let known = |id: u32| (id != SYNCHRONIZATION_INVALID_VALUE).then_some(id);
        self.rows.synchronizations.push(SynchronizationRow {
            pid: self.pid,
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            sync_kind: names::sync_kind_name(record.sync_type()),
            context_id: record.context_id(),
            stream_id: known(record.stream_id()),
            event_id: known(record.cuda_event_id()),
            correlation_id,
            window: placed.window,
        });
    }

    fn api(&mut self, record: View<'_, Api>) {
        let correlation_id = record.correlation_id();
        let asks_version = record.kind() == KIND_DRIVER && record.cbid() == CBID_DRIVER_CU_DRIVER_GET_VERSION;
        let is_ours = asks_version && (self.marks_ranges || self.windows.is_mark(correlation_id));
        if is_ours || self.own_threads.contains(&record.thread_id()) {
            return;
        }
        let Some(placed) = self.place("api_calls", record.start(), record.end(), correlation_id) else {
            return;
        };
        let (domain, api) = match record.kind() {
            KIND_RUNTIME => (DOMAIN_RUNTIME_API, "runtime"),
            _ => (DOMAIN_DRIVER_API, "driver"),
        };
        let cbid = record.cbid();
        let name = self
            .api_names
            .entry((domain, cbid))
            .or_insert_with(|| (self.api_name)(domain, cbid).unwrap_or_else(|| format!("{api}_{cbid}")));
        self.rows.api_calls.push(ApiCallRow {
            pid: self.pid,
            thread_id: record.thread_id(),
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            api,
            name,
            cbid,
            correlation_id,
            return_value: record.return_value(),
            window: placed.window,
        });
    }

    fn overhead(&mut self, record: View<'_, Overhead>) {
        let correlation_id = record.correlation_id();
        let Some(placed) = self.place("overheads", record.start(), record.end(), correlation_id) else {
            return;
        };
        self.rows.overheads.push(OverheadRow {
            pid: self.pid,
            start_ns: placed.start_ns,
            end_ns: placed.end_ns,
            overhead_kind: names::overhead_kind_name(record.overhead_kind()),
            thread_id: (record.object_kind() == OBJECT_THREAD).then(|| record.object_id().thread_id()),
            correlation_id: (correlation_id != CORRELATION_ID_UNKNOWN).then_some(correlation_id),
            window: placed.window,
        });
    }

    fn context(&mut self, record: View<'_, Context>) {
        self.receive("contexts");
        self.rows.contexts.push(ContextRow {
            pid: self.pid,
            context_id: record.context_id(),
            device_id: record.device_id(),
            null_stream_id: record.null_stream_id().into(),
        });
    }

    fn stream(&mut self, record: View<'_, Stream>) {
        self.receive("streams");
        self.rows.streams.push(StreamRow {
            pid: self.pid,
            context_id: record.context_id(),
            stream_id: record.stream_id(),
            priority: record.priority().cast_signed(),
            stream_kind: names::stream_flag_name(record.flag()),
        });
    }
}
