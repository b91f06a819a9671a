//! What a session has of a device: samples of its counters, and the kernels and copies that ran on it meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array as _, RecordBatch};
use rustc_hash::FxHashMap;

use crate::analysis::columns::{EntryMap, i32s, i64s, texts, u32s};
use crate::analysis::items::{Texts, each_batch};
use crate::analysis::speed_of_light::chip::Peaks;
use crate::analysis::speed_of_light::samples::Samples;
use crate::analysis::speed_of_light::timeline::Run;
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// Samples and kernels that a fit takes at most, about: of more, blocks are left out evenly.
const MOST_SAMPLES: u64 = 400_000;
const MOST_KERNELS: u64 = 4_000_000;
/// Length of such a block.
const BLOCK_NS: i64 = 100_000_000;
/// What ran so long before or after a sample may still be in it, with the clocks apart.
const MARGIN_NS: i64 = 100_000;

/// Process and CUDA ordinal.
pub(super) type Place = (u32, u32);

/// A metric as it was sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SampledMetric {
    pub(super) name: String,
    pub(super) unit: String,
}

/// Samples of a device.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    pub(super) metrics: Vec<SampledMetric>,
    pub(super) samples: Samples,
}

/// A GPU, by what a process calls it.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownDevice {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) peaks: Peaks,
}

/// What is alike: launches of one kernel with one grid, or copies of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Unit {
    /// None for copies.
    pub(super) name: Option<u32>,
    grid: [i32; 3],
    /// Of copies: number of their kind.
    kind: u32,
}

/// Launches, and their time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) count: u64,
    pub(super) ns: i64,
}

/// Runs of a device.
#[derive(Debug, Default)]
pub(super) struct Worked {
    pub(super) runs: Vec<Run>,
    numbers: FxHashMap<Unit, u32>,
    /// By name, then unit.
    pub(super) names: BTreeMap<u32, BTreeMap<u32, Totals>>,
    /// By layer, then unit.
    pub(super) layers: BTreeMap<u32, BTreeMap<u32, Totals>>,
    /// Whose kernels these are: what each process calls this GPU.
    pub(super) places: BTreeSet<Place>,
    /// Start of the first kernel of each window of each process, and end of the last.
    windows: BTreeMap<(u32, u32), (i64, i64)>,
}

impl Worked {
    pub(super) fn units(&self) -> usize {
        self.numbers.len()
    }

    /// Stretches of time in which kernels are known, in order: before the first of a window, and after its last, others may
    /// have run, as between the bursts of `--mode sampled`.
    fn known(&self) -> Vec<(i64, i64)> {
        let mut bounds: Vec<(i64, i64)> = self.windows.values().copied().collect();
        bounds.sort_unstable();
        let mut known: Vec<(i64, i64)> = Vec::new();
        for (start, end) in bounds {
            match known.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => known.push((start, end)),
            }
        }
        known
    }

    fn unit(&mut self, unit: Unit) -> u32 {
        let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(unit).or_insert(next)
    }
}

/// Leaves blocks of time out of what is too long.
#[derive(Debug, Clone, Copy)]
struct Thinning(i64);

impl Thinning {
    fn of(session: &Session) -> Self {
        let metrics = session
            .manifest()
            .processes
            .iter()
            .flat_map(|process| &process.counters);
        let metrics = metrics
            .map(|device| device.metrics.len() as u64)
            .max()
            .unwrap_or(1)
            .max(1);
        let samples = session.rows("counters") / metrics / MOST_SAMPLES;
        let kernels = session.rows("kernels") / MOST_KERNELS;
        Self(i64::try_from(1 + samples.max(kernels)).unwrap_or(i64::MAX))
    }

    fn keeps(self, start: i64, end: i64) -> bool {
        let block = |time: i64| time.div_euclid(BLOCK_NS);
        (block(start)..=block(end)).any(|block| block.rem_euclid(self.0) == 0)
    }
}

/// All of a session.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) sampled: BTreeMap<Place, Sampled>,
    pub(super) worked: BTreeMap<Place, Worked>,
    pub(super) devices: BTreeMap<Place, KnownDevice>,
    pub(super) names: Texts,
    pub(super) short_names: BTreeMap<u32, String>,
    pub(super) layers: Texts,
    pub(super) problems: Vec<Problem>,
}

impl Gathered {
    pub(super) fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let mut all = Self::default();
        if session.rows("counters") == 0 {
            return Ok(all);
        }
        let thinning = Thinning::of(session);
        all.add_samples(session, selection, thinning)?;
        if all.sampled.is_empty() {
            return Ok(all);
        }
        all.add_devices(session)?;
        all.add_kernels(session, selection, thinning)?;
        all.add_copies(session, thinning)?;
        for (place, worked) in &all.worked {
            if let Some(sampled) = all.sampled.get_mut(place) {
                sampled.samples.keep_within(&worked.known());
            }
        }
        Ok(all)
    }

    fn add_samples(
        &mut self,
        session: &Session,
        selection: Option<&Selection>,
        thinning: Thinning,
    ) -> Result<(), SessionError> {
        let columns = ["metric", "unit", "value", "start_ns", "end_ns", "pid", "device_id"];
        let mut scan = session.scan("counters", &columns)?;
        let mut names = Texts::default();
        let mut map = EntryMap::default();
        for batch in scan.by_ref() {
            let batch = selection.map_or_else(|| batch.clone(), |selection| selection.filter(&batch));
            let metrics = texts(&batch, 0);
            let numbers = map.of(metrics, |name| names.number(name)).to_vec();
            let units = texts(&batch, 1);
            let values = batch.column(2).as_primitive::<Float64Type>();
            let (starts, ends) = (i64s(&batch, 3), i64s(&batch, 4));
            let (pids, devices) = (u32s(&batch, 5), u32s(&batch, 6));
            for row in 0..batch.num_rows() {
                let (start, end) = (starts[row], ends[row]);
                let Some(key) = metrics.key(row).filter(|_| end > start && thinning.keeps(start, start)) else {
                    continue;
                };
                let of_device = self.sampled.entry((pids[row], devices[row])).or_default();
                let name = names.get(numbers[key]);
                let value = if values.is_null(row) {
                    f64::NAN
                } else {
                    values.value(row)
                };
                let unit = || {
                    units
                        .key(row)
                        .map_or("", |key| units.values().as_string::<i32>().value(key))
                        .to_owned()
                };
                of_device.add(&name, unit, start, end, value);
            }
        }
        self.problems.extend(scan.into_problems());
        for of_device in self.sampled.values_mut() {
            of_device.finish();
        }
        self.sampled.retain(|_, of_device| of_device.samples.len() > 0);
        Ok(())
    }

    fn add_devices(&mut self, session: &Session) -> Result<(), SessionError> {
        let columns = ["pid", "device_id", "name", "uuid", "memory_bandwidth_bytes_per_s"];
        for batch in session.scan("devices", &columns)? {
            let (pids, ordinals) = (u32s(&batch, 0), u32s(&batch, 1));
            let bandwidths = batch.column(4).as_primitive::<UInt64Type>();
            let text = |column: usize, row: usize| {
                let texts = texts(&batch, column);
                let key = texts.key(row)?;
                Some(texts.values().as_string::<i32>().value(key).to_owned())
            };
            for row in 0..batch.num_rows() {
                let name = text(2, row);
                let bandwidth = bandwidths.is_valid(row).then(|| bandwidths.value(row));
                let peaks = Peaks::of(name.as_deref().unwrap_or_default(), bandwidth);
                let device = KnownDevice {
                    uuid: text(3, row),
                    name,
                    peaks,
                };
                self.devices.insert((pids[row], ordinals[row]), device);
            }
        }
        Ok(())
    }

    /// Places of the samples that are of the GPU that a process calls so.
    fn sampled_as(&self, place: Place) -> Vec<Place> {
        let uuid = |place: &Place| self.devices.get(place).and_then(|device| device.uuid.as_deref());
        let is_same = |other: &&Place| **other == place || (uuid(other).is_some() && uuid(other) == uuid(&place));
        self.sampled.keys().filter(is_same).copied().collect()
    }

    fn add_kernels(
        &mut self,
        session: &Session,
        selection: Option<&Selection>,
        thinning: Thinning,
    ) -> Result<(), SessionError> {
        let columns = [
            "start_ns",
            "end_ns",
            "pid",
            "device_id",
            "window",
            "name",
            "layer",
            "short_name",
            "grid_x",
            "grid_y",
            "grid_z",
        ];
        let mut maps: [EntryMap; 2] = Default::default();
        let mut places = BTreeMap::<Place, Vec<Place>>::new();
        let mut problems = Vec::new();
        let read = each_batch(session, selection, &columns, |batch| {
            let names = self.numbers(batch, &mut maps[0]);
            let layers = texts(batch, 6);
            let layer_map = maps[1].of(layers, |text| self.layers.number(text)).to_vec();
            let (starts, ends) = (i64s(batch, 0), i64s(batch, 1));
            let (pids, devices, windows) = (u32s(batch, 2), u32s(batch, 3), u32s(batch, 4));
            for row in 0..batch.num_rows() {
                let own = (pids[row], devices[row]);
                let of = places.entry(own).or_insert_with(|| self.sampled_as(own)).clone();
                for place in of {
                    let worked = self.worked.entry(place).or_default();
                    worked.places.insert(own);
                    let name = names[row];
                    let unit = worked.unit(Unit {
                        name: Some(name),
                        grid: std::array::from_fn(|axis| i32s(batch, 8 + axis)[row]),
                        kind: 0,
                    });
                    let bounds = worked.windows.entry((pids[row], windows[row]));
                    let bounds = bounds.or_insert((starts[row], ends[row]));
                    *bounds = (bounds.0.min(starts[row]), bounds.1.max(ends[row]));
                    let ns = ends[row].saturating_sub(starts[row]);
                    let add = |totals: &mut Totals| {
                        totals.count += 1;
                        totals.ns = totals.ns.saturating_add(ns);
                    };
                    add(worked.names.entry(name).or_default().entry(unit).or_default());
                    if let Some(key) = layers.key(row) {
                        add(worked
                            .layers
                            .entry(layer_map[key])
                            .or_default()
                            .entry(unit)
                            .or_default());
                    }
                    let samples = self.sampled.get(&place).map(|sampled| &sampled.samples);
                    if samples.is_some_and(|samples| is_near(samples, starts[row], ends[row]))
                        && thinning.keeps(starts[row], ends[row])
                    {
                        let (start, end) = (starts[row], ends[row]);
                        worked.runs.push(Run { start, end, unit });
                    }
                }
            }
        })?;
        problems.extend(read);
        self.problems.extend(problems);
        Ok(())
    }

    /// Number of each row's name; remembers its short form.
    fn numbers(&mut self, batch: &RecordBatch, map: &mut EntryMap) -> Vec<u32> {
        let (names, short) = (texts(batch, 5), texts(batch, 7));
        let map = map.of(names, |name| self.names.number(name)).to_vec();
        let unnamed = (names.null_count() > 0).then(|| self.names.number(""));
        let number = |row: usize| names.key(row).map_or(unnamed.unwrap_or_default(), |key| map[key]);
        let numbers: Vec<u32> = (0..batch.num_rows()).map(number).collect();
        for (row, number) in numbers.iter().enumerate() {
            if let (false, Some(key)) = (self.short_names.contains_key(number), short.key(row)) {
                let text = short.values().as_string::<i32>().value(key).to_owned();
                self.short_names.insert(*number, text);
            }
        }
        numbers
    }

    /// Copies and fills use the memory, too.
    fn add_copies(&mut self, session: &Session, thinning: Thinning) -> Result<(), SessionError> {
        let mut kinds = Texts::default();
        for (table, last) in [("memcpys", Some("copy_kind")), ("memsets", None)] {
            let columns = ["start_ns", "end_ns", "pid", "device_id"].into_iter().chain(last);
            let mut scan = session.scan(table, &columns.collect::<Vec<_>>())?;
            for batch in scan.by_ref() {
                let (starts, ends) = (i64s(&batch, 0), i64s(&batch, 1));
                let (pids, devices) = (u32s(&batch, 2), u32s(&batch, 3));
                for row in 0..batch.num_rows() {
                    let kind = last.and_then(|_| {
                        let kinds = texts(&batch, 4);
                        Some(kinds.values().as_string::<i32>().value(kinds.key(row)?))
                    });
                    let kind = kinds.number(kind.unwrap_or(table));
                    let (start, end) = (starts[row], ends[row]);
                    for place in self.sampled_as((pids[row], devices[row])) {
                        let samples = self.sampled.get(&place).map(|sampled| &sampled.samples);
                        if !samples.is_some_and(|samples| is_near(samples, start, end)) || !thinning.keeps(start, end) {
                            continue;
                        }
                        let worked = self.worked.entry(place).or_default();
                        let unit = worked.unit(Unit {
                            name: None,
                            grid: [0; 3],
                            kind,
                        });
                        worked.runs.push(Run { start, end, unit });
                    }
                }
            }
            self.problems.extend(scan.into_problems());
        }
        Ok(())
    }
}

/// Whether a run lies in the time of the samples, or close by.
fn is_near(samples: &Samples, start: i64, end: i64) -> bool {
    let (Some(first), Some(last)) = (samples.starts.first(), samples.ends.last()) else {
        return false;
    };
    start < last.saturating_add(MARGIN_NS) && end > first.saturating_sub(MARGIN_NS)
}

impl Sampled {
    /// The metrics of a sample follow each other.
    fn add(&mut self, name: &str, unit: impl Fn() -> String, start: i64, end: i64, value: f64) {
        let metric = self
            .metrics
            .iter()
            .position(|metric| metric.name == name)
            .unwrap_or_else(|| {
                self.metrics.push(SampledMetric {
                    name: name.to_owned(),
                    unit: unit(),
                });
                self.samples.values.push(Vec::new());
                self.metrics.len() - 1
            });
        let samples = &mut self.samples;
        if samples.starts.last() != Some(&start) {
            samples.starts.push(start);
            samples.ends.push(end);
        }
        let values = &mut samples.values[metric];
        values.resize(samples.starts.len() - 1, f64::NAN);
        values.push(value);
    }

    /// Leaves out metrics that no sum over kernels makes, and those without values; bytes become GB/s.
    fn finish(&mut self) {
        let count = self.samples.starts.len();
        for values in &mut self.samples.values {
            values.resize(count, f64::NAN);
        }
        let mut metrics = std::mem::take(&mut self.metrics).into_iter();
        let samples = &mut self.samples;
        let is_told = |values: &[f64]| values.iter().filter(|value| value.is_finite()).count() * 10 >= count * 9;
        samples.values.retain(|values| {
            let Some(metric) = metrics.next() else { return false };
            let keep = is_additive(&metric.name) && is_told(values);
            if keep {
                self.metrics.push(metric);
            }
            keep
        });
        for (metric, values) in self.metrics.iter_mut().zip(&mut samples.values) {
            if metric.unit == "bytes" {
                "GB/s".clone_into(&mut metric.unit);
                let lengths = samples
                    .starts
                    .iter()
                    .zip(&samples.ends)
                    .map(|(start, end)| (end - start) as f64);
                values
                    .iter_mut()
                    .zip(lengths)
                    .for_each(|(value, length)| *value /= length);
            }
        }
        samples.tidy();
        if self.metrics.is_empty() {
            *samples = Samples::default();
        }
    }
}

/// Whether the metric of a sample is the mean of what its kernels have, by time: a ratio of two counts is not.
fn is_additive(metric: &str) -> bool {
    let is_ratio = metric.contains("__") && (metric.ends_with(".pct") || metric.ends_with(".ratio"));
    !is_ratio && !metric.ends_with("hit_rate")
}
