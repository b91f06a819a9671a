//! Hardware counters by window and device: mean, median and peak of each metric.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Array as _, RecordBatch};
use serde::Serialize;

use crate::analysis::columns::{EntryMap, i64s, texts, u32s};
use crate::analysis::frames::{Frame, Frames};
use crate::schema::counters::METRICS;
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// A metric within a window, on one device. Bytes are told as bytes a nanosecond, which is GB/s.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CounterSummary {
    /// Process that sampled.
    pub pid: u32,
    /// Window, those within it included.
    pub window: u32,
    /// CUDA ordinal.
    pub device_id: u32,
    /// Metric.
    pub metric: String,
    /// `%`, `GB/s`, `Hz` or `count`.
    pub unit: String,
    /// Samples with a value.
    pub samples: u64,
    /// Mean over time.
    pub mean: f64,
    /// Median sample.
    pub median: f64,
    /// Largest sample.
    pub max: f64,
    /// Sum of all samples, of a metric in bytes: bytes.
    pub bytes: Option<f64>,
}

/// All of a session.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counters {
    /// By process, window, device, and in the order of colonel's metrics.
    pub metrics: Vec<CounterSummary>,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

/// Process, window, device, number of the metric.
type Place = (u32, u32, u32, u32);

/// Bits of a value's order that each pass over the table settles of a median: memory stays small however many samples
/// there are.
const PASSES: [u32; 3] = [16, 16, 32];

#[derive(Debug, Default)]
struct Group {
    count: u64,
    /// Sum of values by their time, and the time.
    weighted: f64,
    length_ns: f64,
    max: Option<f64>,
    /// The median's first bits, as far as they are known, and how many samples lie below them.
    prefix: u64,
    below: u64,
    /// Samples by the bits of this pass.
    counts: BTreeMap<u64, u64>,
}

impl Counters {
    /// Reads the table.
    pub fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let frames = Frames::of_all(&session.manifest().processes, selection);
        let mut fold = Fold::default();
        let mut problems = Vec::new();
        let mut settled = 0;
        for bits in PASSES {
            let mut scan = session.scan("counters", &Fold::COLUMNS)?;
            for batch in scan.by_ref() {
                let batch = selection.map_or_else(|| batch.clone(), |selection| selection.filter(&batch));
                fold.add(&batch, &frames, settled, bits);
            }
            problems = scan.into_problems();
            fold.settle(bits);
            settled += bits;
        }
        Ok(Self {
            metrics: fold.finish(),
            problems,
        })
    }
}

#[derive(Debug, Default)]
struct Fold {
    /// Name and unit.
    names: Vec<(String, String)>,
    metrics: EntryMap,
    groups: BTreeMap<Place, Group>,
}

impl Fold {
    const COLUMNS: [&'static str; 8] = [
        "metric",
        "unit",
        "value",
        "start_ns",
        "end_ns",
        "pid",
        "device_id",
        "window",
    ];

    fn add(&mut self, batch: &RecordBatch, frames: &Frames, settled: u32, bits: u32) {
        let (metrics, units) = (texts(batch, 0), texts(batch, 1));
        let unit_of = |row: usize| {
            units
                .key(row)
                .map_or("", |key| units.values().as_string::<i32>().value(key))
        };
        let names = &mut self.names;
        let map = self.metrics.of(metrics, |name| number_of(names, name)).to_vec();
        let values = batch.column(2).as_primitive::<Float64Type>();
        let (starts, ends) = (i64s(batch, 3), i64s(batch, 4));
        let (pids, devices, windows) = (u32s(batch, 5), u32s(batch, 6), u32s(batch, 7));
        for row in 0..batch.num_rows() {
            let Some(metric) = metrics.key(row).map(|key| map[key]) else {
                continue;
            };
            let name = &mut self.names[metric as usize];
            if name.1.is_empty() {
                name.1 = unit_of(row).to_owned();
            }
            if values.is_null(row) {
                continue;
            }
            let length_ns = ends[row].saturating_sub(starts[row]).max(1) as f64;
            let value = values.value(row);
            let value = if name.1 == BYTES { value / length_ns } else { value };
            for frame in frames.of(pids[row], windows[row]).iter() {
                if let Frame::Window(window) = *frame {
                    let group = self
                        .groups
                        .entry((pids[row], window, devices[row], metric))
                        .or_default();
                    group.add(value, length_ns, settled, bits);
                }
            }
        }
    }

    /// The next bits of each median.
    fn settle(&mut self, bits: u32) {
        for group in self.groups.values_mut() {
            // The smallest value that half of the samples do not exceed.
            let wanted = group.count.div_ceil(2);
            let mut reached = group.below;
            for (&digits, &count) in &group.counts {
                if reached + count >= wanted {
                    group.prefix = group.prefix.checked_shl(bits).unwrap_or(0) | digits;
                    break;
                }
                reached += count;
            }
            group.below = reached;
            group.counts.clear();
        }
    }

    fn finish(self) -> Vec<CounterSummary> {
        let names = &self.names;
        let summary = |(&(pid, window, device_id, metric), group): (&Place, &Group)| {
            let (name, unit) = &names[metric as usize];
            let is_bytes = unit == BYTES;
            CounterSummary {
                pid,
                window,
                device_id,
                metric: name.clone(),
                unit: if is_bytes { "GB/s".to_owned() } else { unit.clone() },
                samples: group.count,
                mean: group.weighted / group.length_ns,
                median: value_of(group.prefix),
                max: group.max.unwrap_or(f64::NAN),
                bytes: is_bytes.then_some(group.weighted),
            }
        };
        let mut all: Vec<CounterSummary> = self.groups.iter().map(summary).collect();
        let place = |name: &str| {
            METRICS
                .iter()
                .position(|metric| metric.name == name)
                .unwrap_or(usize::MAX)
        };
        all.sort_by_cached_key(|one| {
            (
                one.pid,
                one.window,
                one.device_id,
                place(&one.metric),
                one.metric.clone(),
            )
        });
        all
    }
}

/// Unit of what is told as a rate.
const BYTES: &str = "bytes";

fn number_of(names: &mut Vec<(String, String)>, name: &str) -> u32 {
    let index = names.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        names.push((name.to_owned(), String::new()));
        names.len() - 1
    });
    u32::try_from(index).unwrap_or(u32::MAX)
}

impl Group {
    fn add(&mut self, value: f64, length_ns: f64, settled: u32, bits: u32) {
        if settled == 0 {
            self.count += 1;
            self.weighted += value * length_ns;
            self.length_ns += length_ns;
            self.max = Some(self.max.map_or(value, |max| max.max(value)));
        }
        let order = order_of(value);
        let known = order.checked_shr(64 - settled).unwrap_or(0);
        if known == self.prefix {
            let digits = order.checked_shl(settled).unwrap_or(0) >> (64 - bits);
            *self.counts.entry(digits).or_default() += 1;
        }
    }
}

/// A number that orders as the value does.
fn order_of(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn value_of(order: u64) -> f64 {
    f64::from_bits(if order >> 63 == 1 { order & !(1 << 63) } else { !order })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_median_is_the_sample_that_half_do_not_exceed(mut values in prop::collection::vec(-1e9..1e9_f64, 1..200)) {
            let mut fold = Fold::default();
            let mut settled = 0;
            for bits in PASSES {
                for value in &values {
                    fold.groups.entry((1, 1, 0, 0)).or_default().add(*value, 1.0, settled, bits);
                }
                fold.settle(bits);
                settled += bits;
            }
            fold.names.push(("x".to_owned(), "%".to_owned()));
            let found = fold.finish().remove(0);
            values.sort_by(f64::total_cmp);
            prop_assert_eq!(found.median, values[values.len().div_ceil(2) - 1]);
            prop_assert_eq!(found.max, *values.last().unwrap());
            prop_assert_eq!(found.samples, values.len() as u64);
        }
    }
}
