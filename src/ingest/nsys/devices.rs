//! The GPUs: nsys lists those of the machine, and which ordinal each has in a process.

use std::collections::{BTreeMap, BTreeSet};

use super::database::{Cells, Database, Wanted};
use super::small;
use crate::ingest::{IngestError, id_of};
use crate::schema::tables::{DeviceRow, DevicesBuilder};
use crate::session::{Recorder, Rows};

const GPUS: [Wanted; 16] = [
    ("id", true),
    ("name", true),
    ("uuid", false),
    ("smCount", false),
    ("threadsPerWarp", false),
    ("maxWarpsPerSm", false),
    ("maxBlocksPerSm", false),
    ("maxRegistersPerSm", false),
    ("maxShmemPerSm", false),
    ("l2CacheSize", false),
    ("totalMemory", false),
    ("memoryBandwidth", false),
    ("clockRate", false),
    ("computeMajor", false),
    ("computeMinor", false),
    ("cuDevice", false),
];

/// A GPU of the machine.
struct Gpu {
    name: String,
    uuid: Option<String>,
    /// The columns from `smCount` on.
    figures: [u64; 12],
    /// Its ordinal where all GPUs are visible.
    ordinal: u32,
}

impl Gpu {
    fn read(cells: &Cells<'_>) -> rusqlite::Result<Self> {
        let mut figures = [0; 12];
        for (place, figure) in figures.iter_mut().enumerate() {
            *figure = cells.integer(3 + place)?.unwrap_or_default().max(0).cast_unsigned();
        }
        Ok(Self {
            name: cells.text(1)?.unwrap_or_default(),
            uuid: cells.text(2)?,
            figures,
            ordinal: match cells.integer(15)? {
                Some(ordinal) => u32::try_from(ordinal).unwrap_or_default(),
                None => small(cells, 0)?,
            },
        })
    }

    fn row<'a>(&'a self, pid: u32, device_id: u32, uuid: Option<&'a str>) -> DeviceRow<'a> {
        let figure = |place: usize| u32::try_from(self.figures[place]).unwrap_or(u32::MAX);
        let compute_major = figure(10);
        DeviceRow {
            pid,
            device_id,
            name: &self.name,
            uuid,
            compute_major,
            compute_minor: figure(11),
            sm_count: figure(0),
            max_threads_per_sm: figure(1).saturating_mul(figure(2)),
            max_blocks_per_sm: figure(3),
            registers_per_sm: figure(4),
            shared_bytes_per_sm: figure(5),
            // Not in the report: the driver keeps 1 KiB from compute capability 8.0 on.
            reserved_shared_bytes_per_block: if compute_major >= 8 { 1024 } else { 0 },
            warp_size: figure(1),
            l2_bytes: self.figures[6],
            memory_bytes: self.figures[7],
            memory_bandwidth_bytes_per_s: Some(self.figures[8]).filter(|&bandwidth| bandwidth > 0),
            clock_khz: u32::try_from(self.figures[9] / 1000).unwrap_or(u32::MAX),
        }
    }
}

/// `known` are those of earlier reports.
pub(super) fn ingest(
    database: &Database,
    recorder: &mut Recorder,
    pids: &BTreeSet<u32>,
    known: &mut BTreeSet<(u32, u32)>,
) -> Result<(), IngestError> {
    let mut gpus = BTreeMap::new();
    database.each("TARGET_INFO_GPU", &GPUS, "", |cells| {
        let id = cells.integer(0)?.unwrap_or_default();
        gpus.insert(id, Gpu::read(cells)?);
        Ok(())
    })?;
    // (process, ordinal) → GPU.
    let mut seen = BTreeMap::new();
    let columns = [("gpuId", true), ("cudaId", true), ("pid", true)];
    database.each("TARGET_INFO_CUDA_DEVICE", &columns, "", |cells| {
        let gpu = cells.integer(0)?.unwrap_or_default();
        let ordinal = small(cells, 1)?;
        seen.insert((small(cells, 2)?, ordinal), gpu);
        Ok(())
    })?;
    if seen.is_empty() {
        // Older reports don't tell the processes' GPUs: as if all were visible to each.
        let all = |&pid: &u32| {
            gpus.iter()
                .map(move |(&id, gpu)| ((pid, gpu.ordinal), id))
                .collect::<Vec<_>>()
        };
        seen.extend(pids.iter().flat_map(all));
    }
    let mut rows = Rows::<DevicesBuilder>::default();
    for ((pid, ordinal), gpu) in seen {
        if let Some(gpu) = gpus.get(&gpu).filter(|_| pids.contains(&pid))
            && known.insert((pid, ordinal))
        {
            let uuid = gpu.uuid.as_deref().map(as_nvidia_smi_prints_it);
            let row = gpu.row(pid, ordinal, uuid.as_deref());
            rows.push(recorder, id_of(pid), row)?;
        }
    }
    Ok(rows.finish(recorder)?)
}

fn as_nvidia_smi_prints_it(uuid: &str) -> String {
    if uuid.starts_with("GPU-") || uuid.starts_with("MIG-") {
        uuid.to_owned()
    } else {
        format!("GPU-{uuid}")
    }
}
