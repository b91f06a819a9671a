//! The GPUs of a session, from the table `devices`.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int32Type, UInt32Type};
use arrow_array::{RecordBatch, StringArray};

use crate::session::occupancy::Device;
use crate::session::{Session, SessionError};

/// A GPU as a process saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownDevice {
    /// Product name.
    pub name: String,
    /// What an occupancy needs.
    pub limits: Device,
}

/// GPUs by process and CUDA ordinal.
pub type Devices = BTreeMap<(u32, u32), KnownDevice>;

const COLUMNS: [&str; 12] = [
    "pid",
    "device_id",
    "compute_major",
    "compute_minor",
    "sm_count",
    "max_threads_per_sm",
    "max_blocks_per_sm",
    "registers_per_sm",
    "shared_bytes_per_sm",
    "reserved_shared_bytes_per_block",
    "warp_size",
    "name",
];

impl Session {
    /// The GPUs that its processes saw.
    pub fn devices(&self) -> Result<Devices, SessionError> {
        let mut devices = Devices::new();
        for batch in self.scan("devices", &COLUMNS)? {
            for row in 0..batch.num_rows() {
                if let Some((key, device)) = device(&batch, row) {
                    devices.insert(key, device);
                }
            }
        }
        Ok(devices)
    }
}

fn device(batch: &RecordBatch, row: usize) -> Option<((u32, u32), KnownDevice)> {
    let number = |column: usize| batch.column(column).as_primitive::<UInt32Type>().value(row);
    let names = batch.column(COLUMNS.len() - 1).as_dictionary::<Int32Type>();
    let name = names.key(row).map(|key| {
        names
            .values()
            .as_any()
            .downcast_ref::<StringArray>()
            .map(|v| v.value(key))
    })??;
    let limits = Device {
        compute_major: number(2),
        compute_minor: number(3),
        sm_count: number(4).into(),
        max_threads_per_sm: number(5).into(),
        max_blocks_per_sm: number(6).into(),
        registers_per_sm: number(7).into(),
        shared_bytes_per_sm: number(8).into(),
        reserved_shared_bytes_per_block: number(9).into(),
        warp_size: number(10).into(),
    };
    Some((
        (number(0), number(1)),
        KnownDevice {
            name: name.to_owned(),
            limits,
        },
    ))
}
