//! How far a session's figures are to be trusted: a circular block bootstrap over its steps.
//!
//! Steps are no independent draws: clocks drift, and a slow step has slow neighbours. So not steps are drawn but blocks of
//! a quarter of the session, with replacement, from every place of it (the end goes on at the beginning). Few long blocks see
//! slow drift where many short ones would not; that they are few is made good by Student's t with their number less one as
//! degrees of freedom, and by the factor that the variance of few means lacks. docs/measurements says how often two windows
//! of one run then differ.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::cells::Cell;

/// Blocks that a session is cut into.
const BLOCKS: usize = 4;
/// Steps without which there is no interval: blocks of two, three of them.
pub(crate) const LEAST_STEPS: u64 = 6;
/// Sessions drawn.
const DRAWS: usize = 1_000;
/// The same numbers each time.
const SEED: u64 = 20_261_124;
/// Probability of the interval.
const LEVEL: f64 = 0.95;

/// How intervals were made.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Method {
    /// Of the interval.
    pub name: &'static str,
    /// Its probability.
    pub level: f64,
    /// Blocks a session.
    pub blocks: usize,
    /// Sessions drawn.
    pub draws: usize,
    /// Of the generator.
    pub seed: u64,
}

/// The one that there is.
pub(crate) const METHOD: Method = Method {
    name: "circular block bootstrap over steps, Student's t",
    level: LEVEL,
    blocks: BLOCKS,
    draws: DRAWS,
    seed: SEED,
};

/// What a row's time is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Per {
    Step,
    /// The row's own launches.
    Launch,
}

/// A figure of a session, and how much it varies from one draw to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) value: f64,
    /// Variance of the value; none where it is unknown.
    pub(crate) variance: Option<f64>,
    pub(crate) freedom: f64,
}

/// Steps of one phase, as sums from the first cell up to each.
#[derive(Debug)]
struct Stratum {
    weight: f64,
    cells: usize,
    block: usize,
    /// Row by row, `cells + 1` sums each.
    times: Vec<f64>,
    /// In the same way what times are divided by: one row of steps, or the launches of each.
    counts: Vec<f64>,
}

/// A session's rows as they can be drawn again.
#[derive(Debug)]
pub(crate) struct Sample {
    rows: usize,
    per: Per,
    strata: Vec<Stratum>,
}

impl Sample {
    pub(crate) fn new(rows: usize, per: Per) -> Self {
        Self {
            rows,
            per,
            strata: Vec::new(),
        }
    }

    /// Adds steps that count for `weight` of all. `row_sums` gives row, time and launches of a cell.
    pub(crate) fn add(
        &mut self,
        weight: f64,
        cells: &[Cell],
        row_sums: impl Fn(&Cell, &mut dyn FnMut(usize, i64, u64)),
    ) {
        let width = cells.len() + 1;
        let mut times = vec![0.0; self.rows * width];
        let mut launches = vec![0.0; self.rows * width];
        let mut steps = vec![0.0; width];
        for (place, cell) in cells.iter().enumerate() {
            steps[place + 1] = cell.steps as f64;
            row_sums(cell, &mut |row, ns, count| {
                times[row * width + place + 1] += ns as f64;
                launches[row * width + place + 1] += count as f64;
            });
        }
        let mut counts = match self.per {
            Per::Step => steps,
            Per::Launch => launches,
        };
        for sums in times.chunks_mut(width).chain(counts.chunks_mut(width)) {
            let mut sum = 0.0;
            sums.iter_mut().for_each(|value| {
                sum += *value;
                *value = sum;
            });
        }
        self.strata.push(Stratum {
            weight,
            cells: cells.len(),
            block: cells.len().div_ceil(BLOCKS).max(1),
            times,
            counts,
        });
    }

    /// Each row's figure, with its variance if that can be told, and last the sum of all by these weights.
    pub(crate) fn spreads(&self, weights: &[f64], with_variance: bool) -> Vec<Spread> {
        let mut values = self.values(|stratum| vec![(0, stratum.cells)], &vec![0.0; self.rows]);
        let points = values.clone();
        let weigh = |values: &[f64]| {
            values
                .iter()
                .zip(weights)
                .map(|(value, weight)| value * weight)
                .sum::<f64>()
        };
        values.push(weigh(&values));
        let mut spreads: Vec<Spread> = values
            .iter()
            .map(|&value| Spread {
                value,
                ..Spread::default()
            })
            .collect();
        if !with_variance || self.strata.is_empty() {
            return spreads;
        }
        let mut random = Pcg64Mcg::seed_from_u64(SEED);
        let mut squares = vec![0.0; self.rows + 1];
        for _ in 0..DRAWS {
            let mut drawn = self.values(|stratum| stratum.draw(&mut random), &points);
            drawn.push(weigh(&drawn));
            for ((square, drawn), value) in squares.iter_mut().zip(drawn).zip(&values) {
                *square += (drawn - value) * (drawn - value);
            }
        }
        let blocks = |stratum: &Stratum| stratum.cells as f64 / stratum.block as f64;
        let blocks = self.strata.iter().map(blocks).fold(f64::MAX, f64::min);
        for (row, (spread, square)) in spreads.iter_mut().zip(squares).enumerate() {
            if row == self.rows || self.is_throughout(row) {
                spread.variance = Some(square / DRAWS as f64 * blocks / (blocks - 1.0));
                spread.freedom = blocks - 1.0;
            }
        }
        spreads
    }

    /// A mean of launches that are all in one part of the session is the same in each draw that has them, and seems sure.
    fn is_throughout(&self, row: usize) -> bool {
        let in_each_block = |stratum: &Stratum| {
            let launches = &stratum.counts[row * (stratum.cells + 1)..][..=stratum.cells];
            let starts = (0..stratum.cells).step_by(stratum.block);
            starts
                .map(|from| launches[(from + stratum.block).min(stratum.cells)] - launches[from])
                .all(|count| count > 0.0)
        };
        self.per == Per::Step || self.strata.iter().all(in_each_block)
    }

    /// Figures of a session made of these stretches of the cells of each stratum. A row that is in none has its `point`.
    fn values(&self, mut stretches: impl FnMut(&Stratum) -> Vec<(usize, usize)>, points: &[f64]) -> Vec<f64> {
        let mut values = vec![0.0; self.rows];
        for stratum in &self.strata {
            let stretches = stretches(stratum);
            let width = stratum.cells + 1;
            let sum = |sums: &[f64]| stretches.iter().map(|&(from, to)| sums[to] - sums[from]).sum::<f64>();
            let steps = sum(&stratum.counts[..width]);
            for (row, value) in values.iter_mut().enumerate() {
                let time = sum(&stratum.times[row * width..][..width]);
                let count = match self.per {
                    Per::Step => steps,
                    Per::Launch => sum(&stratum.counts[row * width..][..width]),
                };
                *value += match count > 0.0 {
                    true => stratum.weight * time / count,
                    false => stratum.weight * points[row],
                };
            }
        }
        values
    }
}

impl Stratum {
    /// Blocks that together are as long as all cells.
    fn draw(&self, random: &mut Pcg64Mcg) -> Vec<(usize, usize)> {
        let mut stretches = Vec::with_capacity(2 * BLOCKS);
        let mut left = self.cells;
        while left > 0 {
            let length = self.block.min(left);
            let from = random.random_range(0..self.cells);
            let to = (from + length).min(self.cells);
            stretches.push((from, to));
            if from + length > to {
                stretches.push((0, from + length - to));
            }
            left -= length;
        }
        stretches
    }
}

/// A relative difference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) relative: f64,
    /// Bounds of the interval, and the probability that chance alone differs as much.
    pub(crate) interval: Option<(f64, f64, f64)>,
}

/// How much larger the second is than the first; none where the first is nothing.
pub(crate) fn relative(a: &Spread, b: &Spread) -> Option<Estimate> {
    if a.value <= 0.0 {
        return None;
    }
    let ratio = b.value / a.value;
    let relative = ratio - 1.0;
    let interval = a.variance.zip(b.variance).and_then(|(of_a, of_b)| {
        let of_a = of_a * ratio * ratio / (a.value * a.value);
        let of_b = of_b / (a.value * a.value);
        let error = (of_a + of_b).sqrt();
        if error == 0.0 {
            return Some((relative, relative, if relative == 0.0 { 1.0 } else { 0.0 }));
        }
        // Welch and Satterthwaite.
        let freedom = (of_a + of_b).powi(2) / (of_a * of_a / a.freedom + of_b * of_b / b.freedom);
        let student = StudentsT::new(0.0, 1.0, freedom).ok()?;
        let reach = student.inverse_cdf(0.5 + LEVEL / 2.0) * error;
        let chance = 2.0 * student.sf(relative.abs() / error);
        Some((relative - reach, relative + reach, chance))
    });
    Some(Estimate { relative, interval })
}

/// Which of several differences are none by chance, all of them together at the interval's level: Holm's method.
pub(crate) fn not_by_chance(chances: &[f64]) -> Vec<bool> {
    let mut order: Vec<usize> = (0..chances.len()).collect();
    order.sort_by(|&a, &b| chances[a].total_cmp(&chances[b]));
    let mut is_real = vec![false; chances.len()];
    for (place, &at) in order.iter().enumerate() {
        if chances[at] > (1.0 - LEVEL) / (chances.len() - place) as f64 {
            break;
        }
        is_real[at] = true;
    }
    is_real
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::compare::cells::RowSum;

    fn cells(times: &[i64]) -> Vec<Cell> {
        let cell = |(&ns, start_ns): (&i64, i64)| Cell {
            start_ns,
            steps: 1,
            length_ns: ns,
            kernels_ns: ns,
            rows: vec![RowSum {
                row: 0,
                ns,
                launches: 2,
            }],
        };
        times.iter().zip(0..).map(cell).collect()
    }

    fn sample(times: &[i64], per: Per) -> Sample {
        let mut sample = Sample::new(1, per);
        sample.add(1.0, &cells(times), |cell, add| {
            cell.rows.iter().for_each(|sum| add(0, sum.ns, sum.launches));
        });
        sample
    }

    /// What the bootstrap of a mean comes to when all draws are made: the variance of the means of all blocks.
    fn exact_variance(times: &[i64], block: usize) -> f64 {
        let (cells, blocks) = (times.len(), times.len() as f64 / block as f64);
        let mean = times.iter().sum::<i64>() as f64 / cells as f64;
        let of_block = |from: usize| (0..block).map(|at| times[(from + at) % cells] as f64).sum::<f64>() / block as f64;
        let squares: f64 = (0..cells).map(|from| (of_block(from) - mean).powi(2)).sum();
        squares / cells as f64 / blocks * blocks / (blocks - 1.0)
    }

    #[test]
    fn the_draws_come_to_the_variance_of_all_blocks() {
        let times: Vec<i64> = (0..40).map(|step| 1_000 + (step * step * 7919) % 101).collect();
        let spread = sample(&times, Per::Step).spreads(&[1.0], true)[0];
        assert_eq!(spread.value, times.iter().sum::<i64>() as f64 / 40.0);
        let exact = exact_variance(&times, 10);
        let found = spread.variance.unwrap();
        assert!((found / exact - 1.0).abs() < 0.1, "{found} against {exact}");
        assert_eq!(spread.freedom, 3.0);
        let again = sample(&times, Per::Step).spreads(&[1.0], true)[0];
        assert_eq!(again, spread, "seeded");
        let of_launch = sample(&times, Per::Launch).spreads(&[1.0], true)[0];
        assert_eq!(of_launch.value, spread.value / 2.0);
    }

    #[test]
    fn the_interval_is_that_of_student_and_welch() {
        let spread = |value, variance, freedom| Spread {
            value,
            variance: Some(variance),
            freedom,
        };
        let found = relative(&spread(100.0, 0.0, 3.0), &spread(110.0, 4.0, 3.0)).unwrap();
        let (low, high, chance) = found.interval.unwrap();
        // t of 3 degrees of freedom: 3.182 at 97.5 %; an error of 2 % of A.
        assert!((found.relative - 0.1).abs() < 1e-12);
        assert!((low - (0.1 - 0.02 * 3.182_446)).abs() < 1e-6, "{low}");
        assert!((high - (0.1 + 0.02 * 3.182_446)).abs() < 1e-6, "{high}");
        // 2 (1 - T3(5)) = 0.015392.
        assert!((chance - 0.015_392).abs() < 1e-5, "{chance}");
        let same = relative(&spread(5.0, 0.0, 3.0), &spread(5.0, 0.0, 3.0)).unwrap();
        assert_eq!(same.interval, Some((0.0, 0.0, 1.0)));
        assert_eq!(relative(&Spread::default(), &spread(5.0, 0.0, 3.0)), None);
    }

    #[test]
    fn many_rows_need_more_than_one_by_itself() {
        assert_eq!(not_by_chance(&[0.04]), [true]);
        assert_eq!(not_by_chance(&[0.04, 0.5]), [false, false]);
        assert_eq!(not_by_chance(&[0.03, 0.001, 0.02, 0.9]), [false, true, false, false]);
        assert_eq!(not_by_chance(&[0.001, 0.012, 0.024]), [true, true, true]);
        assert!(not_by_chance(&[]).is_empty());
    }
}
