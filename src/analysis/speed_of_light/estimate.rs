//! Figures of kernels from the samples that they had a part in, and how far each is to be trusted.

use nalgebra::DVector;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use crate::analysis::speed_of_light::fit::{BLOCKS, Fit, Problem};
use crate::analysis::speed_of_light::offset::{self, Offset};
use crate::analysis::speed_of_light::samples::Samples;
use crate::analysis::speed_of_light::timeline::{Column, Run, Timeline};

/// Probability of the intervals.
pub(super) const LEVEL: f64 = 0.9;
/// Unknowns at most, and samples' worth of time that one needs.
const MOST_COLUMNS: usize = 240;
const LEAST_SAMPLES: f64 = 5.0;
/// Samples without which nothing is fitted, for each unknown.
const SAMPLES_A_COLUMN: usize = 3;
/// What ran beside others for more than this part of its time has no figure of its own.
const MOST_BESIDE: f64 = 0.5;
/// Time of it that must be in columns of its own.
const LEAST_TOLD: f64 = 0.8;
/// How much its neighbours may blow up the variance of a figure.
const MOST_INFLATION: f64 = 300.0;
/// The interval to either side, of the metric's range: wider ones are no figure, narrower ones than the second good ones.
const WIDEST: f64 = 0.1;
const GOOD: f64 = 0.04;
/// What the interval has to either side besides what samples tell, of the metric's range: with it, 9 of 10 figures of an H100
/// hold what ncu says (docs/measurements/2026-11-24-counters-3). The model is not the world: traffic lags behind its kernel.
pub(super) const MODEL: f64 = 0.025;

/// How far a figure is to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// The interval is at most 4 points to either side.
    Good,
    /// It is wider.
    Fair,
    /// No figure: it ran beside other kernels most of its time.
    Concurrent,
    /// No figure: too little time of it was sampled.
    FewSamples,
    /// No figure: it runs with its neighbours in the same samples, so that theirs and its own can't be told apart.
    Inseparable,
}

/// A figure of a kernel, or of several together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Null where it can't be told.
    pub value: Option<f64>,
    /// 90 % interval.
    pub low: Option<f64>,
    /// See `low`.
    pub high: Option<f64>,
    /// How far it is to be trusted, or why there is none.
    pub trust: Trust,
}

/// What a device did and what was counted meanwhile.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) samples: Samples,
    pub(super) runs: Vec<Run>,
    /// How many kinds of runs there are.
    pub(super) units: usize,
    /// Largest value of each metric.
    pub(super) most: Vec<Option<f64>>,
}

/// The fit of a device.
#[derive(Debug)]
pub(super) struct Estimate {
    timeline: Timeline,
    fit: Fit,
    pub(super) offset: Offset,
    /// Range of each metric: what widths are measured by.
    ranges: Vec<f64>,
    length_ns: f64,
    /// Columns of each unit's parts.
    columns: Vec<Vec<usize>>,
    quantile: f64,
}

impl Estimate {
    /// None where there is too little to fit.
    pub(super) fn new(input: Input) -> Option<Self> {
        let Input {
            samples,
            runs,
            units,
            most,
        } = input;
        let length_ns = samples.length_ns();
        if length_ns == 0 || runs.is_empty() {
            return None;
        }
        let columns = (samples.len() / SAMPLES_A_COLUMN).min(MOST_COLUMNS);
        let timeline = Timeline::new(runs, units, columns, (LEAST_SAMPLES * length_ns as f64) as i64);
        let count = timeline.columns.len();
        if samples.len() < BLOCKS.max(SAMPLES_A_COLUMN * count) {
            return None;
        }
        let offset = offset::estimate(&samples, &timeline.stretches, count);
        let problem = Problem {
            samples: &samples,
            stretches: &timeline.stretches,
            columns: count,
            most: &most,
        };
        let fit = Fit::new(problem, offset.ns, offset.sd_ns)?;
        let range = |(metric, most): (usize, &Option<f64>)| most.unwrap_or_else(|| fit.figures.column(metric).max());
        let ranges = most.iter().enumerate().map(range).collect();
        let mut column_of = vec![Vec::new(); units];
        for (column, what) in timeline.columns.iter().enumerate() {
            if let Column::Alone(unit, _) = what {
                column_of[*unit as usize].push(column);
            }
        }
        Some(Self {
            quantile: StudentsT::new(0.0, 1.0, BLOCKS as f64 - 1.0)
                .ok()?
                .inverse_cdf(f64::midpoint(1.0, LEVEL)),
            timeline,
            fit,
            offset,
            ranges,
            length_ns: length_ns as f64,
            columns: column_of,
        })
    }

    /// Part of a metric's variance that the figures explain.
    pub(super) fn explained(&self, metric: usize) -> f64 {
        self.fit.explained[metric]
    }

    /// Part of the time of these units in which nothing else ran.
    pub(super) fn alone(&self, units: impl Iterator<Item = u32>) -> f64 {
        let (mut alone, mut busy) = (0, 0);
        for unit in units {
            alone += self.timeline.alone_ns[unit as usize];
            busy += self.timeline.busy_ns[unit as usize];
        }
        alone as f64 / (busy.max(1)) as f64
    }

    /// Of units that have these times, by time.
    pub(super) fn figure(&self, parts: &[(u32, i64)], metric: usize) -> Figure {
        let none = |trust| Figure {
            value: None,
            low: None,
            high: None,
            trust,
        };
        let mut weights = DVector::zeros(self.timeline.columns.len());
        let (mut told, mut all, mut alone_ns) = (0.0, 0.0, 0.0);
        for &(unit, ns) in parts {
            let unit = unit as usize;
            all += ns as f64;
            // Parts are equally long.
            let of_part = ns as f64 / f64::from(self.timeline.parts[unit]);
            for column in &self.columns[unit] {
                weights[*column] += of_part;
                told += of_part;
            }
            alone_ns += self.timeline.alone_ns[unit] as f64;
        }
        if self.alone(parts.iter().map(|(unit, _)| *unit)) < 1.0 - MOST_BESIDE {
            return none(Trust::Concurrent);
        }
        if told < LEAST_TOLD * all || all == 0.0 || alone_ns < LEAST_SAMPLES * self.length_ns {
            return none(Trust::FewSamples);
        }
        weights /= told;
        let inflation = self.fit.inflation(&weights);
        let (value, sd) = self.fit.sum(&weights, metric);
        let range = self.ranges[metric];
        let half = (sd * self.quantile).hypot(MODEL * range);
        if inflation > MOST_INFLATION {
            return none(Trust::Inseparable);
        }
        if half > WIDEST * range {
            let is_mixed = inflation > 10.0;
            return none(if is_mixed {
                Trust::Inseparable
            } else {
                Trust::FewSamples
            });
        }
        Figure {
            value: Some(value),
            low: Some((value - half).max(0.0)),
            high: Some(value + half),
            trust: if half <= GOOD * range { Trust::Good } else { Trust::Fair },
        }
    }
}
