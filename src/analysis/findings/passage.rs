//! The kernels of a session one after the other, in order of start within a process, with the columns that rules and
//! timeline need.

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, RecordBatch};
use rustc_hash::FxHashMap;

use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::steps::Layer;
use crate::analysis::texts::Texts;
use crate::session::Devices;
use crate::session::occupancy::{Device, Launch};

/// Number of a kernel without name.
pub const NO_NAME: u32 = 0;

pub(crate) const COLUMNS: [&str; 18] = [
    "start_ns",
    "end_ns",
    "pid",
    "device_id",
    "stream_id",
    "window",
    "name",
    "layer",
    "grid_x",
    "grid_y",
    "grid_z",
    "block_x",
    "block_y",
    "block_z",
    "registers_per_thread",
    "static_shared_bytes",
    "dynamic_shared_bytes",
    "graph_id",
];

/// A kernel as it passes.
#[derive(Debug, Clone, Copy)]
pub struct KernelSeen {
    /// Start, Unix ns.
    pub start_ns: i64,
    /// End, Unix ns; not before the start.
    pub end_ns: i64,
    /// Process.
    pub pid: u32,
    /// CUDA ordinal in it.
    pub device_id: u32,
    /// CUPTI's id of the stream.
    pub stream_id: u32,
    /// Window.
    pub window: u32,
    /// Its name's number.
    pub name: u32,
    /// Graph.
    pub graph_id: Option<u32>,
    pub(crate) layer: Layer,
    pub(crate) grid_x: i32,
    /// Waves and theoretical occupancy, where the device is known.
    pub waves: Option<Waves>,
}

/// What a launch makes of its device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waves {
    /// Grid over the blocks that the device holds at once.
    pub waves: f64,
    /// Warps resident on an SM, per cent of its maximum.
    pub occupancy_pct: f64,
}

impl KernelSeen {
    /// Duration, ns.
    pub fn duration_ns(&self) -> i64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Its layer's number.
    pub fn layer_number(&self) -> Option<u32> {
        match self.layer {
            Layer::Number(number) => Some(number),
            _ => None,
        }
    }
}

type WavesKey = (u32, u32, Launch, u64);

/// Takes batches apart.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    pub(crate) names: Texts,
    layer_names: Texts,
    layers: Vec<Layer>,
    entries: [EntryMap; 2],
    devices: Devices,
    waves: FxHashMap<WavesKey, Option<Waves>>,
    last: Option<(WavesKey, Option<Waves>)>,
}

impl Passage {
    pub(crate) fn new(devices: Devices) -> Self {
        let mut names = Texts::default();
        // What has no name is number 0.
        names.number("");
        Self {
            names,
            devices,
            ..Self::default()
        }
    }

    /// Rows of a batch, in its order, with the names so far. It begins with [`COLUMNS`].
    pub(crate) fn each(&mut self, batch: &RecordBatch, mut take: impl FnMut(&KernelSeen, &[String])) {
        let [name_map, layer_map] = &mut self.entries;
        let (names, layers) = (texts(batch, 6), texts(batch, 7));
        let all = &mut self.names;
        let name_map = name_map.of(names, |text| all.number(text)).to_vec();
        let (known, kinds) = (&mut self.layer_names, &mut self.layers);
        let layer_map = layer_map
            .of(layers, |text| {
                let number = known.number(text);
                if number as usize == kinds.len() {
                    kinds.push(Layer::named(text, number));
                }
                number
            })
            .to_vec();
        let graphs = batch.column(17).as_primitive::<UInt32Type>();
        let (starts, ends) = (i64s(batch, 0), i64s(batch, 1));
        let [pids, devices, streams, windows] = [2, 3, 4, 5].map(|column| u32s(batch, column));
        let axes: [&[i32]; 6] = std::array::from_fn(|axis| i32s(batch, 8 + axis));
        let [registers, fixed, dynamic] = [14, 15, 16].map(|column| u32s(batch, column));
        for row in 0..batch.num_rows() {
            let product = |from: usize| -> u64 {
                let axis = |axis: usize| u64::try_from(axes[from + axis][row]).unwrap_or(0);
                axis(0).saturating_mul(axis(1)).saturating_mul(axis(2))
            };
            let launch = Launch {
                threads_per_block: product(3),
                registers_per_thread: registers[row].into(),
                shared_bytes_per_block: u64::from(fixed[row]) + u64::from(dynamic[row]),
            };
            let key = (pids[row], devices[row], launch, product(0));
            let waves = match self.last {
                Some((last, waves)) if last == key => waves,
                _ => {
                    let device = self.devices.get(&(key.0, key.1)).map(|device| device.limits);
                    *self
                        .waves
                        .entry(key)
                        .or_insert_with(|| waves_of(device?, launch, key.3))
                }
            };
            self.last = Some((key, waves));
            let kernel = KernelSeen {
                start_ns: starts[row],
                end_ns: ends[row].max(starts[row]),
                pid: pids[row],
                device_id: devices[row],
                stream_id: streams[row],
                window: windows[row],
                name: names.key(row).map_or(NO_NAME, |key| name_map[key]),
                graph_id: graphs.is_valid(row).then(|| graphs.value(row)),
                layer: layers
                    .key(row)
                    .map_or(Layer::None, |key| self.layers[layer_map[key] as usize]),
                grid_x: axes[0][row],
                waves,
            };
            take(&kernel, self.names.all());
        }
    }
}

fn waves_of(device: Device, launch: Launch, blocks: u64) -> Option<Waves> {
    let occupancy = device.occupancy(launch)?;
    Some(Waves {
        waves: device.waves(occupancy, blocks)?,
        occupancy_pct: occupancy.percent,
    })
}
