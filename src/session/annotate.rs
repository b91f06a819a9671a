//! Waves and occupancy of kernels, which need the table `devices`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::Float64Builder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;

use crate::session::devices::Devices;
use crate::session::occupancy::{Launch, Occupancy};

/// Columns that are filled in.
pub(crate) const FILLED: [&str; 2] = ["waves", "theoretical_occupancy_pct"];

/// Columns that a batch must have for that.
pub(crate) const NEEDED: [&str; 13] = [
    "pid",
    "device_id",
    "grid_x",
    "grid_y",
    "grid_z",
    "block_x",
    "block_y",
    "block_z",
    "registers_per_thread",
    "static_shared_bytes",
    "dynamic_shared_bytes",
    FILLED[0],
    FILLED[1],
];

/// Fills the columns in; null where the device is not known or the launch makes no sense.
#[derive(Debug)]
pub(crate) struct Annotator {
    devices: Devices,
    known: HashMap<(u32, u32, Launch), Option<Occupancy>>,
}

impl Annotator {
    /// For kernels of any process.
    pub(crate) fn new(devices: Devices) -> Self {
        Self {
            devices,
            known: HashMap::new(),
        }
    }

    /// The batch, which has the columns of [`NEEDED`], with the columns computed anew.
    pub(crate) fn annotate(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let index = |name: &str| batch.schema_ref().index_of(name);
        let (waves, percent) = self.columns(batch)?;
        let mut columns = batch.columns().to_vec();
        columns[index(FILLED[0])?] = waves;
        columns[index(FILLED[1])?] = percent;
        RecordBatch::try_new(batch.schema(), columns)
    }

    fn columns(&mut self, batch: &RecordBatch) -> Result<(ArrayRef, ArrayRef), ArrowError> {
        let unsigned = |name| Ok::<_, ArrowError>(column(batch, name)?.as_primitive::<UInt32Type>().values());
        let signed = |name| Ok::<_, ArrowError>(column(batch, name)?.as_primitive::<Int32Type>().values());
        let (pids, ids) = (unsigned("pid")?, unsigned("device_id")?);
        let (registers, fixed) = (unsigned("registers_per_thread")?, unsigned("static_shared_bytes")?);
        let dynamic = unsigned("dynamic_shared_bytes")?;
        let grid = [signed("grid_x")?, signed("grid_y")?, signed("grid_z")?];
        let block = [signed("block_x")?, signed("block_y")?, signed("block_z")?];
        let mut waves = Float64Builder::with_capacity(batch.num_rows());
        let mut percent = Float64Builder::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let product = |of: &[&[i32]; 3]| of.iter().map(|axis| u64::try_from(axis[row]).unwrap_or(0)).product();
            let launch = Launch {
                threads_per_block: product(&block.map(|axis| &axis[..])),
                registers_per_thread: registers[row].into(),
                shared_bytes_per_block: u64::from(fixed[row]) + u64::from(dynamic[row]),
            };
            let device = self.devices.get(&(pids[row], ids[row]));
            let occupancy = *self
                .known
                .entry((pids[row], ids[row], launch))
                .or_insert_with(|| device.and_then(|device| device.limits.occupancy(launch)));
            percent.append_option(occupancy.map(|occupancy| occupancy.percent));
            let blocks: u64 = product(&grid.map(|axis| &axis[..]));
            waves.append_option(occupancy.and_then(|occupancy| device?.limits.waves(occupancy, blocks)));
        }
        Ok((Arc::new(waves.finish()), Arc::new(percent.finish())))
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    Ok(batch.column(batch.schema_ref().index_of(name)?))
}
