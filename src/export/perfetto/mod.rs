//! Perfetto's native trace: a track a process, GPU, stream and thread; kernels, copies, fills, ranges and calls as slices.

mod messages;
mod writer;

use std::fs::File;
use std::io::{BufWriter, Write as _};

use super::{ExportError, Source, Target};
use crate::schema::tables::{
    ApiCallRow, ApiCallsBuilder, KernelRow, KernelsBuilder, MemcpyRow, MemcpysBuilder, MemsetRow, MemsetsBuilder,
    NvtxRangeRow, NvtxRangesBuilder, SynchronizationsBuilder, WindowsBuilder,
};
use writer::{Slice, Track, Writer};

/// Writes the trace.
pub fn perfetto(source: &mut Source<'_>, target: &Target) -> Result<(), ExportError> {
    let file = BufWriter::new(File::create(target.temporary())?);
    let mut writer = Writer::new(file, source)?;
    source.each::<KernelsBuilder>(|row| kernel(&mut writer, &row))?;
    source.each::<MemcpysBuilder>(|row| memcpy(&mut writer, &row))?;
    source.each::<MemsetsBuilder>(|row| memset(&mut writer, &row))?;
    source.each::<NvtxRangesBuilder>(|row| range(&mut writer, &row))?;
    source.each::<ApiCallsBuilder>(|row| api_call(&mut writer, &row))?;
    source.each::<SynchronizationsBuilder>(|row| {
        let track = Track::Synchronizations { pid: row.pid };
        writer.slice(
            &Slice::new(track, "synchronization", row.sync_kind, row.start_ns, Some(row.end_ns)),
            |slice| {
                slice.number("correlation_id", row.correlation_id);
                slice.some("stream_id", row.stream_id);
            },
        )
    })?;
    source.refuse_empty()?;
    source.each::<WindowsBuilder>(|row| {
        let name = row.name.map_or_else(|| format!("window {}", row.window), str::to_owned);
        let slice = Slice::new(
            Track::Windows { pid: row.pid },
            "window",
            &name,
            row.start_ns,
            row.end_ns,
        );
        writer.slice(&slice, |slice| slice.text("trigger", row.trigger))
    })?;
    writer.finish()?.flush()?;
    Ok(())
}

macro_rules! stream {
    ($row:expr, $table:literal) => {
        Track::Stream {
            pid: $row.pid,
            device_id: $row.device_id,
            stream_id: $row.stream_id,
            table: $table,
        }
    };
}

fn kernel<W: std::io::Write>(writer: &mut Writer<W>, row: &KernelRow<'_>) -> Result<(), ExportError> {
    let mut slice = Slice::new(
        stream!(row, "kernels"),
        "kernel",
        row.short_name,
        row.start_ns,
        Some(row.end_ns),
    );
    // The kernels of a graph share the launch: an arrow to each would hide them.
    slice.launched_by = row.graph_id.is_none().then_some(row.correlation_id);
    writer.slice(&slice, |slice| {
        slice.text("name", row.name);
        slice.number("correlation_id", row.correlation_id);
        slice.number("context_id", row.context_id);
        slice.some("graph_id", row.graph_id);
        slice.some("graph_node_id", row.graph_node_id);
        slice.text("grid", &format!("{},{},{}", row.grid_x, row.grid_y, row.grid_z));
        slice.text("block", &format!("{},{},{}", row.block_x, row.block_y, row.block_z));
        slice.number("registers_per_thread", row.registers_per_thread);
        slice.number("static_shared_bytes", row.static_shared_bytes);
        slice.number("dynamic_shared_bytes", row.dynamic_shared_bytes);
        slice.real("waves", row.waves);
        slice.real("theoretical_occupancy_pct", row.theoretical_occupancy_pct);
        for (name, text) in [("layer", row.layer), ("nvtx_path", row.nvtx_path)] {
            if let Some(text) = text {
                slice.text(name, text);
            }
        }
        slice.number("window", row.window);
    })
}

fn memcpy<W: std::io::Write>(writer: &mut Writer<W>, row: &MemcpyRow<'_>) -> Result<(), ExportError> {
    let name = format!("memcpy {}", row.copy_kind);
    let mut slice = Slice::new(stream!(row, "memcpys"), "memcpy", &name, row.start_ns, Some(row.end_ns));
    slice.launched_by = row.graph_id.is_none().then_some(row.correlation_id);
    writer.slice(&slice, |slice| {
        slice.number("bytes", row.bytes);
        slice.text("src_kind", row.src_kind);
        slice.text("dst_kind", row.dst_kind);
        slice.number("correlation_id", row.correlation_id);
    })
}

fn memset<W: std::io::Write>(writer: &mut Writer<W>, row: &MemsetRow<'_>) -> Result<(), ExportError> {
    let mut slice = Slice::new(
        stream!(row, "memsets"),
        "memset",
        "memset",
        row.start_ns,
        Some(row.end_ns),
    );
    slice.launched_by = row.graph_id.is_none().then_some(row.correlation_id);
    writer.slice(&slice, |slice| {
        slice.number("bytes", row.bytes);
        slice.number("correlation_id", row.correlation_id);
    })
}

fn range<W: std::io::Write>(writer: &mut Writer<W>, row: &NvtxRangeRow<'_>) -> Result<(), ExportError> {
    let (pid, thread_id) = (row.pid, row.thread_id);
    // Pushed ranges mostly nest in their thread; those started and ended may not.
    let track = match row.kind {
        "push_pop" => Track::Thread { pid, thread_id },
        _ => Track::Ranges { pid, thread_id },
    };
    let mut slice = Slice::new(track, "nvtx", row.name, row.start_ns, row.end_ns);
    slice.is_instant = row.kind == "mark";
    writer.slice(&slice, |slice| {
        for (name, text) in [
            ("domain", row.domain),
            ("category", row.category),
            ("payload", row.payload),
        ] {
            if let Some(text) = text {
                slice.text(name, text);
            }
        }
    })
}

fn api_call<W: std::io::Write>(writer: &mut Writer<W>, row: &ApiCallRow<'_>) -> Result<(), ExportError> {
    let (pid, thread_id) = (row.pid, row.thread_id);
    let track = Track::Calls { pid, thread_id };
    let mut slice = Slice::new(track, row.api, row.name, row.start_ns, Some(row.end_ns));
    slice.launches = ["Launch", "Memcpy", "Memset"]
        .iter()
        .any(|word| row.name.contains(word))
        .then_some(row.correlation_id);
    writer.slice(&slice, |slice| {
        slice.number("correlation_id", row.correlation_id);
        slice.number("return_value", row.return_value);
    })
}
