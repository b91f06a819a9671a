//! The kernels of a session one after the other, in order of start within a process, with the columns that rules and
//! timeline need.

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, RecordBatch};
use rustc_hash::FxHashMap;

use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::steps::Layer;
use crate::session::occupancy::{Device, Launch};
use crate::session::{Devices, is_before_layers};

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

/// Texts by number.
#[derive(Debug)]
pub(crate) struct Names {
    numbers: FxHashMap<String, u32>,
    texts: Vec<String>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self {
            numbers: FxHashMap::default(),
            texts: Vec::new(),
        };
        names.number("");
        names
    }
}

impl Names {
    pub(crate) fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        // A dictionary's keys are 32 bits wide, so there can't be more names.
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    pub(crate) fn texts(&self) -> &[String] {
        &self.texts
    }
}

type WavesKey = (u32, u32, Launch, u64);

/// Takes batches apart.
#[derive(Debug, Default)]
pub(crate) struct Passage {
    pub(crate) names: Names,
    entries: [EntryMap; 2],
    layers: Vec<Layer>,
    layer_names: FxHashMap<String, u32>,
    devices: Devices,
    waves: FxHashMap<WavesKey, Option<Waves>>,
    last: Option<(WavesKey, Option<Waves>)>,
}

impl Passage {
    pub(crate) fn new(devices: Devices) -> Self {
        Self {
            devices,
            ..Self::default()
        }
    }

    /// Rows of a batch, in its order. It begins with [`COLUMNS`].
    pub(crate) fn each(&mut self, batch: &RecordBatch, mut take: impl FnMut(&KernelSeen)) {
        let [name_map, layer_map] = &mut self.entries;
        let (names, layers) = (texts(batch, 6), texts(batch, 7));
        let all = &mut self.names;
        let name_map = name_map.of(names, |text| all.number(text)).to_vec();
        let (known, kinds) = (&mut self.layer_names, &mut self.layers);
        let layer_map = layer_map
            .of(layers, |text| {
                let next = u32::try_from(known.len()).unwrap_or(u32::MAX);
                *known.entry(text.to_owned()).or_insert_with(|| {
                    kinds.push(match text.parse() {
                        Ok(layer) => Layer::Number(layer),
                        Err(_) if is_before_layers(text) => Layer::Before(next),
                        Err(_) => Layer::After(next),
                    });
                    next
                })
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
            take(&KernelSeen {
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
            });
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
