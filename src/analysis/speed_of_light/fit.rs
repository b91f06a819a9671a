//! Least squares over all samples: each is the mean, by time, of what the columns do while they run.
//!
//! Only the normal equations are kept, so memory does not grow with the samples. Figures are kept within the bounds of their
//! metric. How much they vary is told by blocks of neighbouring samples, which may be as unlike as they are (a sandwich of
//! scores, clustered): no noise of one size is assumed, nor that neighbours know nothing of each other.

use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettingsBuilder, DefaultSolver, IPSolver as _, NonnegativeConeT, SolverStatus};
use nalgebra::{DMatrix, DVector};

use crate::analysis::speed_of_light::samples::{Samples, each_row};
use crate::analysis::speed_of_light::timeline::Stretch;

/// Blocks that the samples are cut into.
pub(super) const BLOCKS: usize = 24;
/// Keeps what can't be told apart from becoming infinite: a part of a column's own weight.
const RIDGE: f64 = 1e-9;

/// Sums over samples.
#[derive(Debug, Clone)]
pub(super) struct Normal {
    /// By row.
    gram: Vec<f64>,
    columns: usize,
    /// By column and metric.
    right: Vec<f64>,
    /// Sums of values and of their squares, by metric.
    sums: Vec<[f64; 2]>,
    samples: f64,
}

impl Normal {
    pub(super) fn new(columns: usize, metrics: usize) -> Self {
        Self {
            gram: vec![0.0; columns * columns],
            columns,
            right: vec![0.0; columns * metrics],
            sums: vec![[0.0; 2]; metrics],
            samples: 0.0,
        }
    }

    pub(super) fn of(
        samples: &Samples,
        range: std::ops::Range<usize>,
        stretches: &[Stretch],
        offset_ns: i64,
        columns: usize,
    ) -> Self {
        let mut normal = Self::new(columns, samples.values.len());
        each_row(samples, range, stretches, offset_ns, |(sample, row)| {
            normal.add(row, samples, sample);
        });
        normal
    }

    fn add(&mut self, row: &[(u32, f64)], samples: &Samples, sample: usize) {
        let metrics = self.sums.len();
        for &(a, part) in row {
            let a = a as usize;
            let gram = &mut self.gram[a * self.columns..][..self.columns];
            for &(b, other) in row {
                gram[b as usize] += part * other;
            }
            let right = &mut self.right[a * metrics..][..metrics];
            for (right, values) in right.iter_mut().zip(&samples.values) {
                *right += part * values[sample];
            }
        }
        for (sums, values) in self.sums.iter_mut().zip(&samples.values) {
            let value = values[sample];
            *sums = [sums[0] + value, sums[1] + value * value];
        }
        self.samples += 1.0;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        add(&mut self.gram, &other.gram);
        add(&mut self.right, &other.right);
        for (sums, others) in self.sums.iter_mut().zip(&other.sums) {
            *sums = [sums[0] + others[0], sums[1] + others[1]];
        }
        self.samples += other.samples;
    }

    /// Samples' worth of time that a column had: as many as it would have filled, had it been alone in them.
    pub(super) fn weight(&self, column: usize) -> f64 {
        self.product(column, column)
    }

    fn product(&self, a: usize, b: usize) -> f64 {
        self.gram[a * self.columns + b]
    }

    fn right(&self) -> DMatrix<f64> {
        DMatrix::from_row_slice(self.columns, self.sums.len(), &self.right)
    }

    /// Figures without bounds.
    fn free(&self, inverse: &DMatrix<f64>) -> DMatrix<f64> {
        inverse * self.right()
    }

    /// The inverse of the gram matrix; columns that never ran have zeros.
    pub(super) fn inverse(&self) -> DMatrix<f64> {
        let columns = self.columns;
        let scale: Vec<f64> = (0..columns)
            .map(|column| match self.weight(column) {
                weight if weight > 0.0 => weight.sqrt().recip(),
                _ => 0.0,
            })
            .collect();
        let scaled = DMatrix::from_fn(columns, columns, |a, b| {
            let own = if a == b { RIDGE } else { 0.0 };
            let entry = self.product(a, b) * scale[a] * scale[b] + own;
            if a == b && scale[a] == 0.0 { 1.0 } else { entry }
        });
        let inverse = scaled
            .cholesky()
            .map_or_else(|| DMatrix::zeros(columns, columns), |cholesky| cholesky.inverse());
        DMatrix::from_fn(columns, columns, |a, b| inverse[(a, b)] * scale[a] * scale[b])
    }

    /// What is left of the values' variance, a part of 1 for each metric, summed.
    pub(super) fn residual(&self) -> f64 {
        let (solution, right) = (self.free(&self.inverse()), self.right());
        let of_metric = |metric: usize| {
            let [sum, squares] = self.sums[metric];
            let variance = squares - sum * sum / self.samples.max(1.0);
            let explained = right.column(metric).dot(&solution.column(metric));
            if variance > 1e-9 * squares {
                ((squares - explained) / variance).max(0.0)
            } else {
                0.0
            }
        };
        (0..self.sums.len()).map(of_metric).sum()
    }

    /// Figures of a metric within 0 and `most`.
    fn bounded(&self, metric: usize, most: Option<f64>) -> Option<DVector<f64>> {
        let columns: Vec<usize> = (0..self.columns).filter(|column| self.weight(*column) > 0.0).collect();
        let count = columns.len();
        // Scaled, so that columns of little time weigh as much to the solver.
        let scale: Vec<f64> = columns
            .iter()
            .map(|column| self.weight(*column).sqrt().recip())
            .collect();
        let unit = self.sums[metric][1].sqrt().max(f64::MIN_POSITIVE);
        let mut upper = vec![vec![0.0; count]; count];
        for (b, column) in columns.iter().enumerate() {
            for (a, row) in columns.iter().enumerate().take(b + 1) {
                let own = if a == b { RIDGE } else { 0.0 };
                upper[a][b] = self.product(*row, *column) * scale[a] * scale[b] + own;
            }
        }
        let linear: Vec<f64> = (0..count)
            .map(|index| -self.right[columns[index] * self.sums.len() + metric] * scale[index] / unit)
            .collect();
        let bounds = if most.is_some() { 2 } else { 1 };
        let mut sides = Vec::with_capacity(bounds * count);
        let (mut rows, mut places, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..count {
            for bound in 0..bounds {
                rows.push(bound * count + index);
                places.push(index);
                entries.push(if bound == 0 { -1.0 } else { 1.0 });
            }
        }
        sides.resize(count, 0.0);
        if let Some(most) = most {
            sides.extend(scale.iter().map(|scale| most / scale / unit));
        }
        let settings = DefaultSettingsBuilder::default().verbose(false).build().ok()?;
        let solver = DefaultSolver::new(
            &CscMatrix::from(&upper),
            &linear,
            &CscMatrix::new_from_triplets(bounds * count, count, rows, places, entries),
            &sides,
            &[NonnegativeConeT(bounds * count)],
            settings,
        );
        let mut solver = solver.ok()?;
        solver.solve();
        if !matches!(
            solver.solution.status,
            SolverStatus::Solved | SolverStatus::AlmostSolved
        ) {
            return None;
        }
        let mut figures = DVector::zeros(self.columns);
        for (index, column) in columns.iter().enumerate() {
            let figure = solver.solution.x[index] * scale[index] * unit;
            figures[*column] = figure.clamp(0.0, most.unwrap_or(f64::INFINITY));
        }
        Some(figures)
    }
}

/// The fit of all metrics.
#[derive(Debug)]
pub(super) struct Fit {
    /// By column and metric.
    pub(super) figures: DMatrix<f64>,
    /// Change of `figures` with the offset of the clocks, a ns.
    slopes: DMatrix<f64>,
    offset_sd_ns: f64,
    pub(super) normal: Normal,
    inverse: DMatrix<f64>,
    /// By block: what it pulls each figure by, by column and metric.
    scores: Vec<DMatrix<f64>>,
    /// Part of each metric's variance that the figures explain.
    pub(super) explained: Vec<f64>,
}

/// What to fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem<'a> {
    pub(super) samples: &'a Samples,
    pub(super) stretches: &'a [Stretch],
    pub(super) columns: usize,
    /// Largest value of each metric.
    pub(super) most: &'a [Option<f64>],
}

impl Problem<'_> {
    fn normal(&self, offset_ns: i64) -> Normal {
        Normal::of(
            self.samples,
            0..self.samples.len(),
            self.stretches,
            offset_ns,
            self.columns,
        )
    }
}

impl Fit {
    /// With the clocks' offset, and how well it is known.
    pub(super) fn new(problem: Problem<'_>, offset_ns: i64, offset_sd_ns: f64) -> Option<Self> {
        let normal = problem.normal(offset_ns);
        let inverse = normal.inverse();
        let free = normal.free(&inverse);
        let metrics = problem.samples.values.len();
        let mut figures = DMatrix::zeros(problem.columns, metrics);
        for metric in 0..metrics {
            figures.set_column(metric, &normal.bounded(metric, problem.most[metric])?);
        }
        let step = (offset_sd_ns as i64).max(100);
        let at = |offset: i64| {
            let normal = problem.normal(offset);
            normal.free(&normal.inverse())
        };
        let slopes = (at(offset_ns + step) - at(offset_ns - step)) / (2.0 * step as f64);
        let mut scores = vec![DMatrix::zeros(problem.columns, metrics); BLOCKS];
        let mut squares = vec![0.0; metrics];
        let count = problem.samples.len();
        each_row(
            problem.samples,
            0..count,
            problem.stretches,
            offset_ns,
            |(sample, row)| {
                let score = &mut scores[sample * BLOCKS / count];
                for (metric, values) in problem.samples.values.iter().enumerate() {
                    let fitted: f64 = row
                        .iter()
                        .map(|(column, part)| part * free[(*column as usize, metric)])
                        .sum();
                    let residual = values[sample] - fitted;
                    squares[metric] += residual * residual;
                    for (column, part) in row {
                        score[(*column as usize, metric)] += part * residual;
                    }
                }
            },
        );
        let explained = (0..metrics).map(|metric| {
            let [sum, all] = normal.sums[metric];
            let variance = all - sum * sum / normal.samples.max(1.0);
            if variance > 1e-9 * all {
                1.0 - squares[metric] / variance
            } else {
                1.0
            }
        });
        Some(Self {
            explained: explained.collect(),
            figures,
            slopes,
            offset_sd_ns,
            normal,
            inverse,
            scores,
        })
    }

    /// A sum of figures by weights: its value, and standard deviation.
    pub(super) fn sum(&self, weights: &DVector<f64>, metric: usize) -> (f64, f64) {
        let value = weights.dot(&self.figures.column(metric));
        let pull = &self.inverse * weights;
        let blocks = self.scores.len() as f64;
        let columns = (0..self.normal.columns)
            .filter(|column| self.normal.weight(*column) > 0.0)
            .count() as f64;
        let of_blocks: f64 = self
            .scores
            .iter()
            .map(|score| pull.dot(&score.column(metric)).powi(2))
            .sum();
        let few = blocks / (blocks - 1.0) * self.normal.samples / (self.normal.samples - columns).max(1.0);
        let slope = weights.dot(&self.slopes.column(metric)) * self.offset_sd_ns;
        (value, (of_blocks * few + slope * slope).sqrt())
    }

    /// How much larger the variance of such a sum is than if its columns never shared a sample with others.
    pub(super) fn inflation(&self, weights: &DVector<f64>) -> f64 {
        let real = weights.dot(&(&self.inverse * weights));
        let ideal: f64 = (0..weights.len())
            .filter(|column| self.normal.weight(*column) > 0.0)
            .map(|column| weights[column].powi(2) / self.normal.weight(column))
            .sum();
        if ideal > 0.0 { real / ideal } else { f64::INFINITY }
    }
}
