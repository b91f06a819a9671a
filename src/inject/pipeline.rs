//! The way of a record from bytes to Parquet as one object, for `make bench` only.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::Path;

use cupti_sys::constants::KIND_CONCURRENT_KERNEL;
use cupti_sys::records::{Kernel, Record};

use crate::inject::decode::{self, Layout};
use crate::inject::losses::Losses;
use crate::inject::names::Names;
use crate::inject::rows::{Converter, Rows};
use crate::inject::segments::Segments;
use crate::inject::windows::{WindowFinder, Windows};
use crate::schema::columns::TableBuilder;
use crate::schema::tables::KernelsBuilder;

/// Decoder, tables and segments of one process, without threads and CUPTI.
#[derive(Debug)]
pub struct Pipeline {
    layout: Layout,
    rows: Rows,
    names: Names,
    windows: WindowFinder,
    losses: Losses,
    segments: Segments,
    received: BTreeMap<&'static str, u64>,
}

impl Pipeline {
    /// Segments go to `folder`, which must exist.
    pub fn new(folder: &Path, api_version: u32) -> Pipeline {
        let windows = Windows::default();
        windows.open(0, Some(0), "process", None, false);
        let mut finder = WindowFinder::default();
        finder.renew(&windows);
        let table = KernelsBuilder::table();
        Pipeline {
            layout: Layout::of_version(api_version),
            rows: Rows::default(),
            names: Names::default(),
            windows: finder,
            losses: Losses::default(),
            segments: Segments::new(folder, table.name, "1-1", table.arrow_schema()),
            received: BTreeMap::new(),
        }
    }

    /// Decodes a buffer into the tables.
    pub fn take(&mut self, buffer: &[u8]) {
        self.names.next_buffer();
        let mut converter = Converter {
            pid: 1,
            api_version: self.layout.api_version,
            clock_offset_ns: 0,
            rows: &mut self.rows,
            names: &mut self.names,
            api_names: &mut BTreeMap::new(),
            api_name: |_, _| None,
            windows: &self.windows,
            losses: &self.losses,
            received: &mut self.received,
            outside_windows: &mut 0,
            latest_outside_ns: &mut 0,
            own_threads: &[],
            marks_ranges: false,
        };
        decode::decode(buffer, &self.layout, &mut converter);
    }

    /// Kernels that wait to be sealed.
    pub fn kernels(&self) -> usize {
        self.rows.kernels.len()
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.rows.kernels.clear();
    }

    /// Seals what waits as one segment.
    pub fn seal(&mut self) -> io::Result<()> {
        let schema = self.segments.schema().clone();
        let (kernels, names) = (&self.rows.kernels, &self.names);
        self.segments.seal_with(|file| kernels.write(file, &schema, 1, names))?;
        self.rows.kernels.clear();
        Ok(())
    }
}

/// Decode steps of a model with `nodes` kernels in a CUDA graph, as CUPTI of `api_version` hands them over: buffers of
/// 1 MiB with `kernels` records in all. Durations jitter; names are as long as real ones.
pub fn graph_buffers(api_version: u32, nodes: usize, kernels: usize) -> Vec<Vec<u8>> {
    let names: Vec<*const std::ffi::c_char> = (0..nodes.div_ceil(8))
        .map(|number| {
            let name = format!(
                "_ZN4vllm{}fused_kernel_{number:03}IN3c108BFloat16ELi128ELb1EEEvPKT_PS2_if",
                16
            );
            CString::new(name).unwrap_or_default().into_raw().cast_const()
        })
        .collect();
    let size = Layout::of_version(api_version)
        .strides
        .get(KIND_CONCURRENT_KERNEL)
        .unwrap_or(size_of::<Kernel>());
    let per_buffer = crate::inject::buffers::BUFFER_BYTES / size;
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut clock = 1_764_000_000_000_000_000_u64;
    let mut records = (0..kernels).map(|index| {
        let node = index % nodes;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let duration = 900 + (node as u64 * 37) % 7_000 + random % 400;
        let start = clock + 600 + random % 200;
        clock = start + duration + if node + 1 == nodes { 50_000 } else { 0 };
        Kernel {
            kind: KIND_CONCURRENT_KERNEL,
            registers_per_thread: 32 + (node % 5) as u16 * 16,
            start,
            end: start + duration,
            context_id: 1,
            stream_id: 13,
            grid_x: 1 + (node % 17) as i32 * 8,
            grid_y: 1,
            grid_z: 1,
            block_x: 128 << (node % 3),
            block_y: 1,
            block_z: 1,
            dynamic_shared_memory: (node % 4) as i32 * 16_384,
            correlation_id: 1_000 + (index / nodes) as u32 * 3,
            name: names[node / 8],
            graph_node_id: (5 << 32) | (node as u64 + 1),
            graph_id: 5,
            ..Kernel::zeroed()
        }
    });
    let mut buffers = Vec::new();
    loop {
        let mut buffer = Vec::with_capacity(per_buffer * size);
        for record in records.by_ref().take(per_buffer) {
            buffer.extend_from_slice(&record.as_bytes()[..size]);
        }
        if buffer.is_empty() {
            return buffers;
        }
        buffers.push(buffer);
    }
}
