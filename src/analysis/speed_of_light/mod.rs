//! Speed of light of each kernel, from samples of the whole GPU and the kernels' times: no kernel is run twice.
//!
//! A sample of 100 us holds many kernels. But each holds others, and of each kernel another part, so that thousands of samples
//! tell what every kernel does while it runs: least squares over all of them (`fit`), with the offset between the clocks of
//! samples and kernels (`offset`). Where several kernels run at once, their common time is an unknown of its own (`timeline`).
//! Each figure has an interval, and none is given where it can't be told (`estimate`).

mod chip;
mod estimate;
mod fit;
mod gather;
mod offset;
mod samples;
#[cfg(test)]
mod simulated;
mod timeline;

use std::collections::BTreeMap;

use serde::Serialize;

pub use chip::Peaks;
pub use estimate::{Figure, Trust};

use crate::analysis::speed_of_light::estimate::{Estimate, Input, LEVEL};
use crate::analysis::speed_of_light::gather::{Gathered, KnownDevice, SampledMetric, Totals, Worked};
use crate::schema::counters::{
    DRAM_READ_THROUGHPUT, DRAM_THROUGHPUT, DRAM_WRITE_THROUGHPUT, INSTRUCTIONS, SM_THROUGHPUT, TENSOR_ACTIVE,
};
use crate::schema::manifest::Problem;
use crate::session::{Selection, Session, SessionError};

/// From this part of its peak on, a resource is what bounds a kernel, %.
pub const BOUND_PCT: f64 = 60.0;

/// What keeps a kernel from being faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Device memory.
    Memory,
    /// Tensor pipes, or the instructions of the SMs.
    Compute,
    /// Neither is busy: launches too small, waits, too few warps.
    Latency,
}

/// Where a kernel stands under the roofline: parts of the peaks, %.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Roofline {
    /// Device memory.
    pub memory_pct: f64,
    /// The busiest of tensor pipes, instructions and SMs.
    pub compute_pct: f64,
    /// What bounds it.
    pub bound: Bound,
    /// FLOP a byte of device memory, were all tensor operations on dense matrices of 16 bits an entry; null without
    /// these figures, where the interval of one reaches 0, or without the chip's peaks.
    pub tensor_flop_per_byte: Option<f64>,
}

/// A figure of a metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricFigure {
    /// Metric.
    pub metric: String,
    /// `%` of the peak while it ran, or `GB/s`, `Hz` or `count`.
    pub unit: String,
    /// The figure.
    #[serde(flatten)]
    pub figure: Figure,
    /// Bytes a launch, of metrics in GB/s.
    pub bytes_per_launch: Option<f64>,
}

/// Kernels of one name, or of one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Demangled name of the kernel, or the layer.
    pub name: String,
    /// Function name without namespaces and arguments; the layer again.
    pub short_name: String,
    /// Launches.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: i64,
    /// Part of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Part of its time, as far as it was sampled, in which nothing else ran, 0 to 1.
    pub alone: f64,
    /// In the order of the device's metrics.
    pub figures: Vec<MetricFigure>,
    /// Null without figures of memory and compute.
    pub roofline: Option<Roofline>,
}

impl Speed {
    /// The figure of a metric.
    pub fn figure(&self, metric: &str) -> Option<&MetricFigure> {
        self.figures.iter().find(|figure| figure.metric == metric)
    }
}

/// A metric of the fit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FittedMetric {
    /// Metric.
    pub metric: String,
    /// Unit of its figures.
    pub unit: String,
    /// Part of the samples' variance that the kernels' figures explain, 0 to 1.
    pub explained: f64,
}

/// A device that was sampled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceSpeed {
    /// Process that sampled.
    pub pid: u32,
    /// CUDA ordinal in it.
    pub device_id: u32,
    /// Processes whose kernels these are, each with what it calls this GPU.
    pub processes: Vec<(u32, u32)>,
    /// Product name.
    pub name: Option<String>,
    /// What it can do at most.
    pub peaks: Peaks,
    /// Samples that were fitted, and their length, ns.
    pub samples: u64,
    /// See `samples`.
    pub sample_ns: i64,
    /// The samples' clock is ahead of the kernels' by this, as found, and how well that is known (standard deviation).
    pub offset_ns: i64,
    /// See `offset_ns`.
    pub offset_sd_ns: f64,
    /// Metrics with figures.
    pub metrics: Vec<FittedMetric>,
    /// By name, the longest in total first.
    pub kernels: Vec<Speed>,
    /// Layers, in order.
    pub layers: Vec<Speed>,
}

/// All of a session.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SpeedOfLight {
    /// Probability of the intervals.
    pub level: f64,
    /// Devices with samples and kernels.
    pub devices: Vec<DeviceSpeed>,
    /// What was found broken while reading.
    pub problems: Vec<Problem>,
}

impl SpeedOfLight {
    /// Of the selected windows, of all without a selection.
    pub fn of(session: &Session, selection: Option<&Selection>) -> Result<Self, SessionError> {
        let mut gathered = Gathered::of(session, selection)?;
        let mut devices = Vec::new();
        for ((pid, device_id), sampled) in std::mem::take(&mut gathered.sampled) {
            let Some(worked) = gathered.worked.get_mut(&(pid, device_id)) else {
                continue;
            };
            let (samples, sample_ns) = (sampled.samples.len() as u64, sampled.samples.length_ns());
            let input = Input {
                samples: sampled.samples,
                runs: std::mem::take(&mut worked.runs),
                units: worked.units(),
                most: sampled
                    .metrics
                    .iter()
                    .map(|metric| (metric.unit == "%").then_some(100.0))
                    .collect(),
            };
            let processes = worked.places.iter().copied().collect();
            let Some(estimate) = Estimate::new(input) else { continue };
            let known = gathered.devices.get(&(pid, device_id)).cloned().unwrap_or_default();
            let (offset_ns, offset_sd_ns) = (estimate.offset.ns, estimate.offset.sd_ns);
            let fitted = sampled.metrics.iter().enumerate().map(|(number, metric)| FittedMetric {
                metric: metric.name.clone(),
                unit: metric.unit.clone(),
                explained: estimate.explained(number),
            });
            let metrics = fitted.collect();
            let speeds = Speeds {
                estimate,
                metrics: &sampled.metrics,
                known: &known,
                total_ns: worked
                    .names
                    .values()
                    .flat_map(BTreeMap::values)
                    .map(|totals| totals.ns)
                    .sum(),
            };
            devices.push(DeviceSpeed {
                pid,
                device_id,
                processes,
                samples,
                sample_ns,
                offset_ns,
                offset_sd_ns,
                metrics,
                kernels: speeds.kernels(&gathered, worked_of(&gathered, (pid, device_id))),
                layers: speeds.layers(&gathered, worked_of(&gathered, (pid, device_id))),
                peaks: known.peaks,
                name: known.name.clone(),
            });
        }
        Ok(Self {
            level: LEVEL,
            devices,
            problems: gathered.problems,
        })
    }
}

/// What ran on a device.
fn worked_of(gathered: &Gathered, place: (u32, u32)) -> impl Iterator<Item = &Worked> {
    gathered.worked.get(&place).into_iter()
}

/// Makes figures of a device.
struct Speeds<'a> {
    estimate: Estimate,
    metrics: &'a [SampledMetric],
    known: &'a KnownDevice,
    total_ns: i64,
}

impl Speeds<'_> {
    fn kernels<'a>(&self, gathered: &Gathered, worked: impl Iterator<Item = &'a Worked>) -> Vec<Speed> {
        let of_name = |(name, units): (&u32, &BTreeMap<u32, Totals>)| {
            let short = gathered.short_names.get(name).cloned();
            let name = gathered.names.get(*name);
            self.speed(short.unwrap_or_else(|| name.clone()), name, units)
        };
        let mut kernels: Vec<Speed> = worked.flat_map(|worked| &worked.names).map(of_name).collect();
        kernels.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| a.name.cmp(&b.name)));
        kernels
    }

    fn layers<'a>(&self, gathered: &Gathered, worked: impl Iterator<Item = &'a Worked>) -> Vec<Speed> {
        let of_layer = |(layer, units): (&u32, &BTreeMap<u32, Totals>)| {
            let layer = gathered.layers.get(*layer);
            self.speed(layer.clone(), layer, units)
        };
        let mut layers: Vec<Speed> = worked.flat_map(|worked| &worked.layers).map(of_layer).collect();
        let number = |speed: &Speed| speed.name.parse::<u32>().unwrap_or(u32::MAX);
        layers.sort_by_cached_key(|speed| (number(speed), speed.name.clone()));
        layers
    }

    fn speed(&self, short_name: String, name: String, units: &BTreeMap<u32, Totals>) -> Speed {
        let parts: Vec<(u32, i64)> = units.iter().map(|(unit, totals)| (*unit, totals.ns)).collect();
        let count = units.values().map(|totals| totals.count).sum();
        let total_ns = units.values().map(|totals| totals.ns).sum();
        let mean_ns = total_ns as f64 / (count as f64).max(1.0);
        let figure = |(number, metric): (usize, &SampledMetric)| {
            let figure = self.estimate.figure(&parts, number);
            let bytes = figure
                .value
                .filter(|_| metric.unit == "GB/s")
                .map(|rate| rate * mean_ns);
            MetricFigure {
                metric: metric.name.clone(),
                unit: metric.unit.clone(),
                figure,
                bytes_per_launch: bytes,
            }
        };
        let figures: Vec<MetricFigure> = self.metrics.iter().enumerate().map(figure).collect();
        Speed {
            roofline: roofline(&figures, self.known.peaks),
            name,
            short_name,
            count,
            total_ns,
            share: total_ns as f64 / (self.total_ns as f64).max(1.0),
            alone: self.estimate.alone(units.keys().copied()),
            figures,
        }
    }
}

fn roofline(figures: &[MetricFigure], peaks: Peaks) -> Option<Roofline> {
    let value = |name: &str| {
        let figure = figures.iter().find(|figure| figure.metric == name)?;
        figure.figure.value
    };
    let both = || Some(value(DRAM_READ_THROUGHPUT)? + value(DRAM_WRITE_THROUGHPUT)?);
    let memory_pct = value(DRAM_THROUGHPUT).or_else(both)?;
    let compute = [TENSOR_ACTIVE, INSTRUCTIONS, SM_THROUGHPUT]
        .into_iter()
        .filter_map(value);
    let compute_pct = compute.reduce(f64::max)?;
    let bound = match () {
        () if memory_pct.max(compute_pct) < BOUND_PCT => Bound::Latency,
        () if memory_pct >= compute_pct => Bound::Memory,
        () => Bound::Compute,
    };
    // A quotient of what may as well be nothing says nothing.
    let is_told = |name: &str| {
        figures
            .iter()
            .any(|figure| figure.metric == name && figure.figure.low > Some(0.0))
    };
    let memory_is_told = is_told(DRAM_THROUGHPUT) || is_told(DRAM_READ_THROUGHPUT) || is_told(DRAM_WRITE_THROUGHPUT);
    let intensity = || {
        let flops = value(TENSOR_ACTIVE)? / 100.0 * peaks.tensor_tflop_s? * 1e12;
        let bytes = memory_pct / 100.0 * peaks.dram_gb_s? * 1e9;
        (memory_is_told && is_told(TENSOR_ACTIVE)).then_some(flops / bytes)
    };
    Some(Roofline {
        memory_pct,
        compute_pct,
        bound,
        tensor_flop_per_byte: intensity(),
    })
}
