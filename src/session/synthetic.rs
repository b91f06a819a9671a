//! Sessions as guests would leave them, made without a GPU: for tests, benches and the Python side's tests.

pub mod bottlenecks;
pub mod model;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::schema::columns::TableBuilder;
use crate::schema::manifest::{FORMAT, PROCESSES_DIR, Process, ProcessId, ProcessState, Progress, Window};
use crate::schema::tables::{DeviceRow, KernelRow, MemcpyRow, MemsetRow};
use crate::session::files::process_name;
use crate::session::writer::write_json;

/// One process of a session, writing as a guest does.
#[derive(Debug)]
pub struct SyntheticGuest {
    session: PathBuf,
    segments: BTreeMap<&'static str, u32>,
    /// What its process file will say.
    pub process: Process,
}

impl SyntheticGuest {
    /// A process with one open window. Its start time is none that a living process has.
    pub fn new(session: &Path, pid: u32) -> Self {
        let window = Window {
            number: 1,
            start_ns: 0,
            end_ns: None,
            trigger: "process".to_owned(),
            name: None,
            sealed_ns: None,
            sampled: false,
        };
        let process = Process {
            format: FORMAT,
            pid,
            start_ticks: 1,
            ppid: 1,
            exe: "/usr/bin/python3".to_owned(),
            command: vec!["python".to_owned(), "loop.py".to_owned()],
            started_ns: 1_000,
            ended_ns: None,
            state: ProcessState::Capturing,
            gate: "process".to_owned(),
            gate_by: None,
            cupti: None,
            driver_version: Some(13000),
            attached_ns: Some(1_000),
            windows: vec![window],
            rows: BTreeMap::new(),
            outside_windows: 0,
            counters: Vec::new(),
            losses: Vec::new(),
            problems: Vec::new(),
            control: None,
        };
        Self {
            session: session.to_owned(),
            segments: BTreeMap::new(),
            process,
        }
    }

    /// The process's name in folders and files.
    pub fn name(&self) -> String {
        process_name(ProcessId {
            pid: self.process.pid,
            start_ticks: self.process.start_ticks,
        })
    }

    /// Seals the collected rows into the table's next segment.
    pub fn seal<B: TableBuilder>(&mut self, builder: &mut B) -> std::io::Result<PathBuf> {
        let table = B::table();
        let number = self.segments.entry(table.name).or_default();
        *number += 1;
        let folder = self.session.join(table.name).join(self.name());
        fs::create_dir_all(&folder)?;
        let number = self.segments[table.name];
        let path = folder.join(format!("{number:06}.parquet"));
        *self.process.rows.entry(table.name.to_owned()).or_default() += builder.len() as u64;
        let level = ZstdLevel::try_new(1).map_err(std::io::Error::other)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .build();
        let schema = table.arrow_schema();
        let batch = RecordBatch::try_new(schema.clone(), builder.finish()).map_err(std::io::Error::other)?;
        let mut writer = ArrowWriter::try_new(File::create(&path)?, schema, Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
        Ok(path)
    }

    /// Writes the process file as it stands: the process was cut off.
    pub fn write_process(&self) -> std::io::Result<()> {
        let folder = self.session.join(PROCESSES_DIR);
        write_json(&folder, &format!("{}.json", self.name()), &self.process).map_err(std::io::Error::other)
    }

    /// Writes what came and what was sealed.
    pub fn write_progress(&self, progress: &Progress) -> std::io::Result<()> {
        let path = self
            .session
            .join(PROCESSES_DIR)
            .join(format!("{}.progress", self.name()));
        fs::write(path, format!("{:<400}\n", serde_json::to_string(progress)?))
    }

    /// Ends the process in order.
    pub fn end(&mut self, time_ns: i64) -> std::io::Result<()> {
        self.process.ended_ns = Some(time_ns);
        self.process.state = ProcessState::Ended;
        for window in &mut self.process.windows {
            window.end_ns.get_or_insert(time_ns);
        }
        self.write_process()
    }
}

/// A kernel of 128 blocks of 256 threads on device 0.
pub fn kernel(pid: u32, name: &str, start_ns: i64, duration_ns: i64) -> KernelRow<'_> {
    KernelRow {
        pid,
        start_ns,
        end_ns: start_ns + duration_ns,
        name,
        short_name: name.split(['<', '(']).next().unwrap_or(name),
        mangled_name: name,
        device_id: 0,
        context_id: 1,
        stream_id: 7,
        correlation_id: 1,
        graph_id: None,
        graph_node_id: None,
        grid_x: 128,
        grid_y: 1,
        grid_z: 1,
        block_x: 256,
        block_y: 1,
        block_z: 1,
        cluster_x: 0,
        cluster_y: 0,
        cluster_z: 0,
        registers_per_thread: 32,
        static_shared_bytes: 0,
        dynamic_shared_bytes: 0,
        local_bytes_per_thread: 0,
        priority: None,
        window: 1,
        nvtx_path: None,
        launch_nvtx_path: None,
        layer: None,
        layer_source: None,
        waves: None,
        theoretical_occupancy_pct: None,
    }
}

/// The kernels of a model, one after the other, each 2 us long with 1 us between and 100 us between steps; names are what
/// the model says. The window is 1.
pub fn model_kernels(pid: u32, launched: &[model::Launched], start_ns: i64) -> impl Iterator<Item = KernelRow<'_>> {
    let gap = |step: u32| i64::from(step) * 100_000;
    launched.iter().enumerate().map(move |(index, launched)| {
        let start_ns = start_ns + index as i64 * 3_000 + gap(launched.step);
        let mut row = kernel(pid, &launched.name, start_ns, 2_000);
        row.correlation_id = launched.correlation_id;
        row.graph_id = launched.node.map(|(graph, _)| graph);
        row.graph_node_id = launched.node.map(|(_, node)| node);
        row.grid_x = i32::try_from(launched.batch).unwrap_or(1);
        row
    })
}

/// A copy on device 0.
pub fn memcpy(pid: u32, copy_kind: &str, bytes: u64, start_ns: i64, duration_ns: i64) -> MemcpyRow<'_> {
    MemcpyRow {
        pid,
        start_ns,
        end_ns: start_ns + duration_ns,
        copy_kind,
        src_kind: "pinned",
        dst_kind: "device",
        bytes,
        is_async: Some(true),
        device_id: 0,
        context_id: 1,
        stream_id: 7,
        src_device_id: None,
        dst_device_id: None,
        correlation_id: 1,
        graph_id: None,
        graph_node_id: None,
        window: 1,
    }
}

/// A fill on device 0.
pub fn memset(pid: u32, bytes: u64, start_ns: i64, duration_ns: i64) -> MemsetRow<'static> {
    MemsetRow {
        pid,
        start_ns,
        end_ns: start_ns + duration_ns,
        value: 0,
        bytes,
        memory_kind: "device",
        device_id: 0,
        context_id: 1,
        stream_id: 7,
        correlation_id: 1,
        graph_id: None,
        graph_node_id: None,
        window: 1,
    }
}

/// An H100 as device 0.
pub fn h100(pid: u32) -> DeviceRow<'static> {
    DeviceRow {
        pid,
        device_id: 0,
        name: "NVIDIA H100 80GB HBM3",
        uuid: Some("GPU-00000000-0000-0000-0000-000000000000"),
        compute_major: 9,
        compute_minor: 0,
        sm_count: 132,
        max_threads_per_sm: 2048,
        max_blocks_per_sm: 32,
        registers_per_sm: 65536,
        shared_bytes_per_sm: 233_472,
        reserved_shared_bytes_per_block: 1024,
        warp_size: 32,
        l2_bytes: 52_428_800,
        memory_bytes: 85_899_345_920,
        memory_bandwidth_bytes_per_s: Some(3_350_000_000_000),
        clock_khz: 1_980_000,
    }
}
