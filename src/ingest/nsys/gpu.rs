//! What ran on the GPU: kernels, copies, fills, and waits for it.

use std::collections::HashMap;
use std::rc::Rc;

use super::database::{Cells, Database, Wanted};
use super::nvtx::LaunchPaths;
use super::{Lost, are_times, maybe_small, process_of, small};
use crate::ingest::IngestError;
use crate::schema::manifest::ProcessId;
use crate::schema::names::Name;
use crate::schema::tables::{
    KernelRow, KernelsBuilder, MemcpyRow, MemcpysBuilder, MemsetRow, MemsetsBuilder, SynchronizationRow,
    SynchronizationsBuilder,
};
use crate::session::{Recorder, Rows};

pub(super) const KERNELS: &str = "CUPTI_ACTIVITY_KIND_KERNEL";
pub(super) const MEMCPYS: &str = "CUPTI_ACTIVITY_KIND_MEMCPY";
pub(super) const MEMSETS: &str = "CUPTI_ACTIVITY_KIND_MEMSET";
pub(super) const SYNCHRONIZATIONS: &str = "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION";
pub(super) const WHOLE_GRAPHS: &str = "CUPTI_ACTIVITY_KIND_GRAPH_TRACE";

/// The columns that every one of the tables has, in this order.
const START: usize = 0;
const END: usize = 1;
const GLOBAL_PID: usize = 2;
const DEVICE: usize = 3;
const CONTEXT: usize = 4;
const STREAM: usize = 5;
const CORRELATION: usize = 6;
const GRAPH_NODE: usize = 7;
/// The first of a table's own.
const OWN: usize = 8;

const COMMON: [Wanted; OWN] = [
    ("start", true),
    ("end", true),
    ("globalPid", true),
    ("deviceId", true),
    ("contextId", true),
    ("streamId", true),
    ("correlationId", true),
    ("graphNodeId", false),
];

/// What the tables have in common.
struct Work {
    process: ProcessId,
    start_ns: i64,
    end_ns: i64,
    device_id: u32,
    context_id: u32,
    stream_id: u32,
    correlation_id: u32,
    graph_node_id: Option<u64>,
}

impl Work {
    fn read(database: &Database, cells: &Cells<'_>) -> rusqlite::Result<Self> {
        let time = |column| Ok::<_, rusqlite::Error>(cells.integer(column)?.map_or(0, |time| database.unix_ns(time)));
        Ok(Self {
            process: process_of(cells.integer(GLOBAL_PID)?.unwrap_or_default()),
            start_ns: time(START)?,
            end_ns: time(END)?,
            device_id: small(cells, DEVICE)?,
            context_id: small(cells, CONTEXT)?,
            stream_id: small(cells, STREAM)?,
            correlation_id: small(cells, CORRELATION)?,
            graph_node_id: cells
                .integer(GRAPH_NODE)?
                .map(i64::cast_unsigned)
                .filter(|&node| node != 0),
        })
    }

    fn has_times(&self) -> bool {
        are_times(self.start_ns, self.end_ns)
    }

    /// As CUPTI makes the ids of nodes.
    fn graph_id(&self) -> Option<u32> {
        self.graph_node_id.and_then(|node| u32::try_from(node >> 32).ok())
    }
}

fn wanted(own: &[Wanted]) -> Vec<Wanted> {
    COMMON.iter().chain(own).copied().collect()
}

pub(super) fn ingest(
    database: &Database,
    recorder: &mut Recorder,
    window: u32,
    paths: &LaunchPaths,
    lost: &mut Lost,
) -> Result<(), IngestError> {
    kernels(database, recorder, window, paths, lost)?;
    memcpys(database, recorder, window, lost)?;
    memsets(database, recorder, window, lost)?;
    synchronizations(database, recorder, window, lost)
}

fn kernels(
    database: &Database,
    recorder: &mut Recorder,
    window: u32,
    paths: &LaunchPaths,
    lost: &mut Lost,
) -> Result<(), IngestError> {
    const COLUMNS: [Wanted; 17] = [
        ("mangledName", false),
        ("demangledName", true),
        ("gridX", true),
        ("gridY", true),
        ("gridZ", true),
        ("blockX", true),
        ("blockY", true),
        ("blockZ", true),
        ("clusterX", false),
        ("clusterY", false),
        ("clusterZ", false),
        ("registersPerThread", false),
        ("staticSharedMemory", false),
        ("dynamicSharedMemory", false),
        ("localMemoryPerThread", false),
        ("graphId", false),
        ("priority", false),
    ];
    let mut names: HashMap<i64, Rc<Name>> = HashMap::new();
    let mut rows = Rows::<KernelsBuilder>::default();
    database.each(KERNELS, &wanted(&COLUMNS), "", |cells| {
        let work = Work::read(database, cells)?;
        if !work.has_times() {
            lost.add(work.process, "kernels");
            return Ok(());
        }
        let name = match cells.integer(OWN)? {
            Some(mangled) => mangled,
            None => cells.integer(OWN + 1)?.unwrap_or_default(),
        };
        let name = names.entry(name).or_insert_with_key(|&id| {
            let text = database.string(id).map_or(format!("unknown name {id}"), str::to_owned);
            Rc::new(Name::new(text))
        });
        let own = |column: usize| small(cells, OWN + column);
        let signed = |column: usize| Ok::<_, IngestError>(i32::try_from(own(column)?).unwrap_or(i32::MAX));
        let row = KernelRow {
            pid: work.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            name: &name.demangled,
            short_name: &name.short,
            mangled_name: &name.mangled,
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            correlation_id: work.correlation_id,
            graph_id: work
                .graph_node_id
                .and(maybe_small(cells, OWN + 15)?.filter(|&id| id != 0).or(work.graph_id())),
            graph_node_id: work.graph_node_id,
            grid_x: signed(2)?,
            grid_y: signed(3)?,
            grid_z: signed(4)?,
            block_x: signed(5)?,
            block_y: signed(6)?,
            block_z: signed(7)?,
            cluster_x: own(8)?,
            cluster_y: own(9)?,
            cluster_z: own(10)?,
            registers_per_thread: own(11)?,
            static_shared_bytes: own(12)?,
            dynamic_shared_bytes: own(13)?,
            local_bytes_per_thread: own(14)?,
            priority: cells
                .integer(OWN + 16)?
                .and_then(|priority| i32::try_from(priority).ok()),
            window,
            nvtx_path: paths.of(work.process.pid, work.correlation_id),
            launch_nvtx_path: paths.of(work.process.pid, work.correlation_id),
            layer: None,
            layer_source: None,
            waves: None,
            theoretical_occupancy_pct: None,
        };
        Ok(rows.push(recorder, work.process, row)?)
    })?;
    Ok(rows.finish(recorder)?)
}

fn memcpys(database: &Database, recorder: &mut Recorder, window: u32, lost: &mut Lost) -> Result<(), IngestError> {
    const COLUMNS: [Wanted; 6] = [
        ("bytes", true),
        ("copyKind", true),
        ("srcKind", false),
        ("dstKind", false),
        ("srcDeviceId", false),
        ("dstDeviceId", false),
    ];
    let mut rows = Rows::<MemcpysBuilder>::default();
    database.each(MEMCPYS, &wanted(&COLUMNS), "", |cells| {
        let work = Work::read(database, cells)?;
        if !work.has_times() {
            lost.add(work.process, "memcpys");
            return Ok(());
        }
        let own = |column: usize| cells.integer(OWN + column);
        let (source, target) = (own(4)?, own(5)?);
        let is_peer = source.is_some() && source != target;
        let device = |id: Option<i64>| id.filter(|_| is_peer).and_then(|id| u32::try_from(id).ok());
        let row = MemcpyRow {
            pid: work.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            copy_kind: copy_kind(own(1)?),
            src_kind: memory_kind(own(2)?),
            dst_kind: memory_kind(own(3)?),
            bytes: own(0)?.unwrap_or_default().cast_unsigned(),
            is_async: None,
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            src_device_id: device(source),
            dst_device_id: device(target),
            correlation_id: work.correlation_id,
            graph_id: work.graph_id(),
            graph_node_id: work.graph_node_id,
            window,
        };
        Ok(rows.push(recorder, work.process, row)?)
    })?;
    Ok(rows.finish(recorder)?)
}

fn memsets(database: &Database, recorder: &mut Recorder, window: u32, lost: &mut Lost) -> Result<(), IngestError> {
    const COLUMNS: [Wanted; 3] = [("value", false), ("bytes", true), ("memKind", false)];
    let mut rows = Rows::<MemsetsBuilder>::default();
    database.each(MEMSETS, &wanted(&COLUMNS), "", |cells| {
        let work = Work::read(database, cells)?;
        if !work.has_times() {
            lost.add(work.process, "memsets");
            return Ok(());
        }
        let row = MemsetRow {
            pid: work.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            value: small(cells, OWN)?,
            bytes: cells.integer(OWN + 1)?.unwrap_or_default().cast_unsigned(),
            memory_kind: memory_kind(cells.integer(OWN + 2)?),
            device_id: work.device_id,
            context_id: work.context_id,
            stream_id: work.stream_id,
            correlation_id: work.correlation_id,
            graph_id: work.graph_id(),
            graph_node_id: work.graph_node_id,
            window,
        };
        Ok(rows.push(recorder, work.process, row)?)
    })?;
    Ok(rows.finish(recorder)?)
}

fn synchronizations(
    database: &Database,
    recorder: &mut Recorder,
    window: u32,
    lost: &mut Lost,
) -> Result<(), IngestError> {
    const COLUMNS: [Wanted; 2] = [("syncType", true), ("eventId", false)];
    let mut rows = Rows::<SynchronizationsBuilder>::default();
    database.each(SYNCHRONIZATIONS, &wanted(&COLUMNS), "", |cells| {
        let work = Work::read(database, cells)?;
        if !work.has_times() {
            lost.add(work.process, "synchronizations");
            return Ok(());
        }
        let sync_kind = match cells.integer(OWN)? {
            Some(1) => "event",
            Some(2) => "stream_wait_event",
            Some(3) => "stream",
            Some(4) => "context",
            _ => "unknown",
        };
        let is_of_event = sync_kind.contains("event");
        let row = SynchronizationRow {
            pid: work.process.pid,
            start_ns: work.start_ns,
            end_ns: work.end_ns,
            sync_kind,
            context_id: work.context_id,
            stream_id: maybe_small(cells, STREAM)?.filter(|&stream| sync_kind != "context" && stream != 0),
            event_id: maybe_small(cells, OWN + 1)?.filter(|_| is_of_event),
            correlation_id: work.correlation_id,
            window,
        };
        Ok(rows.push(recorder, work.process, row)?)
    })?;
    Ok(rows.finish(recorder)?)
}

/// nsys's ENUM_CUDA_MEMCPY_OPER, which is CUPTI's; its further kinds are pages of managed memory that move.
fn copy_kind(kind: Option<i64>) -> &'static str {
    const KINDS: [&str; 11] = [
        "unknown", "HtoD", "DtoH", "HtoA", "AtoH", "AtoA", "AtoD", "DtoA", "DtoD", "HtoH", "PtoP",
    ];
    let known = kind.and_then(|kind| KINDS.get(usize::try_from(kind).ok()?).copied());
    match kind {
        Some(11) => "HtoD",
        Some(12) => "DtoH",
        Some(13) => "DtoD",
        _ => known.unwrap_or("unknown"),
    }
}

/// nsys's ENUM_CUDA_MEM_KIND, which counts otherwise than CUPTI.
fn memory_kind(kind: Option<i64>) -> &'static str {
    const KINDS: [&str; 7] = [
        "pageable",
        "pinned",
        "device",
        "array",
        "managed",
        "device_static",
        "managed_static",
    ];
    kind.and_then(|kind| KINDS.get(usize::try_from(kind).ok()?).copied())
        .unwrap_or("unknown")
}
