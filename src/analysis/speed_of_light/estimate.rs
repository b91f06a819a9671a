//! Figures of kernels from the samples that they had a part in, and how far each is to be trusted.

use nalgebra::DVector;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use crate::analysis::speed_of_light::fit::{BLOCKS, Fit, Problem};
use crate::analysis::speed_of_light::offset::{self, Offset};
use crate::analysis::speed_of_light::samples::Samples;
use crate::analysis::speed_of_light::timeline::{Column, Cut, Run, Timeline};

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
/// What the interval has to either side besides what the samples tell, of the metric's range: what ncu and live figures of the
/// same kernels differ by anyway. Told from one half of the kernels of docs/measurements/2026-11-24-counters-3, tested on the
/// other.
pub(super) const MODEL: f64 = 0.017;

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

/// The fit with runs cut in one way.
#[derive(Debug)]
struct Fitted {
    timeline: Timeline,
    fit: Fit,
    /// Columns of each unit's parts, and what part of a run they are.
    columns: Vec<Vec<(usize, f64)>>,
}

impl Fitted {
    fn new(timeline: Timeline, samples: &Samples, most: &[Option<f64>], offset: Offset) -> Option<Self> {
        let problem = Problem {
            samples,
            stretches: &timeline.stretches,
            columns: timeline.columns.len(),
            most,
        };
        let fit = Fit::new(problem, offset.ns, offset.sd_ns)?;
        let mut columns = vec![Vec::new(); timeline.borders.len()];
        for (column, what) in timeline.columns.iter().enumerate() {
            if let Column::Alone(unit, part) = what {
                let borders = &timeline.borders[*unit as usize][*part as usize..];
                columns[*unit as usize].push((column, borders[1] - borders[0]));
            }
        }
        Some(Self { timeline, fit, columns })
    }

    /// Weights of the columns for units that have these times, and what part of the time they have.
    fn weights(&self, parts: &[(u32, i64)]) -> (DVector<f64>, f64) {
        let mut weights = DVector::zeros(self.timeline.columns.len());
        let (mut told, mut all) = (0.0, 0.0);
        for &(unit, ns) in parts {
            all += ns as f64;
            for (column, part) in &self.columns[unit as usize] {
                weights[*column] += part * ns as f64;
                told += part * ns as f64;
            }
        }
        if told > 0.0 {
            weights /= told;
        }
        (weights, if all > 0.0 { told / all } else { 0.0 })
    }
}

/// The fit of a device: one with each way to cut runs.
#[derive(Debug)]
pub(super) struct Estimate {
    cuts: Vec<Fitted>,
    pub(super) offset: Offset,
    /// Range of each metric: what widths are measured by.
    ranges: Vec<f64>,
    length_ns: f64,
}

impl Estimate {
    /// None where there is too little to fit.
    pub(super) fn new(input: Input) -> Option<Self> {
        let Input {
            samples,
            mut runs,
            units,
            most,
        } = input;
        let length_ns = samples.length_ns();
        if length_ns == 0 || runs.is_empty() {
            return None;
        }
        runs.sort_unstable_by_key(|run| (run.start, run.end, run.unit));
        let columns = (samples.len() / SAMPLES_A_COLUMN).min(MOST_COLUMNS);
        let timeline = |cut| Timeline::new(&runs, units, cut, columns, (LEAST_SAMPLES * length_ns as f64) as i64);
        let [whole, others @ ..] = Cut::ALL;
        let whole = timeline(whole);
        let count = whole.columns.len();
        if samples.len() < BLOCKS.max(SAMPLES_A_COLUMN * count) {
            return None;
        }
        let offset = offset::estimate(&samples, &whole.stretches, count);
        let mut cuts = vec![Fitted::new(whole, &samples, &most, offset)?];
        for cut in others {
            cuts.push(Fitted::new(timeline(cut), &samples, &most, offset)?);
        }
        let largest = |metric| cuts[0].fit.figures.column(metric).max();
        let range = |(metric, most): (usize, &Option<f64>)| most.unwrap_or_else(|| largest(metric));
        Some(Self {
            ranges: most.iter().enumerate().map(range).collect(),
            cuts,
            offset,
            length_ns: length_ns as f64,
        })
    }

    /// Part of a metric's variance that the figures explain.
    pub(super) fn explained(&self, metric: usize) -> f64 {
        self.cuts[0].fit.explained[metric]
    }

    /// Part of the time of these units in which nothing else ran, and that time, ns.
    fn alone_ns(&self, units: impl Iterator<Item = u32>) -> (f64, i64) {
        let timeline = &self.cuts[0].timeline;
        let (mut alone, mut busy) = (0, 0);
        for unit in units {
            alone += timeline.alone_ns[unit as usize];
            busy += timeline.busy_ns[unit as usize];
        }
        (alone as f64 / busy.max(1) as f64, alone)
    }

    /// Part of the time of these units in which nothing else ran.
    pub(super) fn alone(&self, units: impl Iterator<Item = u32>) -> f64 {
        self.alone_ns(units).0
    }

    /// Of units that have these times, by time.
    pub(super) fn figure(&self, parts: &[(u32, i64)], metric: usize) -> Figure {
        let none = |trust| Figure {
            value: None,
            low: None,
            high: None,
            trust,
        };
        let (alone, alone_ns) = self.alone_ns(parts.iter().map(|(unit, _)| *unit));
        if alone < 1.0 - MOST_BESIDE {
            return none(Trust::Concurrent);
        }
        let weights: Vec<(DVector<f64>, f64)> = self.cuts.iter().map(|cut| cut.weights(parts)).collect();
        if weights.iter().any(|(_, told)| *told < LEAST_TOLD) || (alone_ns as f64) < LEAST_SAMPLES * self.length_ns {
            return none(Trust::FewSamples);
        }
        let inflation = self.cuts[0].fit.inflation(&weights[0].0);
        if inflation > MOST_INFLATION {
            return none(Trust::Inseparable);
        }
        let of_cuts = self.cuts.iter().zip(&weights);
        let of_cuts: Vec<(f64, f64)> = of_cuts
            .map(|(cut, (weights, _))| cut.fit.sum(weights, metric))
            .collect();
        let range = self.ranges[metric];
        let (value, noise, model) = together(&of_cuts);
        let half = noise.hypot(model).hypot(MODEL * range);
        if half > WIDEST * range {
            // More samples make noise smaller, and nothing else.
            return none(if inflation > 10.0 || model > noise {
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

/// The mean of several estimates, and half of its interval: that of noise, from how much each varies (standard deviations), and
/// that of the model, from what they differ by beyond noise.
fn together(estimates: &[(f64, f64)]) -> (f64, f64, f64) {
    let count = estimates.len() as f64;
    let mean = estimates.iter().map(|(value, _)| value).sum::<f64>() / count;
    let noise = estimates.iter().map(|(_, sd)| sd * sd).sum::<f64>() / count;
    let spread = estimates.iter().map(|(value, _)| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = |variance: f64, freedom: f64| variance.sqrt() * quantile(freedom);
    (
        mean,
        half(noise, BLOCKS as f64 - 1.0),
        half((spread - noise).max(0.0), count - 1.0),
    )
}

/// Of Student's t: what 90 % lie within, to either side.
fn quantile(freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(f64::midpoint(1.0, LEVEL)))
}
